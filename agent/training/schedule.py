"""When a run evaluates, films and saves, and where Ctrl-C may reach it."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Schedule:
    """What is done once in so many steps (periods by name), and once more at the end of the run.

    `last`, the steps at which each was last done, belongs into checkpoints: what an interrupt cut off is due again.
    """

    def __init__(self, periods: Mapping[str, int], end: int):
        self.periods, self.end = periods, end
        self.last = dict.fromkeys(periods, 0)

    def due(self, name: str, step: int) -> bool:
        """Whether a period, or the run, has ended since it was last done."""
        last, period = self.last[name], self.periods[name]
        return step // period > last // period or step >= self.end > last

    def any_due(self, step: int) -> bool:
        """Whether anything is."""
        return any(self.due(name, step) for name in self.periods)

    def done(self, name: str, step: int) -> None:
        """It has been done."""
        self.last[name] = step

    def restore(self, last: Mapping[str, int] | None, step: int) -> None:
        """Goes on from `last` of a checkpoint; of one that has none (an earlier version's), all was done at `step`."""
        self.last = {name: (last or {}).get(name, step) for name in self.periods}


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back until the block has ended, so that what it changes is changed as a whole or not at all.

    Where Ctrl-C is ignored, or somebody else's, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    asked = []
    before = signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
