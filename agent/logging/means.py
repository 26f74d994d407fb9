"""Means of what updates measure, until the log asks for them."""

import math
from collections.abc import Mapping

from torch import Tensor


class Means:
    """By name, over the values that were finite: an update that was skipped has none, or some that are no numbers."""

    def __init__(self) -> None:
        self.updates = 0
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, figures: Mapping[str, Tensor]) -> None:
        """The figures of one more update."""
        self.updates += 1
        for name, value in figures.items():
            number = float(value)
            if math.isfinite(number):
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + number, count + 1)

    def take(self) -> dict[str, float]:
        """The means since it was last asked."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self.updates, self._sums = 0, {}
        return means
