"""When a run evaluates, makes videos and saves."""

from collections.abc import Mapping


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

    def restore(self, last: Mapping[str, int], step: int) -> None:
        """Goes on from `last` of a checkpoint; what is not in it was done at `step`."""
        self.last = {name: last.get(name, step) for name in self.periods}
