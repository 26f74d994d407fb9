"""Policies that are no networks, and the contract of all policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from envs.loops import Loops
from envs.out_and_back import OutAndBack, RepeatedOutAndBack
from envs.waypoints import RandomGoals

POLICIES = ("loops", "out_and_back", "random", "repeated_out_and_back", "walks", "waypoints")
"""Names of `make_policy`."""

WALKS = {"out_and_back": 0.3, "loops": 0.3, "repeated_out_and_back": 0.2, "waypoints": 0.2}
"""The share of episodes of each policy under `walks`."""


class Policy(Protocol):
    """Chooses the actions of n environments side by side, and keeps what it needs of the past."""

    def __call__(self, observation: np.ndarray, is_first: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
        """The next actions, (n,) or, continuous, (n, A).

        Args:
            observation: (n, ...), what followed the last actions.
            is_first: (n,) bool: an episode begins with this observation; what came before is to be forgotten.
            info: Gymnasium's vector info of the same step: arrays of length n by name.
        """


class RandomPolicy:
    """Uniform actions, each held for a random while, so that an agent gets somewhere.

    Args:
        actions: the number of discrete actions, or the width of a continuous one.
        hold: the chance at each step that the last action is repeated.
        continuous: actions are vectors in -1..1.
    """

    def __init__(self, actions: int, seed: int, hold: float = 0.5, continuous: bool = False) -> None:
        self.actions, self.hold, self.continuous = actions, hold, continuous
        self._random = np.random.default_rng(seed)
        self._action: np.ndarray | None = None

    def __call__(self, observation: np.ndarray, is_first: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
        """See `Policy`."""
        n = len(is_first)
        if self.continuous:
            fresh: np.ndarray = self._random.uniform(-1, 1, (n, self.actions)).astype(np.float32)
        else:
            fresh = self._random.integers(self.actions, size=n)
        if self._action is not None:
            keep = (self._random.random(n) < self.hold) & ~is_first
            fresh = np.where(keep[:, None] if self.continuous else keep, self._action, fresh)
        self._action = fresh
        return fresh


class InfoPolicy:
    """A scripted policy that reads `info` alone, `script.act(info) -> action`, in one environment."""

    def __init__(self, script: Any) -> None:
        self.script = script

    @property
    def phase(self) -> int | None:
        """What the script labels its last action with; None where it has no phases."""
        return getattr(self.script, "phase", None)

    def __call__(self, observation: np.ndarray, is_first: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
        """See `Policy`; of one environment."""
        return np.array([self.script.act({name: values[0] for name, values in info.items()})])


def make_policy(name: str, actions: int, seed: int, steps: int | None, noise: float | None) -> Policy:
    """The policy of one episode in one environment; `out_and_back` needs `steps`, `waypoints` reads `noise`."""
    if name == "walks":
        name = str(np.random.default_rng(seed).choice(list(WALKS), p=list(WALKS.values())))
    if name == "out_and_back" and steps is None:
        raise ValueError("out_and_back needs the number of steps")
    makers: dict[str, Callable[[], Policy]] = {
        "loops": lambda: InfoPolicy(Loops(seed)),
        "random": lambda: RandomPolicy(actions, seed),
        "waypoints": lambda: InfoPolicy(RandomGoals(noise or 0.0, seed)),
        "repeated_out_and_back": lambda: InfoPolicy(RepeatedOutAndBack(seed)),
        "out_and_back": lambda: InfoPolicy(OutAndBack(steps or 0, seed)),
    }
    return makers[name]()
