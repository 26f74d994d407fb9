"""The two ways through a world model: `observe_episode` reads real frames, `imagine` goes on without them.

Letters: B sequences, T frames, M rollouts, H horizon, N tokens, F width of a token's feature, A actions, K boundaries.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from worldmodel.base import ObserveOutput, SequenceBatch, State, WorldModel

Actor = Callable[[Tensor], Tensor]
"""A policy in imagination: features (M, N, F) -> actions (M, A)."""


@dataclass(frozen=True)
class Imagination:
    """M rollouts of H imagined frames, without gradients."""

    action: Tensor  # (H, M, A): action t is chosen at feature t and leads to feature t + 1
    reward: Tensor  # (H, M): of the frame after each action
    continue_prob: Tensor  # (H, M): probability that the episode goes on after that frame
    state: State  # (M,): the State after the last frame
    feature: Tensor  # (H + 1, M, N, F): the start's, then each imagined frame's; empty with `decode`
    observation: Tensor  # (H, M, ...): decoded frames, images clamped to 0..1; empty without `decode`


def observe_episode(
    model: WorldModel, batch: SequenceBatch, state: State, window: int, sample: bool = True, only_last: bool = False
) -> ObserveOutput:
    """Observes sequences of any length, `window` frames at a time, with the State carried from window to window.

    Returns what `WorldModel.observe` returns of the whole, except that States also stand at each window's end; with
    `only_last` of the last window alone, for callers that want the last State: what is kept of a window is large.
    """
    features: list[Tensor] = []
    starts: list[State] = []
    indices: list[Tensor] = []
    for begin in range(0, batch.shape[1], window):
        output = model.observe(batch[:, begin : begin + window], state, sample)
        state = output.last_state
        if only_last:
            for kept in (features, starts, indices):
                kept.clear()
        features.append(output.feature)
        starts.append(output.start_states)
        indices.append(output.start_index + begin)
    return ObserveOutput(torch.cat(features, 1), torch.cat(starts, 1), torch.cat(indices), state)


@torch.no_grad()
def imagine(
    model: WorldModel,
    state: State,
    policy: Actor | Tensor,
    horizon: int,
    sample: bool = True,
    decode: bool = False,
    open_loop: bool = False,
) -> Imagination:
    """Rolls out `horizon` frames from the States `state` (M,), which stay as they are.

    Args:
        policy: chooses each action from the feature before it; or the actions themselves, (horizon, M, A).
        sample: draw latents from the prior; else the most likely ones.
        decode: return decoded frames in place of features, which take much more memory.
        open_loop: each frame is predicted without reading the imagined frame before (`WorldModel.open_loop`).
    """
    feature = model.feature(state)
    actions, rewards, continues, features, observations = [], [], [], [feature], []
    for step in range(horizon):
        action = policy[step] if isinstance(policy, Tensor) else policy(feature)
        state = model.dream(model.open_loop(state) if open_loop and step else state, action, sample)
        feature = model.feature(state)
        actions.append(action)
        if decode:
            frame = model.decode(feature)
            observations.append(frame.clamp(0, 1) if frame.ndim == 4 else frame)
            rewards.append(model.reward(feature))
            continues.append(model.continue_prob(feature))
        else:
            features.append(feature)
    empty = feature.new_empty(0)
    if decode:
        reward, continue_prob, feature = torch.stack(rewards), torch.stack(continues), empty
    else:
        feature = torch.stack(features)
        reward, continue_prob = model.reward(feature[1:]), model.continue_prob(feature[1:])
    observation = torch.stack(observations) if decode else empty
    return Imagination(torch.stack(actions), reward, continue_prob.float(), state, feature, observation)
