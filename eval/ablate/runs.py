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
from eval.human_normalized import normaliser
from eval.options import field

OWN = {
    "env": "--env",
    "seed": "--seeds",
    "worldmodel": "--worldmodels",
    "worldmodel.name": "--worldmodels",
    "agent": "--agents",
    "agent.name": "--agents",
    "run_dir": "--out",
}
"""Fields that are set for each run, and by what option of `eval.ablate`."""


@dataclass(frozen=True)
class Run:
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
        found = checkpoint.load_latest(self.folder / "checkpoints")
        return found is not None and found[0] >= self.steps


def plan(arguments: argparse.Namespace, options: Sequence[str]) -> list[Run]:
    """Every run in order, its folder made; what cannot be run is refused, by a ConfigError, before any training.

    `options` are train_agent.py's, `--name=value`.
    """
    _refuse(arguments, options)
    kinds = {("--worldmodel", name): None for name in arguments.worldmodels}
    kinds |= {("--agent", name): None for name in arguments.agents}
    fresh = f"--run-dir={arguments.out / 'none'}"  # no run is there, whose settings would be the defaults
    known = {label: set(fields(parse([f"{kind}={label}", fresh]))) for kind, label in kinds}
    somewhere = set().union(*known.values())
    runs = []
    for seed in dict.fromkeys(arguments.seeds):
        for kind, label in kinds:
            # What no model has goes along, to be refused by name.
            fitting = [word for word in options if field(word) in known[label] or field(word) not in somewhere]
            for env in dict.fromkeys(arguments.env):
                words = [*fitting, f"--env={env}", f"{kind}={label}", f"--seed={seed}"]
                if not parse([*words, fresh]).train.threads:
                    words.append(f"--train.threads={max(1, torch.get_num_threads() // arguments.jobs)}")
                folder = arguments.out / file_name(f"{env}-{label}-s{seed}")
                words.append(f"--run-dir={folder}")
                config = _opened(words)
                _refuse_longer(folder, config)
                runs.append(Run(label, env, seed, folder, tuple(words), config.steps))
    return runs


def _refuse_longer(folder: Path, config: Config) -> None:
    """A run that was trained beyond the budget of this comparison; one overshoots by a step of all environments."""
    found = checkpoint.load_latest(folder / "checkpoints")
    rollout = config.agent.n_steps if isinstance(config.agent, PPOConfig) else 1
    if found is not None and found[0] >= config.steps + config.envs * rollout:
        raise ConfigError(
            f"{folder} has {found[0]:,} steps already, not {config.steps:,}: use another --out or --steps"
        )


def _refuse(arguments: argparse.Namespace, options: Sequence[str]) -> None:
    for word in options:
        if field(word) in OWN:
            raise ConfigError(f"{word.partition('=')[0]} is set for each run by this command: use {OWN[field(word)]}")
    for env in arguments.env if len(arguments.env) > 1 else []:
        if normaliser(env) is None:
            raise ConfigError(f"{env} has no human-normalised scores: compare models on it in a command of its own")


def _opened(words: Sequence[str]) -> Config:
    """The configuration of a run, whose folder is made or holds this very run."""
    config = parse(words)
    check(config)
    open_run(config)
    return config
