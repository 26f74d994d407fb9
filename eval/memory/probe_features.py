"""What probes read and predict: frozen features of whole episodes, and the maze as the labels hold it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from agent.training.learner import Learner
from eval.memory.visibility import steps_since_seen
from replay import Episode
from worldmodel.rollout import observe_episode

LABELS = ("maze_layout", "agent_pos", "agent_dir", "targets_pos", "targets_vec")
POSE = 4
"""Columns after the feature: the agent's position, scaled to -1..1 over the maze, and its heading."""
STRIDE = 4
"""One row in so many is used: neighbours are nearly the same."""
WINDOW = 64
AT_ONCE = 8
"""Episodes side by side in the world model."""


@dataclass(frozen=True)
class Frames:
    """n frames of several episodes; M objects, mazes of S x S cells."""

    inputs: Tensor  # (n, D + POSE) float16: the feature (h, z) of all tokens, then the pose
    walls: Tensor  # (n, S * S) float32: 1 where there is no wall
    objects: Tensor  # (n, 2 * M) float32: place relative to the agent, in its frame, in cells
    age: Tensor  # (n, M) int64: as `eval.memory.visibility.steps_since_seen`
    row: Tensor  # (n,) int64: in the episode
    scored: Tensor  # (n,) bool: in the second half of its episode


def read(learner: Learner, episodes: Sequence[Episode], stride: int = STRIDE) -> Frames:
    """Every `stride`-th frame of these episodes, which have `LABELS`; on the learner's device."""
    parts = []
    for batch in _batches(episodes):
        for episode, feature in zip(batch, features(learner, batch, stride), strict=True):
            parts.append(_frames(episode, feature, stride))
    return Frames(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Frames)))


@torch.no_grad()
def features(learner: Learner, episodes: Sequence[Episode], stride: int = 1) -> Tensor:
    """(episodes, frames, N * F) float16: of every `stride`-th row, each with its whole past in memory.

    Episodes of one length; the most likely latents.
    """
    batch, model = learner.episodes(episodes), learner.model
    with learner.autocast():
        output = observe_episode(model, batch, model.initial(len(episodes)), WINDOW, sample=False)
    return output.feature[:, ::stride].flatten(2).half()


def _batches(episodes: Sequence[Episode]) -> Iterator[list[Episode]]:
    """Consecutive episodes of one length."""
    for _, alike in groupby(episodes, len):
        together = list(alike)
        yield from (together[i : i + AT_ONCE] for i in range(0, len(together), AT_ONCE))


def _frames(episode: Episode, feature: Tensor, stride: int) -> Frames:
    """The frames of one episode, with its features (frames, D)."""
    labels = episode.labels
    place = labels["agent_pos"] / labels["maze_layout"].shape[-1] * 2 - 1

    def strided(array: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(array[::stride].reshape(len(array[::stride]), -1)).to(feature.device, dtype)

    rows = np.arange(len(episode))
    return Frames(
        inputs=torch.cat([feature, strided(np.concatenate([place, labels["agent_dir"]], 1), torch.float16)], 1),
        walls=strided(labels["maze_layout"], torch.float32),
        objects=strided(labels["targets_vec"], torch.float32),
        age=strided(steps_since_seen(labels), torch.int64),
        row=strided(rows, torch.int64)[:, 0],
        scored=strided(rows >= len(episode) // 2, torch.bool)[:, 0],
    )
