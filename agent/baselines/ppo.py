"""The model-free baselines' configuration. Nothing here needs Stable-Baselines3, which is an extra."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from agent.runs.fields import ConfigError
from worldmodel.checks import check_numbers


@dataclass
class PPOConfig:
    """Stable-Baselines3's PPO (Schulman et al. 2017), or sb3-contrib's with an LSTM; defaults are for images."""

    name: str = "ppo"
    """Agent: dreamer (in the world model's dreams), or a model-free baseline: ppo, recurrent-ppo."""
    frame_stack: int = 4
    """Newest images that the policy reads at once."""
    n_steps: int = 128
    """Steps of each environment between two updates."""
    batch_size: int = 256
    """Steps in a minibatch."""
    n_epochs: int = 4
    """Passes over a rollout."""
    learning_rate: float = 2.5e-4
    """Adam's learning rate."""
    gamma: float = 0.99
    """Discount."""
    lam: float = 0.95
    """Lambda of the advantages (GAE)."""
    clip_range: float = 0.1
    """Largest change of an action's probability ratio that is rewarded."""
    entropy_scale: float = 0.01
    """Scale of the policy's entropy."""
    value_scale: float = 0.5
    """Scale of the value's squared error."""
    grad_clip: float = 0.5
    """Largest gradient norm."""
    hidden: int = 64
    """Width of the two hidden layers of policy and of value."""
    lstm_hidden_size: int = 256
    """Width of recurrent-ppo's LSTM."""

    def __post_init__(self) -> None:
        check_numbers("agent", self, may_be_zero=("lam",), at_most_one=("gamma", "lam"))

    @property
    def recurrent(self) -> bool:
        """Whether it is sb3-contrib's RecurrentPPO."""
        return self.name == "recurrent-ppo"

    def unread(self) -> set[str]:
        """Fields that this agent does not read."""
        return set() if self.recurrent else {"lstm_hidden_size"}


BASELINES: dict[str, Callable[[], PPOConfig]] = {
    "ppo": PPOConfig,
    "recurrent-ppo": partial(PPOConfig, name="recurrent-ppo", frame_stack=1),
}
"""Default configurations by name."""

READ = {
    f"train.{name}" for name in ("eval_every", "eval_episodes", "save_every", "max_checkpoints", "threads", "device")
}
"""The fields of `train` that a run without a world model reads."""


def is_unread(field: str) -> bool:
    """Whether a baseline does not read the field of this dotted name."""
    return field.startswith(("worldmodel.", "replay.")) or (field.startswith("train.") and field not in READ)


def check_installed(what: str) -> None:
    """Raises ConfigError where packages that `what` needs are missing."""
    missing = [package for package in ("stable_baselines3", "sb3_contrib") if not importlib.util.find_spec(package)]
    if missing:
        raise ConfigError(f"{what} needs {' and '.join(missing)}: pip install -e '.[baselines]'")
