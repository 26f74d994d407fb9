"""Loads the configuration and the networks of a trained run, read only."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gymnasium.spaces import Box
from torch import nn

import envs
from agent.baselines.ppo import PPOConfig, check_installed
from agent.runs import checkpoint, machine
from agent.runs.checkpoint import CheckpointError
from agent.runs.config import Config
from agent.runs.fields import ConfigError
from agent.runs.folder import stored_config
from agent.training.learner import Learner, spaces
from envs.policies import Policy


@dataclass(frozen=True)
class Trained:
    """The policy of a run, of any agent."""

    config: Config
    step: int
    """Of its checkpoint."""
    parameters: dict[str, int]
    """Trained parameters by part."""
    policy: Callable[[int, bool], Policy]
    """(environments, greedy) -> a policy for so many environments, before any frame."""


def load_policy(folder: Path) -> Trained:
    """The newest policy of a run of any agent. Raises as `load_run`, but for a baseline's run."""
    config = _config(folder)
    if isinstance(config.agent, PPOConfig):
        return _load_baseline(folder, config, config.agent)
    config, learner, step = load_run(folder)
    parameters = {"worldmodel": count(learner.model), "agent": count(learner.agent)}
    return Trained(config, step, parameters, learner.policy)


def _load_baseline(folder: Path, config: Config, agent: PPOConfig) -> Trained:
    check_installed(f"{folder}, a run of {agent.name},")
    from agent.baselines import sb3_policy

    step, tensors, _ = _newest(folder)
    environment = envs.make(config.env)
    observations, actions = environment.observation_space, environment.action_space
    environment.close()
    assert isinstance(observations, Box)  # `envs` knows no others
    policy = sb3_policy.policy(agent, observations, actions)
    sb3_policy.restore(policy, tensors)
    return Trained(config, step, {"agent": count(policy)}, lambda n, greedy: sb3_policy.Player(policy, agent, greedy))


def load_run(folder: Path, actions: int | None = None) -> tuple[Config, Learner, int]:
    """The configuration, the learner with the weights of the newest whole checkpoint, and that checkpoint's step.

    `actions`: the width of an action, where the run was trained offline on others than the environment's.

    Raises ConfigError where there is no run or a baseline's, CheckpointError where it has no checkpoint or one of
    another model.
    """
    config = _config(folder)
    if isinstance(config.agent, PPOConfig):
        raise ConfigError(f"{folder} was trained by {config.agent.name}: it has no world model")
    step, tensors, _ = _newest(folder)
    environment = envs.make(config.env)
    shape, width, continuous = spaces(environment.observation_space, environment.action_space)
    environment.close()
    learner = Learner(config, shape, actions or width, continuous and not actions)
    learner.restore_networks(tensors)
    learner.model.eval()
    learner.agent.eval()
    return config, learner, step


def count(module: nn.Module) -> int:
    """Trained parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _config(folder: Path) -> Config:
    """As stored, but with the device `auto` where this machine lacks the run's."""
    config = stored_config(folder)
    if config is None:
        raise ConfigError(f"{folder} holds no run (no config.yaml)")
    if not machine.has_device(config.train.device):
        config.train.device = "auto"
    return config


def _newest(folder: Path) -> checkpoint.Checkpoint:
    found = checkpoint.load_latest(folder / "checkpoints")
    if found is None:
        raise CheckpointError(f"{folder} has no whole checkpoint yet")
    return found
