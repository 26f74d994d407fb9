"""How far a run is: one live line on a terminal, a plain line every half minute elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

WINDOW = 60.0
"""Seconds over which speeds are measured: the random prefill is faster than learning."""


class Progress:
    """`steps 3200/12000  episodes 3  return 1.2  updates 100  frames/s 820  left 4:10`"""

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        every: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`total` steps; away from a terminal a line `every` so many seconds, on a terminal five a second."""
        self._total, self._stream, self._clock = total, stream or sys.stderr, clock
        self._live = self._stream.isatty()
        self._every = 0.2 if self._live else every
        self._written = -float("inf")
        self._past: deque[tuple[float, int, int]] = deque()  # (seconds, steps, frames)
        self._line = ""

    def update(self, step: int, episodes: int, episode_return: float | None, updates: int, frames: int) -> None:
        """Show where the run is, if it is time; `frames` counts all that were replayed so far."""
        now = self._clock()
        self._past.append((now, step, frames))
        while len(self._past) > 2 and now - self._past[0][0] > WINDOW:
            self._past.popleft()
        then, first_step, first_frames = self._past[0]
        seconds = now - then
        parts = [f"steps {step}/{self._total}", f"episodes {episodes}"]
        if episode_return is not None:
            parts.append(f"return {episode_return:.1f}")
        parts.append(f"updates {updates}")
        if seconds > 0:
            parts.append(f"frames/s {(frames - first_frames) / seconds:.0f}")
            if step > first_step:
                parts.append(f"left {duration((self._total - step) * seconds / (step - first_step))}")
        self._line = "  ".join(parts)
        if now - self._written >= self._every:
            self._written = now
            self._show()

    def note(self, text: str) -> None:
        """Print a line of its own, above the live one."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._line:
            self._show()
            if self._live:
                self._stream.write("\n")
                self._stream.flush()

    def _show(self) -> None:
        self._stream.write(f"\r{self._line}\x1b[K" if self._live else f"{self._line}\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """Seconds as `4:10` or `2:04:10`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
