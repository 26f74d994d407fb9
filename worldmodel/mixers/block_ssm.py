"""The block-wise scan of LSSVWM (arXiv 2505.20171, section 3.2): each spatial block of tokens is one sequence.

The h x w grid is cut into blocks of b_h x b_w tokens. Each block is scanned over all of time, time-major (frame
t's tokens of the block, then frame t + 1's), with a state of its own: temporal neighbours are b_h * b_w positions
apart, not h * w, and the total state grows with the number of blocks.
"""

from einops import rearrange, repeat
from tensordict import TensorDict
from torch import Tensor

from worldmodel.mamba2 import Mamba2
from worldmodel.mixers.base import Mixer


class BlockSSM(Mixer):
    """Mamba-2 over each block. Memory's batch is B; the blocks are its second dimension."""

    def __init__(
        self,
        width: int,
        grid: tuple[int, int],
        block: tuple[int, int],
        expand: int = 2,
        headdim: int = 64,
        state: int = 128,
    ):
        super().__init__()
        if grid[0] % block[0] or grid[1] % block[1]:
            raise ValueError(f"block {block[0]}x{block[1]} does not divide the grid of {grid[0]}x{grid[1]} tokens")
        self.block = block
        self.rows, self.columns = grid[0] // block[0], grid[1] // block[1]  # of blocks
        self.mamba = Mamba2(width, expand, headdim, state, positions=block[0] * block[1])
        self.state_width = expand * width * state

    def initial(self, batch: int) -> TensorDict:
        """Zero states, (B, blocks, ...)."""
        blocks = self.rows * self.columns
        memory = self.mamba.initial(batch * blocks).reshape(batch, blocks)
        return TensorDict(dict(memory.items()), batch_size=[batch])

    def forward(self, x: Tensor, memory: TensorDict, reset: Tensor, state_interval: int) -> tuple[Tensor, TensorDict]:
        """See `Mixer`."""
        B, T = x.shape[:2]
        blocks, size = self.rows * self.columns, self.block[0] * self.block[1]
        shape = {"r": self.rows, "c": self.columns, "i": self.block[0], "j": self.block[1]}
        u = rearrange(x, "b t (r i c j) d -> (b r c) (t i j) d", **shape)
        # a reset stands at the first token of its frame, once for every block
        first = reset.new_zeros(B, blocks, T, size)
        first[..., 0] = reset.unsqueeze(1)
        flat = TensorDict({k: v.flatten(0, 1) for k, v in memory.items()}, batch_size=[B * blocks])
        y, memories = self.mamba(u, flat, first.reshape(B * blocks, T * size), state_interval * size)
        K = memories.shape[1]
        kept = {k: v.unflatten(0, (B, blocks)).transpose(1, 2) for k, v in memories.items()}  # (B, K, blocks, ...)
        y = rearrange(y, "(b r c) (t i j) d -> b t (r i c j) d", b=B, t=T, **shape)
        return y, TensorDict(kept, batch_size=[B, K])

    def recurrent_state(self, memory: TensorDict) -> Tensor:
        """See `Mixer`: one for each block."""
        return memory["ssm"].flatten(-3)

    def spread(self, x: Tensor) -> Tensor:
        """See `Mixer`."""
        shape = {"r": self.rows, "c": self.columns, "i": self.block[0], "j": self.block[1]}
        return repeat(x, "... (r c) f -> ... (r i c j) f", **shape)
