"""Scripted policies by name, to collect episodes with: they see what the environment tells, never a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from envs.out_and_back import OutAndBack, RepeatedOutAndBack
from envs.waypoints import RandomGoals

POLICIES = ("repeated_out_and_back", "random", "out_and_back", "waypoints")
HOLD = 0.5
"""The chance at each step that `random` goes on with its action."""


class Policy(Protocol):
    """One episode's actions."""

    def act(self, info: Mapping[str, Any]) -> int:
        """The next action, from `info` of the frame before it."""


class RandomWalk:
    """Uniform actions, each held for a random while so that the walk gets somewhere; in any environment."""

    def __init__(self, actions: int, seed: int) -> None:
        self._actions = actions
        self._rng = np.random.default_rng(seed)
        self._action: int | None = None

    def act(self, info: Mapping[str, Any]) -> int:
        """The next action; `info` is not read."""
        if self._action is None or self._rng.random() >= HOLD:
            self._action = int(self._rng.integers(self._actions))
        return self._action


def make_policy(name: str, actions: int, seed: int, steps: int | None, noise: float | None) -> Policy:
    """The policy of one episode: `steps` is of "out_and_back", which needs it, `noise` of "waypoints"."""
    if name == "random":
        return RandomWalk(actions, seed)
    if name == "waypoints":
        return RandomGoals(noise or 0.0, seed)
    if name == "repeated_out_and_back":
        return RepeatedOutAndBack(seed)
    if name == "out_and_back" and steps is not None:
        return OutAndBack(steps, seed)
    raise ValueError(f"no policy {name!r} of {steps} steps")
