"""Normalisation: of activations, and of vector observations."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """RMSNorm in the input's type. The stock module leaves its fused kernel when autocast gives it bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        weight = self.weight if self.weight.dtype == x.dtype else self.weight.to(x.dtype)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


class RunningNorm(nn.Module):
    """Shifts and scales vectors (..., V) by the mean and deviation of all that `update` has seen."""

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
        """Takes vectors (..., V) into account (Chan et al. 1979's merging of moments)."""
        x = x.flatten(0, -2).to(self.mean.dtype)
        total = self.count + len(x)
        share = len(x) / total
        gap = x.mean(0) - self.mean
        self.square.lerp_(x.var(0, unbiased=False), share).add_(gap**2 * share * (1 - share))
        self.mean.add_(gap * share)
        self.count.copy_(total)

    def _scale(self) -> Tensor:
        return self.square.sqrt().clamp_min(1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Raw -> normal."""
        return (x - self.mean) / self._scale()

    def inverse(self, x: Tensor) -> Tensor:
        """Normal -> raw."""
        return x * self._scale() + self.mean
