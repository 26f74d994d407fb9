"""The reward that each action would bring, predicted before the next frame is drawn: an option of any world model.

A reward head reads a frame's latents. In a dream those are drawn, and a prior that draws each token apart seldom draws
the change that a reward shows by. This head reads what stands before that draw: h_t, z_t and action_{t+1}.

Letters: N tokens, W width of h, Z width of a token's latents, A actions.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from tensordict import TensorDictBase
from torch import Tensor, nn

from worldmodel.heads import TokenMLP, symlog

REWARD_SCALE = 4.0
"""Of numbers that matter beside many more around 1: predicted rewards in a feature, cosines in the head's input."""


class CosineSimilarity(nn.Module):
    """The cosine of each token of the frame with the most similar of the next frame's expected tokens, `HEADS` times.

    Both go through one learnt embedding, so that equal latents have equal embeddings from the first update on.
    """

    WIDTH, HEADS = 64, 4

    def __init__(self, latent_width: int):
        super().__init__()
        self.embed = nn.Linear(latent_width, self.WIDTH, bias=False)

    def forward(self, z: Tensor, expected: Tensor) -> Tensor:
        """(..., N, Z) twice -> (..., N, HEADS) in -1..1"""
        seen, coming = (
            F.normalize(self.embed(x).float().unflatten(-1, (self.HEADS, -1)).movedim(-2, -3), dim=-1)
            for x in (z, expected)
        )
        return (seen @ coming.mT).amax(-1).mT


class Prediction(NamedTuple):
    """What the head gives for a window, in symlog."""

    next_reward: Tensor  # (B, T, 1 + A): of the row after each: a constant, and what each action adds
    previous: Tensor  # (B, T, 1 + A): the same of the row before, zero at an episode's first row
    predicted_reward: Tensor  # (B, T): of each row, by the row before and the action taken


class NextReward(nn.Module):
    """(h_t, z_t) -> reward_{t+1}, linear in action_{t+1}; all numbers in symlog.

    With `cosine_similarity` the head also reads how similar the frame is to what memory expects of the next one.
    """

    MIN_WEIGHT = 0.01  # of a row in which no reward is predicted

    def __init__(
        self, tokens: int, width: int, latent_width: int, actions: int, hidden: int, cosine_similarity: bool = False
    ):
        super().__init__()
        self.actions = actions
        self.similarity = CosineSimilarity(latent_width) if cosine_similarity else None
        extra = CosineSimilarity.HEADS if cosine_similarity else 0
        self.out = TokenMLP(tokens, width + latent_width + extra, 1 + actions, hidden)

    @property
    def feature_width(self) -> int:
        """Columns that the predictions take in a feature."""
        return 1 + self.actions

    def initial(self, like: Tensor, batch: int) -> dict[str, Tensor]:
        """The entries of a State before any frame."""
        zeros = like.new_zeros(batch, 1 + self.actions)
        return {"predicted_reward": zeros[:, 0].clone(), "next_reward": zeros}

    def forward(self, h: Tensor, z: Tensor, expected: Tensor | None = None) -> Tensor:
        """h (..., N, W), z (..., N, Z), the next frame's expected latents (..., N, Z) for the cosine -> (..., 1 + A)"""
        read = [h, z]
        if self.similarity is not None:
            assert expected is not None
            read.append(REWARD_SCALE * self.similarity(z, expected).to(z.dtype))
        return self.out(torch.cat(read, -1))

    def observe(
        self, h: Tensor, z: Tensor, expected: Tensor | None, action: Tensor, first: Tensor, state: TensorDictBase
    ) -> Prediction:
        """Of a window's frames (B, T, N, ...), actions (B, T, A) and first rows (B, T, 1), from the State before it."""
        next_reward = self(h, z, expected)
        previous = torch.cat([state["next_reward"].unsqueeze(1), next_reward[:, :-1]], 1).masked_fill(first, 0.0)
        return Prediction(next_reward, previous, self.after(previous, action))

    def dream(
        self, h: Tensor, z: Tensor, expected: Tensor | None, action: Tensor, state: TensorDictBase
    ) -> dict[str, Tensor]:
        """The entries of the State of an imagined frame (B, N, ...) after `action` (B, A)."""
        predicted = self.after(state["next_reward"], action)
        return {"predicted_reward": predicted, "next_reward": self(h, z, expected).detach()}

    def columns(self, predicted_reward: Tensor, next_reward: Tensor, like: Tensor) -> Tensor:
        """(...) and (..., 1 + A) -> (..., N, 1 + A), for each token of `like` (..., N, W): the reward predicted of the
        frame, and of the next one for each action (of a continuous action, at 1 in one part and 0 in the rest).
        Without gradient."""
        rewards = torch.cat([predicted_reward.unsqueeze(-1), next_reward[..., :1] + next_reward[..., 1:]], -1)
        return (REWARD_SCALE * rewards.detach()).to(like.dtype).unsqueeze(-2).expand(*like.shape[:-1], -1)

    @staticmethod
    def after(next_reward: Tensor, action: Tensor) -> Tensor:
        """What `forward` gives and actions (..., A) -> (...): the reward after the action, symlog."""
        return next_reward[..., 0] + (action * next_reward[..., 1:]).sum(-1)

    def loss(self, next_reward: Tensor, action: Tensor, reward: Tensor, counts: Tensor) -> Tensor:
        """The squared error () of `after` in symlog; reward (...), and 1 in counts (...) where a row counts, else 0.

        Rows count by the largest reward that was predicted in them, whatever the action taken: where rewards are rare,
        the many rows in which nothing can be earned would drown the few in which something can. (Weighed by rewards
        met as well, the error would be least at too large an expectation.)
        """
        largest = (next_reward[..., :1] + next_reward[..., 1:]).abs().amax(-1).detach()
        weight = counts * (largest + self.MIN_WEIGHT)
        error = self.after(next_reward, action) - symlog(reward)
        return (weight * error**2).sum() / weight.sum().clamp_min(1e-8)


def next_reward_head(
    config: Any, tokens: int, width: int, latent_width: int, actions: int, hidden: int
) -> NextReward | None:
    """The head that `config.next_reward` and `config.cosine_similarity` ask for.

    A ValueError, of one line, for a cosine without what it compares, or without the head that reads it.
    """
    if config.cosine_similarity and not (config.next_reward and config.next_latent_scale):
        raise ValueError(
            "worldmodel.cosine_similarity wants worldmodel.next_reward True and worldmodel.next_latent_scale above 0: "
            "the next-reward head compares the frame with what the second prior expects"
        )
    if not config.next_reward:
        return None
    return NextReward(tokens, width, latent_width, actions, hidden, config.cosine_similarity)
