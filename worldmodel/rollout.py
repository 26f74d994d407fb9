"""Imagined rollouts: the policy acts in the world model, starting from States with the whole past in memory."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from worldmodel import State, WorldModel


@dataclass(frozen=True)
class Dream:
    """M rollouts of H imagined frames; nothing in it carries gradients."""

    feature: Tensor  # (H + 1, M, N, F): the start's, then each imagined frame's
    action: Tensor  # (H, M, A): action t was chosen at feature t and leads to feature t + 1
    reward: Tensor  # (H, M): of the frame after each action
    continue_prob: Tensor  # (H + 1, M): probability of going on after each frame; the start's is known


@torch.no_grad()
def dream(model: WorldModel, policy: Callable[[Tensor], Tensor], start: State, alive: Tensor, horizon: int) -> Dream:
    """Rolls out `horizon` frames from the States `start` (M,); `alive` (M,) is false where an episode had ended.

    `policy` maps features (M, N, F) to one-hot actions (M, A).
    """
    state, features, actions = start, [model.feature(start)], []
    for _ in range(horizon):
        actions.append(policy(features[-1]))
        state = model.dream(state, actions[-1])
        features.append(model.feature(state))
    feature = torch.stack(features)
    ahead = feature[1:]
    continue_prob = torch.cat([alive.float().unsqueeze(0), model.continue_prob(ahead).float()])
    return Dream(feature, torch.stack(actions), model.reward(ahead), continue_prob)
