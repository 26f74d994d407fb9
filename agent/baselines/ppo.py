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
    """Newest images that the policy sees at once; vectors come one at a time."""
    n_steps: int = 128
    """Steps of each environment between two updates."""
    batch_size: int = 256
    """Steps in a minibatch."""
    n_epochs: int = 4
    """Times that a rollout is gone through."""
    learning_rate: float = 2.5e-4
    """Adam's."""
    gamma: float = 0.99
    """Of the next step's value."""
    lam: float = 0.95
    """Lambda of the advantages (GAE)."""
    clip_range: float = 0.1
    """Change of an action's probability beyond which it is not pushed on."""
    entropy_scale: float = 0.01
    """Weight of the policy's entropy."""
    value_scale: float = 0.5
    """Weight of the value's squared error."""
    grad_clip: float = 0.5
    """Largest gradient norm."""
    hidden: int = 64
    """Width of the two hidden layers of policy and of value."""
    lstm_hidden_size: int = 256
    """Width of recurrent-ppo's LSTM, which carries its memory."""

    def __post_init__(self) -> None:
        shares = ("gamma", "lam")
        check_numbers("agent", self, may_be_zero=("lam",), at_most_one=shares)

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

UNREAD = (
    "worldmodel.",
    "replay.",
    *("train.prefill", "train.replay_ratio", "train.learning_rate", "train.lr_end_fraction", "train.grad_clip"),
    *("train.log_every", "train.video_every", "train.precision"),
)
"""Fields, or sections, that a run without a world model does not read."""


def is_unread(field: str) -> bool:
    """Whether a baseline does not read the field of this dotted name."""
    return field.startswith(UNREAD)


def check_installed(what: str) -> None:
    """Raises ConfigError where packages that `what` needs are missing."""
    missing = [package for package in ("stable_baselines3", "sb3_contrib") if not importlib.util.find_spec(package)]
    if missing:
        raise ConfigError(f"{what} needs {' and '.join(missing)}: pip install -e '.[baselines]'")
