"""Environments in worker processes with SAME_STEP autoreset, as Stable-Baselines3 needs it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

import envs
from envs.vector import ForkserverVectorEnv


class SameStepEnvs(VectorEnv):
    """n environments of a name in processes of their own, each reset in the step that ends its episode.

    An episode's last observation is in `infos["final_obs"]`. Raises as `envs.make_vector`.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, name: str, n: int):
        self.num_envs = n
        self._parts: list[ForkserverVectorEnv] = []  # of one environment each, so that each can be reset alone
        try:
            for _ in range(n):
                self._parts.append(envs.make_vector(name, 1))
        except BaseException:
            self.close()
            raise
        self.single_observation_space = self._parts[0].single_observation_space
        self.single_action_space = self._parts[0].single_action_space
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Observations (n, ...) and no infos; with an int seed s, environment i takes s + i."""
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed or [None] * self.num_envs
        firsts = [part.reset(seed=own, options=options)[0] for part, own in zip(self._parts, seeds, strict=True)]
        return np.concatenate(firsts), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Observations (n, ...), rewards (n,) float64, terminated (n,), truncated (n,), infos of episodes' ends."""
        for part, action in zip(self._parts, actions, strict=True):
            part.step_async(action[None])
        answers = [part.step_wait()[:4] for part in self._parts]
        observation, reward, terminated, truncated = map(np.concatenate, zip(*answers, strict=True))
        ended = np.flatnonzero(terminated | truncated)
        infos: dict[str, Any] = {}
        for i in ended:
            infos = self._add_info(infos, {"final_obs": observation[i].copy(), "final_info": {}}, int(i))
            self._parts[i].step_async(actions[i : i + 1])  # which resets it, whatever the action
        for i in ended:
            observation[i] = self._parts[i].step_wait()[0][0]
        return observation, reward, terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        """End all worker processes."""
        for part in self._parts:
            part.close()
