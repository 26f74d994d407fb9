"""One run as `eval.report` shows it: what is in its folder, read once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from agent.baselines.ppo import PPOConfig
from agent.logging.plots import run_names, series
from agent.logging.sinks import Row, read_metrics
from agent.runs.config import Config
from agent.runs.fields import ConfigError
from agent.runs.folder import file_name, stored_config
from eval import statistics
from eval.learning_curves import time_spent


@dataclass(frozen=True)
class ReportedRun:
    """A run folder's contents."""

    folder: Path
    name: str
    config: Config
    rows: list[Row]
    evaluations: list[dict[str, Any]]
    """eval.json first, where it is there, then those with memory reset."""
    retention: dict[str, Any] | None

    @property
    def baseline(self) -> bool:
        """Whether it is a model-free baseline's: it has no world model."""
        return isinstance(self.config.agent, PPOConfig)

    @property
    def trained(self) -> str:
        """Its world model; the agent, where it has none."""
        return self.config.agent.name if self.baseline else self.config.worldmodel.name

    @property
    def saved(self) -> bool:
        """Whether it has a checkpoint."""
        return any((self.folder / "checkpoints").glob("step-*"))

    @property
    def score(self) -> dict[str, Any] | None:
        """The checkpoint's evaluation with memory kept; None where there is none."""
        return next((found for found in self.evaluations if found.get("reset_memory_at") is None), None)

    @property
    def recorded(self) -> list[Path]:
        """Files of the episodes that it keeps, oldest first."""
        return sorted(path for path in self.folder.glob("episodes/*.npz") if not path.name.startswith("."))

    @property
    def acts(self) -> bool:
        """Whether an agent acts, so that its steps count environment steps; else they count updates."""
        return any("updates" in row or "episode/return" in row for row in self.rows)

    @property
    def unit(self) -> str:
        """What its steps count."""
        return "environment steps" if self.acts else "updates"

    @property
    def frames_per_update(self) -> int:
        """Replayed frames."""
        return self.config.replay.batch_size * self.config.replay.batch_length

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Seconds by activity, of all sessions together."""
        return {name: float(seconds.sum()) for name, seconds in time_spent(self.rows)[1].items()}

    def last(self, key: str) -> float | None:
        """The last finite value of a metric."""
        values = series(self.rows, key)[1]
        return float(values[-1]) if len(values) else None


def read_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """Runs named by their folders, without the environment where all are of one and begin with its name.

    Raises ConfigError, of one line, where a folder holds no run.
    """
    runs = [_read(folder, name) for folder, name in zip(folders, run_names(folders), strict=True)]
    before = file_name(runs[0].config.env) + "-"
    shared = len(runs) > 1 and all(run.config.env == runs[0].config.env and run.name.startswith(before) for run in runs)
    return [replace(run, name=run.name.removeprefix(before)) for run in runs] if shared else runs


def _read(folder: Path, name: str) -> ReportedRun:
    config = stored_config(folder)
    if config is None:
        raise ConfigError(f"{folder} holds no run (no config.yaml)")
    found = [_json(path) for path in (folder / "eval.json", *sorted(folder.glob("eval-*.json")))]
    evaluations = [with_interval(values) for values in found if values and values.get("returns")]
    rows = read_metrics(folder / "metrics.jsonl")
    return ReportedRun(folder, name, config, rows, evaluations, _json(folder / "retention.json"))


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
