"""What a run's log holds about training over time: returns by environment step and by second, and speed.

Letters: n runs of one model, K tasks, G points of a grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.logging.plots import series
from agent.logging.sinks import Row, read_metrics
from agent.runs.config import load_config
from eval.statistics import curve, on_grid

ACTIVITIES = ("act", "learn", "wait", "evaluate")
"""What a run's time goes to: `time/NAME` in metrics.jsonl, seconds since the session began."""
POINTS = 20
"""G: enough to see a curve, few enough that each has episodes to average."""


@dataclass(frozen=True)
class Learning:
    """A run, on a grid of G evenly spaced steps."""

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


def time_spent(rows: Sequence[Row]) -> tuple[list[Row], dict[str, np.ndarray]]:
    """The rows (n,) that log time, and by activity the seconds (n,) spent since the row before.

    Each session of a run counts from zero: one begins where the seconds of training fall.
    """
    timed = [row for row in rows if any(row.get(f"time/{name}") is not None for name in ACTIVITIES)]
    sums = np.array([[row.get(f"time/{name}") or 0.0 for name in ACTIVITIES] for row in timed]).reshape(-1, 4)
    before = np.concatenate([np.zeros((1, 4)), sums[:-1]])[: len(sums)]
    training = [name != "evaluate" for name in ACTIVITIES]
    before[sums[:, training].sum(1) < before[:, training].sum(1)] = 0
    return timed, dict(zip(ACTIVITIES, (sums - before).clip(0).T, strict=True))


def training_seconds(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and seconds, both from 0, without evaluation."""
    timed, spent = time_spent(rows)
    passed = sum((seconds for name, seconds in spent.items() if name != "evaluate"), np.zeros(len(timed)))
    steps = np.array([0.0, *(row["step"] for row in timed)])
    return steps, np.concatenate([[0.0], np.cumsum(passed)])


def speed(rows: Sequence[Row], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n,), and replayed frames a second (n,) since the row before; `frames` an update."""
    timed, spent = time_spent([row for row in rows if isinstance(row.get("updates"), int | float)])
    passed, replayed = np.sum(list(spent.values()), 0)[1:], np.diff([row["updates"] for row in timed]) * frames
    steps, sound = np.array([row["step"] for row in timed[1:]], float), (passed > 0) & (replayed > 0)
    return steps[sound], replayed[sound] / passed[sound]


def learning(run: Path, steps: int) -> Learning:
    """What metrics.jsonl holds up to `steps`."""
    rows = read_metrics(run / "metrics.jsonl")
    grid = step_grid(steps)
    spent = training_seconds(rows)
    updates = series(rows, "updates")[1]
    replay = load_config(run / "config.yaml").replay
    frames = float(updates[-1]) * replay.batch_size * replay.batch_length if len(updates) else None
    last, total = float(spent[0][-1]), float(spent[1][-1])
    return Learning(
        on_grid(grid, *series(rows, "episode/return")),
        np.interp(grid, *spent),
        total / 60 if total else None,
        last / total if total else None,
        frames / total if frames and total else None,
    )


def step_grid(steps: int) -> np.ndarray:
    """(G,)"""
    return np.linspace(0, steps, POINTS + 1)[1:]


def by_step(runs: Sequence[Sequence[Learning]], steps: int) -> Curve:
    """IQM of n runs on each of K tasks, from where all have ended an episode on."""
    return _curve(step_grid(steps), [[run.returns for run in tasks] for tasks in runs])


def by_second(runs: Sequence[Sequence[Learning]]) -> Curve:
    """The same by seconds of training, as far as all runs go."""
    flat = [run for tasks in runs for run in tasks]
    firsts = [run.seconds[np.isfinite(run.returns)][:1] for run in flat]
    if not all(map(len, firsts)) or not all(run.minutes for run in flat):
        return _curve(np.zeros(0), [[np.zeros(0)]])
    grid = np.linspace(max(first[0] for first in firsts), min(run.seconds[-1] for run in flat), POINTS)
    return _curve(grid, [[np.interp(grid, run.seconds, run.returns) for run in tasks] for tasks in runs])


def _curve(at: np.ndarray, values: Sequence[Sequence[np.ndarray]]) -> Curve:
    """Of (n, K, G), where all are finite."""
    scores = np.array(values)
    there = np.isfinite(scores).all((0, 1))
    columns = (at[there], *curve(scores[..., there])) if there.any() else (np.zeros(0),) * 4
    return {name: column.tolist() for name, column in zip(("at", "iqm", "low", "high"), columns, strict=True)}
