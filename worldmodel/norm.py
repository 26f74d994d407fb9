"""Normalisation: of activations, and of vector observations."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """RMSNorm in the input's type. The stock module leaves its fused kernel when autocast gives it bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        weight = self.weight if self.weight.dtype == x.dtype else self.weight.to(x.dtype)
        if x.is_cuda:
            return F.rms_norm(x, self.normalized_shape, weight, self.eps)
        assert self.eps is not None
        return _RMSNorm.apply(x, weight, self.eps) if torch.is_grad_enabled() else _normal(x, weight, self.eps)[0]


def _normal(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """y = w x / rms(x), with x / rms(x) and 1 / rms(x)."""
    wide = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    scale = (norm.square_() / x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)
    normal = x * scale
    return normal * weight, normal, scale


class _RMSNorm(torch.autograd.Function):
    """y = w x / rms(x), for devices on which torch composes it of many passes: a CPU is seven times quicker so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, normal, scale = _normal(x, weight, eps)
        ctx.save_for_backward(normal, scale, weight)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normal, scale, weight = ctx.saved_tensors
        both = gradient * normal
        along = (both @ weight).unsqueeze(-1) / normal.shape[-1]  # the part that only lengthens x changes nothing
        onto_x = torch.addcmul(gradient * weight, normal, along, value=-1).mul_(scale)
        return onto_x, both.reshape(-1, normal.shape[-1]).sum(0), None


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean () and the variance () of all of x."""
    return _Moments.apply(x)


class _Moments(torch.autograd.Function):
    """Goes over x seldom, for what is as large as the states of a scan; torch's own is slower."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean()
        ctx.save_for_backward(x, mean)
        return mean, (torch.linalg.vector_norm(x) ** 2 / x.numel() - mean**2).clamp_min(0.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, onto_mean: Tensor, onto_var: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        slope = 2 * onto_var / x.numel()
        return (x * slope).add_(onto_mean / x.numel() - slope * mean)


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
        """Takes vectors (..., V) into account, if finite (Chan et al. 1979's merging of moments)."""
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
        """Raw -> normal."""
        return (x - self.mean) / self._scale()

    def inverse(self, x: Tensor) -> Tensor:
        """Normal -> raw."""
        return x * self._scale() + self.mean
