"""The runs of `eval.ablate`: their command lines, folders, and whether they are done."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from agent.baselines.ppo import PPOConfig
from agent.runs import checkpoint
from agent.runs.cli import parse
from agent.runs.config import Config
from agent.runs.fields import ConfigError, fields
from agent.runs.folder import file_name, open_run
from agent.training.learner import check
from eval.arguments import field
from eval.returns import human_normalizer

OWN = {
    "env": "--env",
    "seed": "--seeds",
    "worldmodel": "--worldmodels",
    "worldmodel.name": "--worldmodels",
    "agent": "--agents",
    "agent.name": "--agents",
    "run_dir": "--out",
}
"""Fields that are set for each run, and by which option of `eval.ablate`."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of train_agent.py."""

    label: str
    """Its world model or, beside those, its agent."""
    env: str
    seed: int
    folder: Path
    words: tuple[str, ...]
    """Its command line."""
    steps: int

    @property
    def name(self) -> str:
        """Of its folder and its log."""
        return self.folder.name

    def done(self) -> bool:
        """Whether its checkpoint is of its last step."""
        return _trained(self.folder) >= self.steps


def plan(given: argparse.Namespace, options: Sequence[str]) -> list[PlannedRun]:
    """Every run in order, its folder made. Raises ConfigError, before any training, for what cannot be run.

    `options` are train_agent.py's, `--name=value`.
    """
    _refuse(given, options)
    kinds = dict.fromkeys(("--worldmodel", name) for name in given.worldmodels)
    kinds |= dict.fromkeys(("--agent", name) for name in given.agents)
    fresh = f"--run-dir={given.out / 'none'}"  # an existing run's settings would be the defaults
    known = {label: set(fields(parse([f"{kind}={label}", fresh]))) for kind, label in kinds}
    somewhere = set().union(*known.values())
    runs = []
    for seed in dict.fromkeys(given.seeds):
        for kind, label in kinds:
            # an option that no model has goes along, to be refused by name
            fitting = [word for word in options if field(word) in known[label] or field(word) not in somewhere]
            for env in dict.fromkeys(given.env):
                words = [*fitting, f"--env={env}", f"{kind}={label}", f"--seed={seed}"]
                if not parse([*words, fresh]).train.threads:
                    words.append(f"--train.threads={max(1, torch.get_num_threads() // given.jobs)}")
                folder = given.out / file_name(f"{env}-{label}-s{seed}")
                words.append(f"--run-dir={folder}")
                config = parse(words)
                check(config)
                open_run(config)
                _refuse_longer(folder, config)
                runs.append(PlannedRun(label, env, seed, folder, tuple(words), config.steps))
    return runs


def _trained(folder: Path) -> int:
    """The step of a run's newest checkpoint, 0 without one."""
    found = checkpoint.load_latest(folder / "checkpoints")
    return 0 if found is None else found[0]


def _refuse_longer(folder: Path, config: Config) -> None:
    """Refuses a run that is trained beyond these steps; a run may exceed them by a step of all environments."""
    rollout = config.agent.n_steps if isinstance(config.agent, PPOConfig) else 1
    steps = _trained(folder)
    if steps >= config.steps + config.envs * rollout:
        raise ConfigError(f"{folder} has {steps:,} steps already, not {config.steps:,}: use another --out or --steps")


def _refuse(given: argparse.Namespace, options: Sequence[str]) -> None:
    for word in options:
        if field(word) in OWN:
            raise ConfigError(f"{word.partition('=')[0]} is set for each run by this command: use {OWN[field(word)]}")
    for env in given.env if len(given.env) > 1 else []:
        if human_normalizer(env) is None:
            raise ConfigError(f"{env} has no human-normalized scores: compare models on it in a command of its own")
