"""Progress of long work: one live line on a terminal, a plain line every half minute elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO, TypeVar

WINDOW = 60.0
"""Seconds over which speeds are measured."""
MIN_DONE = 10
"""Pieces of work that a speed is measured over at least, however long they take."""
BAR = 20
"""Characters of the bar."""

Item = TypeVar("Item")


class Progress:
    """`steps 3200/12000  episodes 3  return 1.2  updates 100  frames/s 820  left 4:10`, on a terminal after a bar."""

    def __init__(
        self,
        total: int,
        unit: str = "steps",
        *,
        name: str = "",
        stream: TextIO | None = None,
        every: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`total` pieces of work, counted as `unit`; `name` precedes the line.

        A line appears five times a second on a terminal; elsewhere every `every` seconds, and at the end.
        `stream`: standard error by default.
        """
        self._total, self._unit, self._name = total, unit, name
        self._stream, self._clock = stream or sys.stderr, clock
        self._live = self._stream.isatty()
        self._every = 0.2 if self._live else every
        self._written = -float("inf") if self._live else clock()  # short work prints its last line only
        self._past: deque[tuple[float, int, dict[str, float]]] = deque()  # (seconds, done, counts)
        self._line = ""
        self._skipped, self._paused = 0.0, False

    def update(self, done: int, *shown: str, last: float | None = None, **counts: float) -> None:
        """Shows that `done` of the total are done, if it is time for a line.

        `shown`: texts for the middle of the line. `counts`: counts so far, by name, whose speeds are shown; by default
        that of `done`. `last`: the final value of the first count; the time left then follows from the speed of that
        count, not from that of `done`.
        """
        now = self._clock()
        parts = [f"{self._unit} {done}/{self._total}", *shown]
        if not self._paused:
            parts += self._speeds(now - self._skipped, done, last, counts or {self._unit: done})
        self._line = "  ".join([self._name, *parts] if self._name else parts)
        if self._live:
            filled = BAR * min(done, self._total) // max(1, self._total)
            self._line = f"[{'=' * filled}{' ' * (BAR - filled)}] {self._line}"
        if now - self._written >= self._every:
            self._written = now
            self._show()

    def _speeds(self, now: float, done: int, last: float | None, counts: dict[str, float]) -> list[str]:
        self._past.append((now, done, counts))
        while now - self._past[0][0] > WINDOW and done - self._past[1][1] >= MIN_DONE:
            self._past.popleft()
        then, before, first = self._past[0]
        if (seconds := now - then) <= 0:
            return []
        parts = [f"{name}/s {_rate((count - first[name]) / seconds)}" for name, count in counts.items()]
        name = next(iter(counts))
        if last is not None and counts[name] > first[name]:
            parts.append(f"left {duration(max(0.0, last - counts[name]) * seconds / (counts[name] - first[name]))}")
        elif done > before:
            parts.append(f"left {duration(max(0, self._total - done) * seconds / (done - before))}")
        return parts

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that no speed is measured over, such as an evaluation's; `update` shows no speeds meanwhile."""
        began = self._clock()
        self._paused = True
        try:
            yield
        finally:
            self._paused = False
            self._skipped += self._clock() - began

    def note(self, text: str) -> None:
        """Prints a line above the live one."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leaves the last line on the screen."""
        if self._line:
            self._show()
            if self._live:
                self._stream.write("\n")
                self._stream.flush()
            self._line = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _show(self) -> None:
        self._stream.write(f"\r{self._line}\x1b[K" if self._live else f"{self._line}\n")
        self._stream.flush()


def track(items: Sequence[Item], unit: str, name: str = "", stream: TextIO | None = None) -> Iterator[Item]:
    """The items, one by one, with a line of how many are done; no line for no items."""
    if not items:
        return
    with Progress(len(items), unit, name=name, stream=stream) as progress:
        for done, item in enumerate(items):
            progress.update(done)
            yield item
        progress.update(len(items))


def duration(seconds: float) -> str:
    """Seconds as `4:10` or `2:04:10`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
