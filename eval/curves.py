"""What a run's log tells about learning: returns by environment step and by second, and speed.

Letters: n runs of one model, K tasks, G points of a grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.logging.log import Row, read_metrics
from agent.runs.config import load_config
from eval.statistics import curve, on_grid

POINTS = 20
"""G: enough to see a curve, few enough that each has episodes to average."""


@dataclass(frozen=True)
class Learning:
    """A run, on G steps that are as far from each other."""

    returns: np.ndarray
    """(G,): mean return of the training episodes that ended since the point before; NaN before the first."""
    seconds: np.ndarray
    """(G,): that training took up to each."""
    minutes: float | None
    """In all; None, as speeds are, for a run that logged no time."""
    steps_a_second: float | None
    frames_a_second: float | None
    """Replayed frames; None also for a run without updates of a world model."""


Curve = dict[str, list[float]]
"""`at`, `iqm`, `low` and `high`, each (G,)."""


def learning(run: Path, steps: int) -> Learning:
    """What metrics.jsonl tells up to `steps`."""
    rows = read_metrics(run / "metrics.jsonl")
    grid = step_grid(steps)
    at, returns = _series(rows, "episode/return")
    spent = training_seconds(rows)
    updates = _series(rows, "updates")[1]
    replay = load_config(run / "config.yaml").replay
    frames = float(updates[-1]) * replay.batch_size * replay.batch_length if len(updates) else None
    last, total = float(spent[0][-1]), float(spent[1][-1])
    return Learning(
        on_grid(grid, at, returns),
        np.interp(grid, *spent),
        total / 60 if total else None,
        last / total if total else None,
        frames / total if frames and total else None,
    )


def step_grid(steps: int) -> np.ndarray:
    """(G,)"""
    return np.linspace(0, steps, POINTS + 1)[1:]


def training_seconds(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and seconds, both from 0, from the `time/` figures, which are sums; without evaluation's share.

    A run that is taken up again counts from 0 anew: where the sum falls, what it was before is added.
    """
    steps, seconds, before, last = [0.0], [0.0], 0.0, 0.0
    for row in rows:
        parts = [v for k, v in row.items() if k.startswith("time/") and k != "time/evaluate" and v is not None]
        if not parts:
            continue
        now = sum(parts)
        before, last = before + (last if now < last else 0.0), now
        steps.append(row["step"])
        seconds.append(before + now)
    return np.array(steps), np.array(seconds)


def by_step(runs: Sequence[Sequence[Learning]], steps: int) -> Curve:
    """IQM of n runs on each of K tasks, from where all have ended an episode on."""
    scores = _table([[run.returns for run in tasks] for tasks in runs])
    return _curve(step_grid(steps), scores)


def by_second(runs: Sequence[Sequence[Learning]]) -> Curve:
    """The same by seconds of training, as far as all runs go."""
    everything = [run for tasks in runs for run in tasks]
    firsts = [run.seconds[np.isfinite(run.returns)][:1] for run in everything]
    if not all(map(len, firsts)) or not all(run.minutes for run in everything):
        return _curve(np.zeros(0), np.zeros((1, 1, 0)))
    grid = np.linspace(max(first[0] for first in firsts), min(run.seconds[-1] for run in everything), POINTS)
    return _curve(grid, _table([[np.interp(grid, run.seconds, run.returns) for run in tasks] for tasks in runs]))


def _curve(at: np.ndarray, scores: np.ndarray) -> Curve:
    """Where all of (n, K, G) are there."""
    there = np.isfinite(scores).all((0, 1))
    if not there.any():
        return {name: [] for name in ("at", "iqm", "low", "high")}
    columns = (at[there], *curve(scores[..., there]))
    return {name: column.tolist() for name, column in zip(("at", "iqm", "low", "high"), columns, strict=True)}


def _table(runs: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """(n, K, G)"""
    return np.array([[np.asarray(values) for values in tasks] for tasks in runs])


def _series(rows: Sequence[Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values (n,) of a figure where it was reported and finite."""
    pairs = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    steps, values = np.array(pairs, dtype=float).reshape(-1, 2).T
    return steps, values
