"""Rematerialisation of activations by segments of frames (Chen et al. 2016, arXiv 1604.06174).

The backward pass computes activations again, a segment at a time, so that the device's memory holds those of one
segment and not of the window. Every function takes `frames`, the length of a segment; 0 keeps all activations.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from worldmodel.backbone import Backbone


def segments(x: Tensor, frames: int) -> tuple[Tensor, ...]:
    """x (B, T, ...) in segments of `frames`, the last one shorter; 0: x alone."""
    # split at once: the gradient of each x[:, a:b] would be as large as x; contiguous: products of strided inputs are
    # rounded differently
    return tuple(part.contiguous() for part in x.split(frames, 1)) if frames else (x,)


def remat_map(function: Callable[[Tensor], Tensor], x: Tensor, frames: int) -> Tensor:
    """function(x), (B, T, ...) -> (B, T, ...), of a function of single frames."""
    parts = [_remat(frames, function, part) for part in segments(x, frames)]
    return torch.cat(parts, 1) if frames else parts[0]


def remat_mean(function: Callable[..., Sequence[Tensor]], x: Tensor, y: Tensor, frames: int) -> list[Tensor]:
    """function(x, y), each (B, T, ...), of a function whose results are means over frames."""
    sums: list[Tensor] = []
    for part, other in zip(segments(x, frames), segments(y, frames), strict=True):
        share = part.shape[1] / x.shape[1]
        means = [mean * share for mean in _remat(frames, function, part, other)]
        sums = [a + b for a, b in zip(sums, means, strict=True)] if sums else means
    return sums


def remat_backbone(
    backbone: Backbone, z: Tensor, action: Tensor, memory: TensorDict, reset: Tensor, state_interval: int, frames: int
) -> tuple[Tensor, Tensor | None, TensorDict]:
    """As `Backbone.forward`, segment after segment; `frames` is a multiple of `state_interval`."""
    hs, expectations, memories = [], [], []
    for before, act, first in zip(*(segments(x, frames) for x in (z, action, reset)), strict=True):
        h, expected, kept = _remat(frames, backbone, before, act, memory, first, state_interval)
        memory = kept[:, -1]
        hs.append(h)
        expectations.append(expected)
        memories.append(kept)
    if not frames:
        return hs[0], expectations[0], memories[0]
    expected = None if expectations[0] is None else torch.cat(expectations, 1)
    return torch.cat(hs, 1), expected, torch.cat(memories, 1)


def _remat(frames: int, function: Callable[..., Any], *inputs: Any) -> Any:
    """function(*inputs), computed again in the backward pass; it must draw no random numbers."""
    if not frames or not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
