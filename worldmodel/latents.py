"""Latents of a frame: categorical with straight-through gradients (DreamerV3, Hafner et al. 2023), or continuous.

Letters: N tokens, Z numbers of a token's latents, G categorical variables a token, C classes.
"""

import math

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


class CategoricalLatents:
    """G categorical variables of C classes a token, one-hot. A distribution is its log probabilities (..., N, G, C).

    Args:
        unimix: share of the uniform distribution in each.
    """

    def __init__(self, groups: int, classes: int, unimix: float):
        self.groups, self.classes, self.unimix = groups, classes, unimix
        self.width = groups * classes
        self.prior_width = self.width

    def posterior(self, out: Tensor) -> Tensor:
        """A head's outputs (..., N, Z) -> a distribution."""
        return log_probs(out.unflatten(-1, (self.groups, self.classes)), self.unimix)

    def prior(self, out: Tensor, expected: Tensor | None = None) -> Tensor:
        """A head's outputs (..., N, prior_width) -> a distribution, around `expected` (..., N, Z) where it is given."""
        if expected is not None:
            out = out + expected.to(out.dtype).clamp_min(0.1 / self.classes).log()
        return self.posterior(out)

    def draw(self, distribution: Tensor, sample: bool) -> Tensor:
        """(..., N, Z): drawn, or most likely."""
        return draw(distribution, sample).flatten(-2)

    def mean(self, distribution: Tensor) -> Tensor:
        """(..., N, Z)"""
        return distribution.exp().flatten(-2)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """KL(p || q) of each frame (...,) in nats."""
        return kl(p, q)

    def entropy(self, distribution: Tensor) -> Tensor:
        """Of each frame (...,) in nats."""
        return -(distribution.exp() * distribution).sum((-1, -2, -3))


class GaussianLatents:
    """Z numbers a token, normally distributed. A distribution is (mean, log deviation), (..., N, Z, 2).

    Posterior means lie in -1..1 (tanh), with a deviation of `NOISE`, which no prior's is below.
    """

    NOISE = 0.05

    def __init__(self, width: int):
        self.width = width
        self.prior_width = 2 * width

    def posterior(self, out: Tensor) -> Tensor:
        """As `CategoricalLatents.posterior`."""
        mean = out.to(torch.promote_types(out.dtype, torch.float32)).tanh()
        return torch.stack([mean, torch.full_like(mean, math.log(self.NOISE))], -1)

    def prior(self, out: Tensor, expected: Tensor | None = None) -> Tensor:
        """As `CategoricalLatents.prior`."""
        mean, deviation = out.to(torch.promote_types(out.dtype, torch.float32)).chunk(2, -1)
        if expected is not None:
            mean = mean + expected
        return torch.stack([mean, (self.NOISE + F.softplus(deviation - 1.0)).log()], -1)

    def draw(self, distribution: Tensor, sample: bool) -> Tensor:
        """As `CategoricalLatents.draw`."""
        mean, log_deviation = distribution.unbind(-1)
        return mean + log_deviation.exp() * torch.randn_like(mean) if sample else mean

    def mean(self, distribution: Tensor) -> Tensor:
        """As `CategoricalLatents.mean`."""
        return distribution[..., 0]

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """As `CategoricalLatents.kl`."""
        (mean, log_p), (other, log_q) = p.unbind(-1), q.unbind(-1)
        ratio = (2 * (log_p - log_q)).exp() + ((mean - other) * (-log_q).exp()).square()
        return (log_q - log_p + (ratio - 1) / 2).sum((-1, -2))

    def entropy(self, distribution: Tensor) -> Tensor:
        """As `CategoricalLatents.entropy`."""
        return (distribution[..., 1] + 0.5 * math.log(2 * math.pi * math.e)).sum((-1, -2))


Latents = CategoricalLatents | GaussianLatents


def balanced_kl(latents: Latents, posterior: Tensor, prior: Tensor, free_nats: float) -> tuple[Tensor, Tensor, Tensor]:
    """(dynamics, representation, plain KL), means over all frames; the first two stop below `free_nats`.

    The dynamics loss moves the prior toward the posterior, the representation loss the reverse.
    """
    dynamics = latents.kl(posterior.detach(), prior)
    representation = latents.kl(posterior, prior.detach())
    return (
        dynamics.clamp_min(free_nats).mean(),
        representation.clamp_min(free_nats).mean(),
        dynamics.detach().mean(),
    )


def next_latent_kl(latents: Latents, posterior: Tensor, next_prior: Tensor, follows: Tensor) -> Tensor:
    """KL(posterior || next prior of the frame before), mean over frames; distributions (B, T, ...) both.

    follows (B, T) is 1 where a row follows another of its episode, else 0. The posterior gets no gradient.
    """
    nats = latents.kl(posterior[:, 1:].detach(), next_prior[:, :-1]) * follows[:, 1:]
    return nats.sum() / follows.numel()
