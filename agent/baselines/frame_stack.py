"""Frame stacking, for policies without memory."""

import numpy as np


class FrameStack:
    """Stacks the k newest frames of each of n episodes, zeros before the first, as VecFrameStack does."""

    def __init__(self, k: int):
        self.k = k
        self._stack: np.ndarray | None = None

    def __call__(self, observation: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """(n, H, W, C) and is_first (n,) -> (n, H, W, k * C), the newest last."""
        channels = observation.shape[-1]
        if self._stack is None:
            self._stack = np.zeros((*observation.shape[:-1], self.k * channels), observation.dtype)
        self._stack = np.roll(self._stack, -channels, -1)
        self._stack[is_first] = 0
        self._stack[..., -channels:] = observation
        return self._stack
