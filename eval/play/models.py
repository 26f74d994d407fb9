"""The runs that a page shows: all of one environment, each loaded at its first use."""

import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.logging.plots import run_names
from agent.runs.checkpoint import CheckpointError
from agent.runs.fields import ConfigError
from agent.runs.folder import stored_config
from agent.training.learner import Learner
from agent.training.load import load_run


@dataclass(frozen=True)
class Loaded:
    """A run's newest checkpoint, shared by visitors: nothing that they do changes it."""

    learner: Learner
    step: int
    note: str
    """Warnings of loading, in a line; empty without any."""


class Models:
    """Run folders side by side, and what is loaded of them.

    Raises ConfigError where a folder holds no run, or the runs are not of one environment.
    """

    def __init__(self, folders: Sequence[Path]):
        self.folders = list(folders)
        self.environment = _environment(folders[0])
        for folder in folders[1:]:
            if (environment := _environment(folder)) != self.environment:
                raise ConfigError(
                    f"{folder} was made in {environment}, {folders[0]} in {self.environment}: "
                    f"one page shows runs of one environment"
                )
        self.names = run_names(self.folders)
        self._loaded: dict[int, Loaded] = {}
        self._lock = threading.Lock()

    def get(self, index: int, again: bool = False) -> Loaded:
        """The run of this index; `again` looks for a newer checkpoint. Raises as `agent.training.load.load_run`."""
        with self._lock:
            if again or index not in self._loaded:
                self._loaded[index] = _load(self.folders[index])
            return self._loaded[index]


def _environment(folder: Path) -> str:
    config = stored_config(folder)
    if config is None:
        raise ConfigError(f"{folder} holds no run (no config.yaml)")
    return config.env


def _load(folder: Path) -> Loaded:
    """Its newest whole checkpoint; damaged ones are named on the terminal and on the page."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _, learner, step = load_run(folder)
        except CheckpointError as error:
            raise CheckpointError("; ".join([str(error), *_passed_over(caught)])) from None
    note = "; ".join(_passed_over(caught))
    if note:
        print(note, file=sys.stderr, flush=True)
    return Loaded(learner, step, note)


def _passed_over(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    lines = [" ".join(str(warning.message).split()) for warning in caught]
    return [line for line in lines if line.startswith("checkpoint passed over")]
