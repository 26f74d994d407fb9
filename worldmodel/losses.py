"""What the world models with latents of each frame share: the window that they observed, and the losses on it.

Letters: B batch, T frames, N tokens, W width of h, Z of a token's latents.
"""

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from worldmodel.base import Losses, ObserveOutput, SequenceBatch
from worldmodel.heads import TwoHot
from worldmodel.latents import Latents, balanced_kl, next_latent_kl
from worldmodel.next_reward import Prediction


class ObservedWindow(NamedTuple):
    """What observing gives, with what the losses read."""

    output: ObserveOutput
    h: Tensor  # (B, T, N, W)
    z: Tensor  # (B, T, N, Z)
    posterior: Tensor  # (B, T, N, ...): distribution of z
    prior: Tensor  # (B, T, N, ...): what memory expected of z
    next_prior: Tensor | None  # (B, T, N, ...): distribution of the next frame's latents, by h
    next_reward: Prediction | None


def latent_losses(
    latents: Latents, window: ObservedWindow, batch: SequenceBatch, free_nats: float
) -> tuple[Losses, dict[str, Tensor]]:
    """The KL losses of posterior and prior, and metrics."""
    posterior = window.posterior
    dynamics, representation, kl = balanced_kl(latents, posterior, window.prior, free_nats)
    losses = {"dynamics": dynamics, "representation": representation}
    if window.next_prior is not None:
        losses["next_latent"] = next_latent_kl(latents, posterior, window.next_prior, follows(batch))
    return losses, {"kl": kl, "entropy/posterior": latents.entropy(posterior).mean().detach()}


def reward_losses(
    window: ObservedWindow, rewards: Tensor, continues: Tensor, twohot: TwoHot, batch: SequenceBatch
) -> Losses:
    """Losses of the heads' logits: rewards (B, T, bins) and continue flags (B, T, 1)."""
    losses = {
        "reward": (twohot.loss(rewards, batch.reward) * follows(batch)).mean(),
        "continue": F.binary_cross_entropy_with_logits(continues.squeeze(-1), (~batch.terminated).to(continues.dtype)),
    }
    if window.next_reward is not None:
        losses["next_reward"] = window.next_reward.loss(batch.action, batch.reward, follows(batch))
    return losses


def follows(batch: SequenceBatch) -> Tensor:
    """(B, T): 1 where a row follows another of its episode, else 0.

    The reward of a first row belongs to a past that the window has cut off; it trains nothing.
    """
    return (~batch.is_first).to(batch.reward.dtype)


def loss_scales(config: Any, *names: str) -> dict[str, float]:
    """The scale of each named loss by `config`, and of those that its options add."""
    optional = ["next_latent"] * bool(config.next_latent_scale) + ["next_reward"] * config.next_reward
    return {name: getattr(config, f"{name}_scale") for name in [*names, *optional]}
