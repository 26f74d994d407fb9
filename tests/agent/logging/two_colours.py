"""An environment that worker processes can import by `tests.agent.logging.two_colours:TwoColours`."""

import gymnasium
import numpy as np


class TwoColours(gymnasium.Env):
    """One black image, then three white ones; actions are two numbers."""

    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 3
        return self.observation_space.low.copy(), {}

    def step(self, action):
        self.left -= 1
        return self.observation_space.high.copy(), 0.0, False, self.left == 0, {}
