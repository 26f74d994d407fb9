"""POPGym (Morad et al., arXiv 2303.01859), small tasks that need memory, as flat vectors: `POPGym/RepeatFirstEasy`."""

from __future__ import annotations

import gymnasium
import popgym  # noqa: F401  (registers its environments)
from gymnasium.wrappers import FlattenObservation

from envs.gym_env import adapt

PREFIX, SUFFIX = "popgym-", "-v0"


def members() -> list[str]:
    """`<Name>` of each `popgym-<Name>-v0` that the package registers."""
    ids = (id for id in gymnasium.registry if id.startswith(PREFIX) and id.endswith(SUFFIX))
    return [id.removeprefix(PREFIX).removesuffix(SUFFIX) for id in ids]


def make_popgym(name: str) -> gymnasium.Env:
    """`popgym-<name>-v0` with observations as one vector, choices one-hot, and actions as in `envs.gym_env`.

    The last action, which the package advises to add to some observations, is left out: a world model has it anyway.

    Raises:
        ValueError: actions of several choices at once (Battleship, MineSweeper).
    """
    # Gymnasium's checker warns of harmless, older conventions in the package.
    env = gymnasium.make(f"{PREFIX}{name}{SUFFIX}", disable_env_checker=True)
    return adapt(FlattenObservation(env), f"POPGym/{name}")
