"""Means of the metrics of several updates."""

import math
from collections.abc import Mapping

from torch import Tensor


class Means:
    """Means by name, of finite values: an update that is skipped lacks some metrics, or has NaN."""

    def __init__(self) -> None:
        self.updates = 0
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Adds the metrics of one update."""
        self.updates += 1
        for name, value in metrics.items():
            number = float(value)
            if math.isfinite(number):
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + number, count + 1)

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self.updates, self._sums = 0, {}
        return means
