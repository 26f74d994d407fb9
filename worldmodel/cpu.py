"""Kernels that only make a CPU quick, written by hand in place of torch's own.

Each says which plain form it replaces, with equal values and gradients, and what an update of the `cpu` preset takes
longer by with the plain form (`python -m eval.benchmark kernels`). On a GPU the plain forms run.

Letters: B sequences, L positions, W taps, C channels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Replaces `F.rms_norm(x, (D,), weight, eps)`, which a CPU composes of many passes: 3 %."""
    if torch.is_grad_enabled():
        return _RMSNorm.apply(x, weight, eps)
    return _normalise(x, weight, eps)[0]


def _normalise(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """y = w x / rms(x), with x / rms(x) and 1 / rms(x)."""
    wide = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    scale = (norm.square_() / x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)
    normal = x * scale
    return normal * weight, normal, scale


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, normal, scale = _normalise(x, weight, eps)
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


def convolve(past: Tensor, weight: Tensor, bias: Tensor, segment: Tensor) -> Tensor:
    """Causal depthwise convolution. Replaces `boundaries.convolve_masked(past, weight, bias, segment)`: once without
    resets, then again for the few positions whose taps reach over one. 7 %.

    past (B, W - 1 + L, C), weight (W, C), bias (C,), segment (B, W - 1 + L) -> (B, L, C)
    """
    taps = len(weight)
    out = _Convolution.apply(past, weight.T, bias)
    b, at = (segment[:, : 1 - taps] != segment[:, taps - 1 :]).nonzero(as_tuple=True)
    if len(b):
        positions = at[:, None] + torch.arange(taps, device=at.device)  # (positions, W)
        same = segment[b[:, None], positions] == segment[b[:, None], positions[:, -1:]]
        inputs = past[b[:, None], positions] * same.unsqueeze(-1).to(past.dtype)  # (positions, W, C)
        out = out.index_put((b, at), (inputs * weight).sum(1) + bias)
    return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(past, weight)
        return _along_time(past, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        past, weight = ctx.saved_tensors
        L, taps = gradient.shape[1], weight.shape[1]
        onto_past = _along_time(F.pad(gradient, (0, 0, taps - 1, taps - 1)), weight.flip(-1), None)
        onto_weight = [(gradient * past[:, tap : tap + L]).sum((0, 1)) for tap in range(taps)]
        return onto_past, torch.stack(onto_weight, -1), gradient.sum((0, 1))


def _along_time(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (B, W - 1 + L, C) with each channel's weight (C, W) -> (B, L, C): a channels-last image one pixel high."""
    image = x.transpose(1, 2).unsqueeze(2)
    return F.conv2d(image, weight[:, None, None], bias, groups=len(weight)).squeeze(2).transpose(1, 2)


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Replaces `F.scaled_dot_product_attention(query, key, value, attn_mask=bias)`, for few scores: 12 %."""
    q, k, v, scores = (t.flatten(0, 1) for t in (query, key, value, bias))
    scores = torch.baddbmm(scores, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return (scores.softmax(-1) @ v).unflatten(0, query.shape[:2])
