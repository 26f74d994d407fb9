"""Normalisation: of activations, and of vector observations."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel import cpu


class RMSNorm(nn.RMSNorm):
    """RMSNorm in the input's type. The stock module leaves its fused kernel when autocast gives it bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        weight = self.weight if self.weight.dtype == x.dtype else self.weight.to(x.dtype)
        if x.is_cuda:
            return F.rms_norm(x, self.normalized_shape, weight, self.eps)
        assert self.eps is not None
        return cpu.rms_norm(x, weight, self.eps)


class RunningNorm(nn.Module):
    """Shifts and scales vectors (..., V) by the mean and deviation of all vectors given to `update`."""

    count: Tensor
    mean: Tensor
    square: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("square", torch.ones(width))  # mean of squared deviations

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Adds the finite ones of vectors (..., V), by merging moments (Chan et al. 1979)."""
        x = x.flatten(0, -2).to(self.mean.dtype)
        x = x[x.isfinite().all(-1)]
        if not len(x):
            return
        total = self.count + len(x)
        share = len(x) / total
        gap = x.mean(0) - self.mean
        self.square.lerp_(x.var(0, unbiased=False), share).add_(gap**2 * share * (1 - share))
        self.mean.add_(gap * share)
        self.count.copy_(total)

    def _scale(self) -> Tensor:
        return self.square.sqrt().clamp_min(1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Raw -> normalised."""
        return (x - self.mean) / self._scale()

    def inverse(self, x: Tensor) -> Tensor:
        """Normalised -> raw."""
        return x * self._scale() + self.mean
