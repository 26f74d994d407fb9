"""Where a window's States are kept: after every so many positions, and after the last."""

import torch
from torch import Tensor


def boundaries(length: int, every: int) -> list[int]:
    """Indices after which memory is kept: each `every`-th, and the last."""
    ends = list(range(every - 1, length, every))
    return ends if ends and ends[-1] == length - 1 else [*ends, length - 1]


def gather_boundaries(x: Tensor, indices: list[int]) -> Tensor:
    """x[:, indices], without a copy where they are evenly spaced: states are large, and a dream picks one a frame."""
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    if indices == list(range(indices[0], indices[-1] + 1, step)):
        return x[:, indices[0] : indices[-1] + 1 : step]
    return x[:, indices]


def last_inputs(past: Tensor, segment: Tensor, ends: list[int], taps: int) -> Tensor:
    """The last inputs of a convolution up to each end, zero where a reset stands between: (b, K, W - 1, ..., C)."""
    found = []
    for end in ends:
        same = segment[:, end + 1 : end + taps] == segment[:, end + taps - 1, None]
        found.append(past[:, end + 1 : end + taps] * over_channels(same, past))
    return torch.stack(found, 1)


def over_channels(same: Tensor, like: Tensor) -> Tensor:
    """(b, L) in the type of `like`, with as many axes."""
    return same.to(like.dtype)[(..., *[None] * (like.ndim - 2))]
