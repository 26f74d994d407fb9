"""A Gymnasium environment for tests of the workers: 5 steps an episode, and it fails on request."""

import os

import gymnasium
import numpy as np

FAIL, DIE, UNPICKLABLE = 1, 2, 3
EXIT_CODE = 7


class Faulty(gymnasium.Env[np.ndarray, np.int64]):
    """Actions 1 to 3 fail as named above. The observation is (steps so far, the episode's own random number)."""

    observation_space = gymnasium.spaces.Box(-1.0, 10.0, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps, self._number = 0, self.np_random.random()
        return self._observation(), {"number": self._number, "seed": -1 if seed is None else seed}

    def step(self, action):
        if action == FAIL:
            raise ArithmeticError("the test asked for this")
        if action == DIE:
            os._exit(EXIT_CODE)
        self._steps += 1
        info = {"function": lambda: None} if action == UNPICKLABLE else {}
        return self._observation(), 1.0, self._steps == 5, False, info

    def _observation(self):
        return np.array([self._steps, self._number])


def lacking(**_):
    raise gymnasium.error.DependencyNotInstalled("a box is not installed,\nyou can install it")


gymnasium.register("Faulty-v0", entry_point=lambda **_: Faulty())
gymnasium.register("Lacking-v0", entry_point=lacking)
