"""Spatial blocks of tokens (arXiv 2505.20171, section 3.2): each block is one sequence over time, with its own state.

Temporal neighbours are b_h * b_w positions apart, not h * w, and the total state grows with the number of blocks.
"""

from typing import Protocol

import torch.nn.functional as F
from einops import rearrange, repeat
from tensordict import TensorDict
from torch import Tensor

from worldmodel.mixers.base import Mixer


class SequenceLayer(Protocol):
    """A layer over sequences whose memory is an argument and a result, such as `Mamba2`."""

    def initial(self, batch: int) -> TensorDict:
        """Empty memory, batch size (b,)."""

    def __call__(self, u: Tensor, memory: TensorDict, reset: Tensor, save_every: int) -> tuple[Tensor, TensorDict]:
        """u (b, L, D), reset (b, L) -> y (b, L, D) and the memories (b, K) at `boundaries(L, save_every)`."""


class BlockMixer(Mixer):
    """A layer over sequences, applied to spatial blocks of tokens; each block has a state of its own.

    The h x w grid is cut into blocks of b_h x b_w tokens. Each block is one sequence over all of time, time-major:
    frame t's tokens of the block, then frame t + 1's. Memory: the layer's entries, (B, blocks, ...).
    """

    def __init__(self, grid: tuple[int, int], block: tuple[int, int], layer: SequenceLayer):
        super().__init__()
        if grid[0] % block[0] or grid[1] % block[1]:
            raise ValueError(f"block {block[0]}x{block[1]} does not divide the grid of {grid[0]}x{grid[1]} tokens")
        self.layer = layer
        self.size = block[0] * block[1]  # of a block, in tokens
        self.blocks = grid[0] * grid[1] // self.size
        self._axes = {"r": grid[0] // block[0], "c": grid[1] // block[1], "i": block[0], "j": block[1]}

    def initial(self, batch: int) -> TensorDict:
        """See `Mixer`."""
        memory = self.layer.initial(batch * self.blocks)
        return TensorDict({k: v.unflatten(0, (batch, self.blocks)) for k, v in memory.items()}, batch_size=[batch])

    def forward(self, x: Tensor, memory: TensorDict, reset: Tensor, state_interval: int) -> tuple[Tensor, TensorDict]:
        """See `Mixer`."""
        B, T = x.shape[:2]
        u = rearrange(x, "b t (r i c j) d -> (b r c) (t i j) d", **self._axes)
        # a reset stands at the first token of its frame, once for every block
        first = F.pad(reset.unsqueeze(-1), (0, self.size - 1)).flatten(1).repeat_interleave(self.blocks, 0)
        flat = TensorDict({k: v.flatten(0, 1) for k, v in memory.items()}, batch_size=[B * self.blocks])
        y, memories = self.layer(u, flat, first, state_interval * self.size)
        y = rearrange(y, "(b r c) (t i j) d -> b t (r i c j) d", b=B, t=T, **self._axes)
        entries = {k: v.unflatten(0, (B, self.blocks)).transpose(1, 2) for k, v in memories.items()}
        return y, TensorDict(entries, batch_size=[B, memories.shape[1]])

    def spread(self, x: Tensor) -> Tensor:
        """See `Mixer`."""
        return repeat(x, "... (r c) f -> ... (r i c j) f", **self._axes)
