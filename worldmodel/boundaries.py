"""Where a window's States stand, and causal convolutions whose taps stop at resets.

A window of T frames keeps memory at its boundaries: after every `state_interval` frames, and after the last. Mixers
count in positions of their own sequence, of which a frame may take several.

Letters: B sequences, L positions, K boundaries, W taps, C channels. A segment is the number of resets up to a position;
positions of one segment belong to one episode.
"""

from collections.abc import Mapping

import torch
from tensordict import TensorDict
from torch import Tensor


def boundaries(length: int, every: int) -> list[int]:
    """Indices after which memory is kept: each `every`-th, and the last."""
    ends = list(range(every - 1, length, every))
    return ends if ends and ends[-1] == length - 1 else [*ends, length - 1]


def gather_boundaries(x: Tensor, indices: list[int]) -> Tensor:
    """x[:, indices], a view where they are evenly spaced: scan states are large."""
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    if indices == list(range(indices[0], indices[-1] + 1, step)):
        return x[:, indices[0] : indices[-1] + 1 : step]
    return x[:, indices]


def gather_states(frames: Mapping[str, Tensor], like: TensorDict, every: int) -> tuple[dict[str, Tensor], list[int]]:
    """Entries of the States at a window's boundaries (B, K, ...), and the frames that they stand at.

    Args:
        frames: entries of a State by name, of all frames (B, T, ...).
        like: a State, whose types the entries take.
        every: frames between boundaries.
    """
    ends = boundaries(next(iter(frames.values())).shape[1], every)
    return {name: gather_boundaries(x, ends).to(like[name].dtype) for name, x in frames.items()}, ends


def last_inputs(past: Tensor, segment: Tensor, ends: list[int], taps: int) -> Tensor:
    """The W - 1 inputs up to each end, zero where a reset stands between: (B, K, W - 1, ..., C).

    past (B, W - 1 + L, ..., C), segment (B, W - 1 + L)
    """
    found = []
    for end in ends:
        same = segment[:, end + 1 : end + taps] == segment[:, end + taps - 1, None]
        found.append(past[:, end + 1 : end + taps] * over_channels(same, past))
    return torch.stack(found, 1)


def convolve_masked(past: Tensor, weight: Tensor, bias: Tensor, segment: Tensor) -> Tensor:
    """Causal depthwise convolution, tap by tap; no tap reaches over a reset.

    past (B, W - 1 + L, ..., C), weight (W, C), bias (C,), segment (B, W - 1 + L) -> (B, L, ..., C)
    """
    before = len(weight) - 1
    L = past.shape[1] - before
    out = torch.addcmul(bias, past[:, before:], weight[-1])
    for tap in range(before):
        same = segment[:, tap : tap + L] == segment[:, before:]
        out = torch.addcmul(out, past[:, tap : tap + L], over_channels(same, past) * weight[tap])
    return out


def over_channels(same: Tensor, like: Tensor) -> Tensor:
    """(B, L) in the type of `like`, with as many axes."""
    return same.to(like.dtype)[(..., *[None] * (like.ndim - 2))]
