"""One run as `eval.report` shows it: what stands in its folder, read once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agent.baselines.ppo import PPOConfig
from agent.logging.log import Row, read_metrics
from agent.logging.plots import run_names, series
from agent.runs.config import Config
from agent.runs.fields import ConfigError
from agent.runs.folder import file_name, stored_config
from eval import statistics

ACTIVITIES = ("act", "learn", "wait", "evaluate")
"""What a run's time goes to, as `time/<name>` in metrics.jsonl."""


@dataclass(frozen=True)
class Run:
    """A run folder's contents."""

    folder: Path
    name: str
    config: Config
    rows: list[Row]
    evaluations: list[dict[str, Any]]
    """eval.json first, where it is there, then those with wiped memory."""
    retention: dict[str, Any] | None

    @property
    def baseline(self) -> bool:
        """Whether it is a model-free baseline's: it has no world model."""
        return isinstance(self.config.agent, PPOConfig)

    @property
    def taught(self) -> str:
        """Its world model; the agent, where it has none."""
        return self.config.agent.name if self.baseline else self.config.worldmodel.name

    @property
    def saved(self) -> bool:
        """Whether a checkpoint is there to be measured."""
        return any((self.folder / "checkpoints").glob("step-*"))

    @property
    def score(self) -> dict[str, Any] | None:
        """The checkpoint's evaluation with memory kept; None where there is none."""
        return next((evaluation for evaluation in self.evaluations if evaluation.get("forget") is None), None)

    @property
    def recorded(self) -> list[Path]:
        """Files of the episodes that it keeps, oldest first."""
        return sorted(path for path in self.folder.glob("episodes/*.npz") if not path.name.startswith("."))

    @property
    def unit(self) -> str:
        """What its steps count."""
        return (
            "environment steps" if any("updates" in row or "episode/return" in row for row in self.rows) else "updates"
        )

    def last(self, key: str) -> float | None:
        """The last finite value of a figure."""
        values = series(self.rows, key)[1]
        return float(values[-1]) if len(values) else None


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Named by their folders, without the environment where all were made in one and have it before their names.

    Raises ConfigError, of one line, where a folder holds no run.
    """
    runs = [_read(folder, name) for folder, name in zip(folders, run_names(folders), strict=True)]
    before = file_name(runs[0].config.env) + "-"
    shared = len(runs) > 1 and all(run.config.env == runs[0].config.env and run.name.startswith(before) for run in runs)
    return [replace(run, name=run.name.removeprefix(before)) for run in runs] if shared else runs


def _read(folder: Path, name: str) -> Run:
    config = stored_config(folder)
    if config is None:
        raise ConfigError(f"{folder} holds no run (no config.yaml)")
    found = [_json(path) for path in (folder / "eval.json", *sorted(folder.glob("eval-*.json")))]
    evaluations = [with_interval(values) for values in found if values and values.get("returns")]
    rows = read_metrics(folder / "metrics.jsonl")
    return Run(folder, name, config, rows, evaluations, _json(folder / "retention.json"))


def _json(path: Path) -> dict[str, Any] | None:
    """What a file holds; None where it is missing or cannot be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def with_interval(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """With `mean` and its 95 % bootstrap interval over episodes, as eval.returns writes it."""
    scores = np.array(evaluation["returns"], float)[:, None]
    mean = {"mean": float(scores.mean()), "mean_interval": statistics.interval(statistics.mean, scores)}
    return mean | dict(evaluation)


def seconds(rows: Sequence[Row]) -> dict[str, float]:
    """Seconds by activity of all sessions together: within one `time/...` grows, each begins at zero again."""
    return {name: float(sum(_grown(series(list(rows), f"time/{name}")[1]))) for name in ACTIVITIES}


def speed(rows: Sequence[Row], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n,), and replayed frames a second (n,) since the report before; `frames` an update."""
    timed = [row for row in rows if isinstance(row.get("updates"), int | float) and "time/learn" in row]
    steps = np.array([row["step"] for row in timed], float)
    updates = np.array([row["updates"] for row in timed], float)
    spent = np.sum([_grown(np.array([row.get(f"time/{a}") or 0.0 for row in timed])) for a in ACTIVITIES], 0)
    if len(timed) < 2:
        return np.empty(0), np.empty(0)
    passed, learned = spent[1:], np.diff(updates) * frames
    sound = (passed > 0) & (learned > 0)
    return steps[1:][sound], learned[sound] / passed[sound]


def _grown(values: np.ndarray) -> np.ndarray:
    """How much each value is above the one before, or above zero where it fell: a new session."""
    before = np.concatenate([[0.0], values[:-1]])
    return np.where(values >= before, values - before, values)
