"""Categorical latents with straight-through gradients and a balanced KL (DreamerV3, Hafner et al. 2023).

Letters: N tokens, G categorical variables a token, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def log_probs(logits: Tensor, unimix: float) -> Tensor:
    """Log probabilities over the last axis, mixed with `unimix` of the uniform distribution; float32 or wider."""
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    if unimix == 0:  # an unlikely class rounds to the probability 0, whose logarithm has no gradient
        return F.log_softmax(logits, -1)
    probs = (1 - unimix) * F.softmax(logits, -1) + unimix / logits.shape[-1]
    return probs.log()


def draw(log_p: Tensor, sample: bool) -> Tensor:
    """One-hot (..., G, C), drawn (`sample`) or most likely; the gradient goes straight to the probabilities."""
    probs = log_p.exp()
    if not sample:
        index = log_p.argmax(-1, keepdim=True)
    else:  # inverse of the cumulative distribution: one random number a variable, not one a class
        edges = probs.detach().cumsum(-1)
        index = (edges <= torch.rand_like(edges[..., :1]) * edges[..., -1:]).sum(-1, keepdim=True)
        index.clamp_max_(log_p.shape[-1] - 1)  # the product may round up to the last edge
    hot = torch.zeros_like(probs).scatter_(-1, index, 1.0)
    return hot + (probs - probs.detach())


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats, summed over the last three axes (N, G, C)."""
    return (log_p.exp() * (log_p - log_q)).sum((-1, -2, -3))


def balanced_kl(posterior: Tensor, prior: Tensor, free_nats: float) -> tuple[Tensor, Tensor, Tensor]:
    """(dynamics, representation, plain KL), means over all frames; the first two stop below `free_nats`.

    The dynamics loss moves the prior toward the posterior, the representation loss the reverse.
    """
    dynamics = kl(posterior.detach(), prior)
    representation = kl(posterior, prior.detach())
    return (
        dynamics.clamp_min(free_nats).mean(),
        representation.clamp_min(free_nats).mean(),
        dynamics.detach().mean(),
    )


def next_latent_kl(posterior: Tensor, next_prior: Tensor, follows: Tensor) -> Tensor:
    """KL(posterior || next prior of the frame before), mean over frames; log probabilities (B, T, N, G, C) both.

    follows (B, T) is 1 where a row follows another of its episode, else 0. The posterior gets no gradient.
    """
    nats = kl(posterior[:, 1:].detach(), next_prior[:, :-1]) * follows[:, 1:]
    return nats.sum() / follows.numel()
