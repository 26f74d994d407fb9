"""Gradient checkpointing by segments of frames (Chen et al. 2016, arXiv 1604.06174): activations are computed again in
the backward pass, a segment at a time, so that memory holds those of one segment and not of the window.

Every function takes `frames`, those of a segment; 0 is one call as it comes, with all activations kept.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from worldmodel.backbone import Backbone


def segments(x: Tensor, frames: int) -> tuple[Tensor, ...]:
    """x (B, T, ...) in segments of so many frames, the last with what is left; 0: x alone."""
    # split at once: the gradient of each x[:, a:b] would be as large as x; laid out as all of x is, since products of
    # strided inputs are rounded otherwise
    return tuple(part.contiguous() for part in x.split(frames, 1)) if frames else (x,)


def remat_map(function: Callable[[Tensor], Tensor], x: Tensor, frames: int) -> Tensor:
    """function(x), (B, T, ...) -> (B, T, ...), of a function that treats each frame by itself."""
    parts = [_again(frames, function, part) for part in segments(x, frames)]
    return torch.cat(parts, 1) if frames else parts[0]


def remat_mean(function: Callable[..., Sequence[Tensor]], x: Tensor, y: Tensor, frames: int) -> list[Tensor]:
    """function(x, y), each (B, T, ...), of a function that gives scalars which are means over frames."""
    sums: list[Tensor] = []
    for part, other in zip(segments(x, frames), segments(y, frames), strict=True):
        share = part.shape[1] / x.shape[1]
        means = [mean * share for mean in _again(frames, function, part, other)]
        sums = [a + b for a, b in zip(sums, means, strict=True)] if sums else means
    return sums


def remat_backbone(
    backbone: Backbone, z: Tensor, action: Tensor, memory: TensorDict, reset: Tensor, state_interval: int, frames: int
) -> tuple[Tensor, TensorDict]:
    """As `Backbone.forward`, from segment to segment by the memory. A ValueError where blocks do not fill segments."""
    if frames % state_interval:
        raise ValueError(f"segments of {frames} frames cannot be cut into blocks of {state_interval}")
    hs, memories = [], []
    for before, act, first in zip(*(segments(x, frames) for x in (z, action, reset)), strict=True):
        h, kept = _again(frames, backbone, before, act, memory, first, state_interval)
        memory = kept[:, -1]
        hs.append(h)
        memories.append(kept)
    return (torch.cat(hs, 1), torch.cat(memories, 1)) if frames else (hs[0], memories[0])


def _again(frames: int, function: Callable[..., Any], *inputs: Any) -> Any:
    """function(*inputs), computed once more in the backward pass; it must draw no random numbers."""
    if not frames or not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
