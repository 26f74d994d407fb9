"""Acting in real environments: the world model's memory goes along, one frame at a time."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.actor_critic import ActorCritic
from worldmodel import SequenceBatch, WorldModel


class WorldModelPolicy:
    """An `envs.policies.Policy`: a world model observes each frame, its State is kept, and an actor reads features.

    Args:
        n: environments side by side.
        greedy: the mode of the policy in place of a draw.
        hold: the chance at each step that an environment's last action is repeated (sticky exploration).
        autocast: the precision that both networks run in.
    """

    def __init__(
        self,
        model: WorldModel,
        agent: ActorCritic,
        n: int,
        greedy: bool = False,
        hold: float = 0.0,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.model, self.agent, self.greedy, self.hold, self.autocast = model, agent, greedy, hold, autocast
        self.state = model.initial(n)
        self._action = torch.zeros(n, model.actions, device=next(model.parameters()).device)

    @torch.no_grad()
    def __call__(self, observation: np.ndarray, is_first: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
        """See `Policy`; `info` is not read."""
        device = self._action.device
        first = torch.from_numpy(is_first).to(device)
        before = self._action * ~first.unsqueeze(-1)
        batch = SequenceBatch(
            observation=_as_stored(observation).to(device).unsqueeze(1),
            action=before.unsqueeze(1),
            reward=torch.zeros(len(first), 1, device=device),
            is_first=first.unsqueeze(1),
            terminated=torch.zeros(len(first), 1, dtype=torch.bool, device=device),
            batch_size=[len(first), 1],
        )
        with self.autocast():
            output = self.model.observe(batch, self.state)
            action = self.choose(output.feature[:, 0])
        if self.hold:
            held = (torch.rand(len(first), device=device) < self.hold) & ~first
            action = torch.where(held.unsqueeze(-1), before, action)
        self.state, self._action = output.last_state, action
        return self.agent.policy.for_environment(action)

    def choose(self, feature: Tensor) -> Tensor:
        """(n, N, F) -> actions (n, A) as world models take them."""
        return self.agent.act(feature, self.greedy)


def _as_stored(observation: np.ndarray) -> Tensor:
    """Images stay uint8, vectors become float32, as replay stores them."""
    return torch.from_numpy(observation if observation.dtype == np.uint8 else observation.astype(np.float32))
