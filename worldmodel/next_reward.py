"""The reward that each action would bring, predicted before the next frame is drawn: an option of any world model.

A reward head reads a frame's latents. In a dream the prior draws them, each token apart, and seldom draws the change
that a reward shows by. This head reads what stands before that draw: h_t, z_t and action_{t+1}.

Letters: B batch, T frames, N tokens, W width of h, Z of a token's latents, A actions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.heads import TokenMLP, symlog

REWARD_SCALE = 4.0
"""Factor of numbers that stand beside many more around 1: predicted rewards in a feature, cosines in an input."""

MIN_WEIGHT = 0.01
"""Weight in the loss of a row in which no reward is predicted."""


class CosineSimilarity(nn.Module):
    """The cosine of each token of the frame with the most similar of the next frame's expected tokens, `HEADS` times.

    Both go through one trained embedding, so that equal latents have equal embeddings from the first update on.
    """

    WIDTH, HEADS = 64, 4

    def __init__(self, latent_width: int):
        super().__init__()
        self.embed = nn.Linear(latent_width, self.WIDTH, bias=False)

    def forward(self, z: Tensor, expected: Tensor) -> Tensor:
        """(..., N, Z) twice -> (..., N, HEADS) in -1..1"""
        current, coming = (
            F.normalize(self.embed(x).float().unflatten(-1, (self.HEADS, -1)).movedim(-2, -3), dim=-1)
            for x in (z, expected)
        )
        return (current @ coming.mT).amax(-1).mT


@dataclass(frozen=True)
class Prediction:
    """What the head predicts of a window, in symlog. A row of 1 + A is a constant, and what each action adds."""

    next_reward: Tensor  # (B, T, 1 + A): of the row after each
    previous: Tensor  # (B, T, 1 + A): of each row, by the row before; zero at an episode's first row
    predicted_reward: Tensor  # (B, T): of each row, by the row before and the action taken

    def entries(self) -> dict[str, Tensor]:
        """The entries of each frame's State."""
        return {"predicted_reward": self.predicted_reward.detach(), "next_reward": self.next_reward.detach()}

    def loss(self, action: Tensor, reward: Tensor, follows: Tensor) -> Tensor:
        """See `next_reward_loss`."""
        return next_reward_loss(self.previous, action, reward, follows)


class NextReward(nn.Module):
    """(h_t, z_t) -> reward_{t+1}, linear in action_{t+1}; all numbers in symlog.

    With `cosine_similarity` the head also reads how similar the frame is to what memory expects of the next one.
    """

    def __init__(
        self, tokens: int, width: int, latent_width: int, actions: int, hidden: int, cosine_similarity: bool = False
    ):
        super().__init__()
        self.actions = actions
        self.similarity = CosineSimilarity(latent_width) if cosine_similarity else None
        extra = CosineSimilarity.HEADS if cosine_similarity else 0
        self.out = TokenMLP(tokens, width + latent_width + extra, 1 + actions, hidden)

    def initial(self, like: Tensor, batch: int) -> dict[str, Tensor]:
        """The entries of a State before any frame."""
        zeros = like.new_zeros(batch, 1 + self.actions)
        return {"predicted_reward": zeros[:, 0].clone(), "next_reward": zeros}

    def forward(self, h: Tensor, z: Tensor, expected: Tensor | None = None) -> Tensor:
        """h (..., N, W), z (..., N, Z) -> (..., 1 + A)

        expected (..., N, Z): the mean of the next frame's latents, which the cosine compares with z.
        """
        inputs = [h, z]
        if self.similarity is not None:
            assert expected is not None
            inputs.append(REWARD_SCALE * self.similarity(z, expected.detach().to(z.dtype)).to(z.dtype))
        return self.out(torch.cat(inputs, -1))

    def observe(
        self,
        h: Tensor,
        z: Tensor,
        expected: Tensor | None,
        action: Tensor,
        first: Tensor,
        state: Mapping[str, Tensor],
    ) -> Prediction:
        """Of a window's frames (B, T, N, ...), actions (B, T, A) and first rows (B, T, 1), from the State before it."""
        next_reward = self(h, z, expected)
        previous = torch.cat([state["next_reward"].unsqueeze(1), next_reward[:, :-1]], 1).masked_fill(first, 0.0)
        return Prediction(next_reward, previous, reward_after(previous, action))

    def dream(
        self, h: Tensor, z: Tensor, expected: Tensor | None, action: Tensor, state: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The entries of the State of an imagined frame (B, N, ...) after `action` (B, A)."""
        predicted = reward_after(state["next_reward"], action)
        return {"predicted_reward": predicted, "next_reward": self(h, z, expected).detach()}


def feature_columns(state: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """(..., N, 1 + A) for a feature, one row for all tokens of `like` (..., N, Z), without gradient.

    The predicted reward of the frame, and of the next one for each action (of a continuous action, at 1 in one part
    and 0 in the rest).
    """
    next_reward = state["next_reward"]
    rewards = torch.cat([state["predicted_reward"].unsqueeze(-1), next_reward[..., :1] + next_reward[..., 1:]], -1)
    return (REWARD_SCALE * rewards.detach()).to(like.dtype).unsqueeze(-2).expand(*like.shape[:-1], -1)


def reward_after(next_reward: Tensor, action: Tensor) -> Tensor:
    """(..., 1 + A) and actions (..., A) -> (...): the reward after the action, symlog."""
    return next_reward[..., 0] + (action * next_reward[..., 1:]).sum(-1)


def next_reward_loss(next_reward: Tensor, action: Tensor, reward: Tensor, follows: Tensor) -> Tensor:
    """The squared error () of predictions (..., 1 + A) in symlog; reward (...); follows (...) is 1 where a row counts.

    Rows count by the largest reward that is predicted in them, whatever the action taken: where rewards are rare, the
    many rows without any would drown the few with one. (With weights by received rewards as well, the error would be
    smallest at too large an expectation.)
    """
    largest = (next_reward[..., :1] + next_reward[..., 1:]).abs().amax(-1).detach()
    weight = follows * (largest + MIN_WEIGHT)
    error = reward_after(next_reward, action) - symlog(reward)
    return (weight * error**2).sum() / weight.sum().clamp_min(1e-8)


def next_reward_errors(config: Any) -> Iterator[str]:
    """What is wrong with the options `next_reward` and `cosine_similarity` of a configuration."""
    if config.cosine_similarity and not (config.next_reward and config.next_latent_scale):
        yield (
            "worldmodel.cosine_similarity needs worldmodel.next_reward True and worldmodel.next_latent_scale above 0: "
            "the next-reward head compares the frame with what the second prior expects"
        )
