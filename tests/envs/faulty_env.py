"""A Gymnasium environment for tests of the workers: 5 steps an episode, and it fails on request."""

import gymnasium
import numpy as np

FAIL = 1


class Faulty(gymnasium.Env[np.ndarray, np.int64]):
    """Action 1 raises. The observation is (steps so far, the episode's own random number)."""

    observation_space = gymnasium.spaces.Box(-1.0, 10.0, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps, self._number = 0, self.np_random.random()
        return self._observation(), {"number": self._number}

    def step(self, action):
        if action == FAIL:
            raise ArithmeticError("the test asked for this")
        self._steps += 1
        return self._observation(), 1.0, self._steps == 5, False, {}

    def _observation(self):
        return np.array([self._steps, self._number])


gymnasium.register("Faulty-v0", entry_point=lambda **_: Faulty())
