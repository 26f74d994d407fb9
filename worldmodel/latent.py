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
    probs = (1 - unimix) * F.softmax(logits, -1) + unimix / logits.shape[-1]
    return probs.log()


def sample(log_p: Tensor, mode: bool) -> Tensor:
    """One-hot (..., G, C), drawn or (`mode`) most likely; the gradient goes straight to the probabilities."""
    if mode:
        index = log_p.argmax(-1)
    else:  # Gumbel's trick: cheaper than torch.multinomial, and differentiable code around it stays free of syncs
        noise = torch.empty_like(log_p).exponential_().log()
        index = (log_p.detach() - noise).argmax(-1)
    probs = log_p.exp()
    return F.one_hot(index, log_p.shape[-1]).to(probs.dtype) + (probs - probs.detach())


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
