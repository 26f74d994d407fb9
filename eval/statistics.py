"""Statistics for few runs: Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice" (arXiv 2108.13264).

Scores are (..., runs, tasks). Every statistic reduces the last two axes; resamples may stand before them.
Letters: n and m runs of two algorithms, R resamples, G points of a grid.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

Statistic = Callable[..., np.ndarray]
"""One array of scores or more, each (..., runs, tasks) -> (...)."""

RESAMPLES = 2_000
CHUNK = 100
"""Resamples held in memory at once."""


def mean(scores: np.ndarray) -> np.ndarray:
    """The mean over runs and tasks."""
    return scores.mean((-2, -1))


def median(scores: np.ndarray) -> np.ndarray:
    """The median over tasks of the mean over runs."""
    return np.median(scores.mean(-2), -1)


def iqm(scores: np.ndarray) -> np.ndarray:
    """The interquartile mean: of the middle half of all runs on all tasks together (section 4.3)."""
    return stats.trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1)


def optimality_gap(scores: np.ndarray, target: float = 1.0) -> np.ndarray:
    """The mean shortfall of scores below `target` (section 4.3)."""
    return target - mean(np.minimum(scores, target))


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """P(a run of x is better than one of y on the same task), ties at half, averaged over tasks (section 4.3).

    On each task the Mann-Whitney statistic U / (n m). x (..., n, tasks), y (..., m, tasks).
    """
    x, y = x[..., :, None, :], y[..., None, :, :]
    return ((x > y) + 0.5 * (x == y)).mean((-3, -2, -1))


def interval(statistic: Statistic, *scores: np.ndarray, resamples: int = RESAMPLES) -> tuple[float, float]:
    """(low, high) of 95 % by stratified bootstrap percentiles (section 4.2): runs are drawn anew within each task.

    The same scores give the same interval.

    Args:
        scores: (runs, tasks) for each argument of the statistic, each resampled by itself.

    Raises ValueError where scores are not such arrays, are empty or not finite.
    """
    for array in scores:
        if array.ndim != 2 or not array.size or not np.isfinite(array).all():
            raise ValueError(f"scores must be finite numbers (runs, tasks), at least one, not {array.shape}")
    random = np.random.default_rng(0)
    chunks = [min(CHUNK, resamples - done) for done in range(0, resamples, CHUNK)]
    values = np.concatenate([statistic(*(_resampled(array, n, random) for array in scores)) for n in chunks])
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def summarise(scores: np.ndarray) -> dict[str, Any]:
    """`mean` and `iqm` of (runs, tasks), and their intervals `mean_interval` and `iqm_interval`."""
    return {
        "mean": float(mean(scores)),
        "mean_interval": interval(mean, scores),
        "iqm": float(iqm(scores)),
        "iqm_interval": interval(iqm, scores),
    }


def curve(scores: np.ndarray, resamples: int = RESAMPLES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IQM, low and high (G,) at each point of (runs, tasks, G): a sample-efficiency curve (section 4.2)."""
    points = np.moveaxis(scores, -1, 0)
    bounds = np.array([interval(iqm, point, resamples=resamples) for point in points])
    return iqm(points), bounds[:, 0], bounds[:, 1]


def on_grid(grid: np.ndarray, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(G,): at each point of `grid`, the mean of the values after the point before; repeated where there are none.

    `steps` (n,) and `grid` (G,) rise. NaN before the first value.
    """
    ends = np.searchsorted(steps, grid, side="right")
    starts = np.concatenate([[0], ends[:-1]])
    last = np.maximum.accumulate(np.where(ends > starts, np.arange(len(grid)), -1))  # the last point with values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    with np.errstate(invalid="ignore"):
        means = (sums[ends] - sums[starts]) / (ends - starts)
    return np.where(last >= 0, means[last], np.nan)


def _resampled(scores: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """(R, runs, tasks): in each task, as many runs as there are, with replacement."""
    runs, tasks = scores.shape
    return scores[random.integers(runs, size=(resamples, runs, tasks)), np.arange(tasks)]
