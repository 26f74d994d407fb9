"""Causal convolution in the place of local attention: the same frames and the same neighbours, at less cost.

Depthwise over the token grid (3 x 3), then depthwise over time (k taps), of values that a gate lets through: the
gated form in which H3 (Fu et al. 2023, arXiv 2212.14052) and Hyena (arXiv 2302.10866) put convolution in
attention's place. In one frame a token sees its eight neighbours, where attention sees all.

    v, g = W_in x;    y = W_out (silu(g) * (c + sum_{j<k} w_j * space(v)_{t-j}))
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel.boundaries import boundaries, convolve_masked, last_inputs
from worldmodel.mixers.base import Mixer


class CausalConv(Mixer):
    """Memory: `conv` (B, k - 1, N, D), the values of the last k - 1 frames, zero before the episode's first."""

    def __init__(self, width: int, grid: tuple[int, int], frames: int):
        super().__init__()
        self.grid, self.frames = grid, frames
        self.in_proj = nn.Linear(width, 2 * width, bias=False)
        self.space = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.time = nn.Parameter(torch.empty(frames, width).uniform_(-1, 1) * frames**-0.5)  # the last is now's
        self.bias = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width, bias=False)

    def initial(self, batch: int) -> TensorDict:
        """Zeros: as nothing is there."""
        zeros = self.time.new_zeros(batch, self.frames - 1, self.grid[0] * self.grid[1], self.time.shape[1])
        return TensorDict({"conv": zeros}, batch_size=[batch])

    def forward(self, x: Tensor, memory: TensorDict, reset: Tensor, state_interval: int) -> tuple[Tensor, TensorDict]:
        """See `Mixer`."""
        B, T = x.shape[:2]
        k = self.frames
        value, gate = self.in_proj(x).chunk(2, -1)
        value = self._neighbours(value)
        past = torch.cat([memory["conv"].to(value.dtype), value], 1)  # (B, k - 1 + T, N, D)
        segment = F.pad(reset.cumsum(1), (k - 1, 0))  # (B, k - 1 + T); what memory holds is segment 0
        over_time = convolve_masked(past, self.time.to(past.dtype), self.bias.to(past.dtype), segment)
        y = self.out(over_time * F.silu(gate))

        ends = boundaries(T, state_interval)
        memories = last_inputs(past, segment, ends, k)
        return y, TensorDict({"conv": memories.to(memory["conv"].dtype)}, batch_size=[B, len(ends)])

    def _neighbours(self, x: Tensor) -> Tensor:
        """Convolution of each frame's grid, zero beyond its edges. (B, T, N, D) -> (B, T, N, D)"""
        rows, columns = self.grid
        image = rearrange(x, "b t (r c) d -> (b t) d r c", r=rows, c=columns)
        return rearrange(self.space(image), "(b t) d r c -> b t (r c) d", b=len(x))
