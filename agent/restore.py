"""A trained run, loaded to be looked at: its configuration and its networks, nothing that would change it."""

from pathlib import Path

import envs
from agent import checkpoint
from agent.checkpoint import CheckpointError
from agent.config import Config
from agent.fields import ConfigError
from agent.learner import Learner, spaces
from agent.run import stored_config


def load_run(folder: Path) -> tuple[Config, Learner, int]:
    """The configuration, the learner with its newest whole checkpoint's weights, and that checkpoint's step.

    Raises ConfigError where no run is, CheckpointError where it has no checkpoint or another model's.
    """
    config = stored_config(folder)
    if config is None:
        raise ConfigError(f"{folder} holds no run (no config.yaml)")
    found = checkpoint.load_latest(folder / "checkpoints")
    if found is None:
        raise CheckpointError(f"{folder} has no checkpoint yet")
    step, tensors, _ = found
    environment = envs.make(config.env)
    shape, actions, continuous = spaces(environment.observation_space, environment.action_space)
    environment.close()
    learner = Learner(config, shape, actions, continuous)
    learner.restore_networks(tensors)
    learner.model.eval()
    learner.agent.eval()
    return config, learner, step
