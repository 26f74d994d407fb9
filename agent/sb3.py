"""Stable-Baselines3 in the dream, and its policies in the real environment behind a world model's features.

Needs the extra `baselines`.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from agent.actor import observed
from agent.learner import Learner
from worldmodel.simulator import Simulator, flat


class SimulatorVecEnv(VecEnv):
    """A Simulator under Stable-Baselines3's contract: an ended dream begins anew within the same step."""

    def __init__(self, simulator: Simulator):
        super().__init__(simulator.num_envs, simulator.single_observation_space, simulator.single_action_space)
        self.simulator = simulator
        self.render_mode = simulator.render_mode

    def reset(self) -> np.ndarray:
        """See VecEnv; seeds given by `seed` count here."""
        seed = next((seed for seed in self._seeds if seed is not None), None)
        self._reset_seeds()
        return self.simulator.reset(seed=seed)[0]

    def step_async(self, actions: np.ndarray) -> None:
        """See VecEnv."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """See VecEnv; the last observation of a dream is its info's `terminal_observation`."""
        observation, reward, terminated, truncated, _ = self.simulator.step(self._actions)
        ended = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(ended):
            infos[i] = {"terminal_observation": observation[i], "TimeLimit.truncated": bool(truncated[i])}
        if ended.any():
            observation = self.simulator.restart(ended)
        return observation, reward.astype(np.float32), ended, infos

    def close(self) -> None:
        """See VecEnv."""
        self.simulator.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """See VecEnv."""
        return self.simulator.render()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """See VecEnv: all dreams are of one simulator."""
        return [getattr(self.simulator, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """See VecEnv."""
        setattr(self.simulator, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **options: Any) -> list[Any]:
        """See VecEnv."""
        result = getattr(self.simulator, method_name)(*args, **options)
        return [result] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None) -> list[bool]:
        """See VecEnv: none is."""
        return [False] * len(list(self._get_indices(indices)))


class Features(VecEnvWrapper):
    """Real environments seen through a world model: its features, (N * F,), with memory of the episode."""

    def __init__(self, venv: VecEnv, learner: Learner):
        width = learner.model.tokens * learner.model.feature_width
        super().__init__(venv, gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32))
        self.learner = learner
        self._vectors = torch.zeros(venv.num_envs, learner.model.actions)

    def reset(self) -> np.ndarray:
        """See VecEnv."""
        self._state = self.learner.model.initial(self.num_envs)
        return self._seen(self.venv.reset(), np.ones(self.num_envs, bool))

    def step_async(self, actions: np.ndarray) -> None:
        """See VecEnv."""
        chosen = torch.from_numpy(np.asarray(actions))
        discrete = isinstance(self.action_space, gymnasium.spaces.Discrete)
        self._vectors = torch.eye(self.learner.model.actions)[chosen] if discrete else chosen.float()
        self.venv.step_async(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """See VecEnv; `terminal_observation` is left out: it is a frame, no feature."""
        observation, reward, ended, infos = self.venv.step_wait()
        for info in infos:
            info.pop("terminal_observation", None)
        return self._seen(observation, ended), reward, ended, infos

    def _seen(self, observation: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        trajectory = observed(self.learner, observation, self._vectors, is_first, self._state)
        self._state = trajectory.final
        return flat(trajectory.feature[:, 0])
