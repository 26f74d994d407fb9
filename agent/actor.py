"""Acting in real environments: the world model's memory goes along, one frame at a time."""

import numpy as np
import torch
from torch import Tensor

from agent.training.learner import Learner
from worldmodel import SequenceBatch


class Actor:
    """The policy in n environments side by side; keeps each one's State between calls."""

    def __init__(self, learner: Learner, environments: int, greedy: bool = False):
        self.learner, self.greedy = learner, greedy
        self.actions = learner.model.actions
        self.state = learner.model.initial(environments)
        self._action = torch.zeros(environments, self.actions)

    @torch.no_grad()
    def __call__(self, observation: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """Takes in the frames (n, ...) that followed the last actions; gives the next actions (n,), or (n, A)."""
        device = self.learner.device
        first = torch.from_numpy(is_first).to(device)
        n = len(first)
        rows = SequenceBatch(
            observation=_frames(observation).to(device).unsqueeze(1),
            action=(self._action.to(device) * (~first).unsqueeze(-1)).unsqueeze(1),
            reward=torch.zeros(n, 1, device=device),
            is_first=first.unsqueeze(1),
            terminated=torch.zeros(n, 1, dtype=torch.bool, device=device),
            batch_size=[n, 1],
        )
        with self.learner.autocast():
            output = self.learner.model.observe(rows, self.state)
            self._action = self.choose(output.feature[:, 0])
        self.state = output.last_state
        return self.learner.agent.policy.for_environment(self._action)

    def choose(self, feature: Tensor) -> Tensor:
        """(n, N, F) -> actions (n, A) as world models take them."""
        return self.learner.agent.act(feature, self.greedy)


class RandomPolicy:
    """Uniform actions, each held for a random while so that the walk gets somewhere."""

    def __init__(self, actions: int, seed: int, hold: float = 0.5, continuous: bool = False):
        self.actions, self.hold, self.continuous = actions, hold, continuous
        self._random = np.random.default_rng(seed)
        self._action: np.ndarray | None = None

    def __call__(self, observation: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """As `Actor`."""
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


def _frames(observation: np.ndarray) -> Tensor:
    """Images stay uint8, vectors become float32, as replay stores them."""
    return torch.from_numpy(observation if observation.dtype == np.uint8 else observation.astype(np.float32))
