"""Processes that record episodes, each with an environment of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from envs.forkserver import start_process
from replay.record import Recorded, Recording, RecordingError, serve

TICK = 0.5
"""Seconds between two reports at most."""


def record_all(
    recording: Recording, folder: Path, indices: Sequence[int], workers: int, report: Callable[[list[Recorded]], None]
) -> None:
    """Records the episodes of these indices into `folder`; calls `report` with those just finished.

    When it raises, a KeyboardInterrupt included, no process is left and no file is half written.

    Raises:
        RecordingError: a process cannot record, or died.
        RuntimeError: an episode raised an exception; the message has its traceback.
    """
    left = iter(indices)
    busy: dict[Any, int] = {}

    def assign(pipe: Any) -> None:
        index = next(left, None)
        if index is not None:
            busy[pipe] = index
            with suppress(OSError):  # the death of a process shows when its answer is read
                pipe.send(index)

    with _processes(workers, recording, folder) as pipes:
        for pipe in pipes:
            assign(pipe)
        while busy:
            finished = []
            for ready in wait(list(busy), timeout=TICK):
                finished.append(_answer(ready, busy.pop(ready)))
                assign(ready)
            report(finished)


def _answer(pipe: Any, index: int) -> Recorded:
    """The episode that a process has finished; raises its error instead."""
    try:
        kind, content = pipe.recv()
    except (EOFError, OSError):
        raise RecordingError(f"the process that recorded episode {index} died: the same command goes on") from None
    if kind == "refused":
        raise RecordingError(content)
    if kind == "error":
        raise RuntimeError(f"episode {index} raised an exception:\n{content}")
    return content


@contextmanager
def _processes(count: int, recording: Recording, folder: Path) -> Iterator[list[Connection]]:
    """The pipes of `count` processes, which end with the block."""
    workers: list[tuple[BaseProcess, Connection]] = []
    try:
        for _ in range(count):
            workers.append(start_process(serve, recording, folder))
        yield [pipe for _, pipe in workers]
    finally:
        # At once and not by request: an episode takes seconds, and its file is whole or not there.
        for process, pipe in workers:
            pipe.close()
            process.terminate()
        for process, _ in workers:
            process.join()
