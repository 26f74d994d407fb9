"""POPGym (Morad et al., arXiv 2303.01859), small tasks that need memory, as flat vectors: `POPGym/RepeatFirstEasy`."""

from __future__ import annotations

import gymnasium
import numpy as np
import popgym  # noqa: F401  (registers its environments)
from gymnasium.spaces.utils import flatten, flatten_space
from gymnasium.utils import RecordConstructorArgs

from envs.gym_env import adapt

PREFIX, SUFFIX = "popgym-", "-v0"


def members() -> list[str]:
    """`<Name>` of each `popgym-<Name>-v0` that the package registers."""
    ids = (id for id in gymnasium.registry if id.startswith(PREFIX) and id.endswith(SUFFIX))
    return [id.removeprefix(PREFIX).removesuffix(SUFFIX) for id in ids]


def make_popgym(name: str) -> gymnasium.Env:
    """`popgym-<name>-v0` with observations as `FlatObservation` and actions as `envs.gym_env` takes them.

    The last action, which the package adds to some observations, is left out: a world model gets it in any case.

    Raises:
        ValueError: actions of several choices at once (Battleship, MineSweeper).
    """
    # Gymnasium's checker warns of harmless, older conventions in the package.
    env = gymnasium.make(f"{PREFIX}{name}{SUFFIX}", disable_env_checker=True)
    return adapt(FlatObservation(env), f"POPGym/{name}")


class FlatObservation(gymnasium.ObservationWrapper, RecordConstructorArgs):
    """(D,): numbers as they are and choices one-hot, concatenated."""

    def __init__(self, env: gymnasium.Env) -> None:
        # Recorded so that Gymnasium can make the environment again from its spec.
        RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        self.observation_space = flatten_space(env.observation_space)

    def observation(self, observation: object) -> np.ndarray:
        return np.asarray(flatten(self.env.observation_space, observation))
