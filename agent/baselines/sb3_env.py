"""Gymnasium's vector environments as Stable-Baselines3's VecEnv."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices


class Sb3Envs(VecEnv):
    """A vector environment with SAME_STEP autoreset as a VecEnv. Raises ValueError for another mode.

    Where an episode ends, `infos[i]` holds its last observation as `terminal_observation`, and `TimeLimit.truncated`
    where a time limit ended it: returns bootstrap from that observation's value then. NEXT_STEP does not fit, for its
    resetting step is no experience, and a VecEnv cannot mark one.
    """

    def __init__(self, environments: VectorEnv):
        if environments.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ValueError(f"{environments} does not reset itself in the step that ends an episode (SAME_STEP)")
        self.environments = environments
        super().__init__(environments.num_envs, environments.single_observation_space, environments.single_action_space)

    def reset(self) -> np.ndarray:
        """First observations (n, ...); the seed given to `seed` counts once."""
        observation, _ = self.environments.reset(seed=self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Takes the actions (n,), or (n, A)."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations (n, ...), rewards (n,) float32, dones (n,), infos."""
        observation, reward, terminated, truncated, infos = self.environments.step(self._actions)
        dones = terminated | truncated
        details: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(dones):
            details[i] = {
                "terminal_observation": infos["final_obs"][i],
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
            }
        return observation, reward.astype(np.float32), dones, details

    def close(self) -> None:
        """Closes the environments."""
        self.environments.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """A frame of each environment that renders."""
        frames = self.environments.render()
        return (
            [None] * self.num_envs if frames is None else [frame for frame in frames if isinstance(frame, np.ndarray)]
        )

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The vector environment's attribute, once for each index: environments share it."""
        return [getattr(self.environments, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the vector environment's attribute. Raises ValueError unless it is set for all environments."""
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"{attr_name} can only be set for all environments: they are one object")
        setattr(self.environments, attr_name, value)

    def env_method(self, method_name: str, *arguments: Any, indices: VecEnvIndices = None, **named: Any) -> list[Any]:
        """The result of the vector environment's method, called once, for each index."""
        result = getattr(self.environments, method_name)(*arguments, **named)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """False: wrappers are inside the vector environment."""
        return [False for _ in self._get_indices(indices)]
