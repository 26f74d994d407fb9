"""Processes that record episodes, each one with an environment of its own; started by forkserver."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from envs.vector import _no_main_module
from replay.record import Recording, RecordingError, serve

TICK = 0.5
"""Seconds between two reports at most."""


def record_all(
    recording: Recording, folder: Path, indices: Sequence[int], workers: int, report: Callable[[list[int]], None]
) -> None:
    """Record the episodes of these numbers into `folder`; `report` hears the steps of each one finished.

    When it raises, a KeyboardInterrupt included, no process is left and no file is half written.

    Raises:
        RecordingError: a process cannot record, or died.
        RuntimeError: an episode raised an exception; the message has its traceback.
    """
    left = iter(indices)
    at_work: dict[Any, int] = {}

    def next_to(pipe: Any) -> None:
        index = next(left, None)
        if index is not None:
            at_work[pipe] = index
            with suppress(OSError):  # a dead process is met when its answer is read
                pipe.send(index)

    with _processes(workers, recording, folder) as pipes:
        for pipe in pipes:
            next_to(pipe)
        while at_work:
            finished = []
            for ready in wait(list(at_work), timeout=TICK):
                finished.append(_answer(ready, at_work.pop(ready)))
                next_to(ready)
            report(finished)


def _answer(pipe: Any, index: int) -> int:
    """The steps of the episode that a process has finished; raises what went wrong instead."""
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
    """The pipes of so many processes, which are ended when the block is left."""
    # As in envs.vector: fork hangs once a process has a GL context, spawn would import everything for each one.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["envs._worker_threads", "replay.record"])
    pipes: list[Connection] = []
    processes: list[Any] = []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            pipes.append(ours)
            process = context.Process(target=serve, args=(theirs, recording, folder), daemon=True)
            with _no_main_module():
                process.start()
            processes.append(process)
            # With this copy closed, the pipe reads as ended when the process does.
            theirs.close()
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        # At once and not by request: an episode takes seconds, and its file is whole or not there.
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
