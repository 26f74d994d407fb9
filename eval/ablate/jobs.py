"""Commands in processes of their own, several at once: their output passed on, their failures in one line each."""

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL = 0.1
"""Seconds between looks at the output."""
GRACE = 60.0
"""Seconds that an interrupted command has to save."""


@dataclass(frozen=True)
class Job:
    """A command, and the file that its output is appended to."""

    name: str
    command: Callable[[int], Sequence[str]]
    """Of the place it runs in, 0 to `at_once` - 1: two that run at once have different ones."""
    log: Path


def run(jobs: Iterable[Job], at_once: int, say: Callable[[str], object]) -> dict[str, str]:
    """Runs all of them in order, `at_once` side by side. Returns the last line of those that failed, by name.

    `say` gets every line of output. An interrupt interrupts them, waits until they have saved, and is raised again.
    """
    waiting, running, failed = deque(jobs), dict[int, _Process](), dict[str, str]()
    try:
        while waiting or running:
            for place in range(at_once):
                if waiting and place not in running:
                    running[place] = _Process(waiting.popleft(), place, say)
            time.sleep(POLL)
            for place, process in list(running.items()):
                process.pass_on()
                if process.ended():
                    del running[place]
                    if process.failure:
                        failed[process.name] = process.failure
    finally:
        _stop(list(running.values()))
    return failed


class _Process:
    """A job that runs."""

    def __init__(self, job: Job, place: int, say: Callable[[str], object]):
        self.name, self.failure = job.name, ""
        self._say, self._last = say, ""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as out:
            self._reader = job.log.open("rb")
            self._reader.seek(0, os.SEEK_END)
            # In a session of its own: Ctrl-C reaches this process alone, which passes it on once.
            self._process = subprocess.Popen(
                job.command(place),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pass_on(self) -> None:
        """Passes on the whole lines since the last call."""
        while line := self._reader.readline():
            if not line.endswith(b"\n") and self._process.poll() is None:
                self._reader.seek(-len(line), os.SEEK_CUR)  # read again when it is whole
                return
            text = line.decode(errors="replace").strip()
            if text:
                self._last = text
                self._say(f"{self.name}: {text}")

    def ended(self) -> bool:
        """Whether it has; then `failure` says why, empty for success."""
        code = self._process.poll()
        if code is None:
            return False
        self.pass_on()
        self._reader.close()
        if code < 0:
            self.failure = f"killed by {signal.Signals(-code).name}"
        elif code:
            self.failure = self._last or f"exit {code}"
        return True

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def wait(self, seconds: float) -> None:
        """Until it ends or `seconds` have passed, after which it is killed."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.ended()


def _stop(processes: Sequence[_Process]) -> None:
    """Interrupts those that still run and waits for them; a second Ctrl-C kills them."""
    until = time.monotonic() + GRACE
    for process in processes:
        process.interrupt()
    for process in processes:
        try:
            process.wait(until - time.monotonic())
        except KeyboardInterrupt:
            until = 0.0
            process.wait(0)
