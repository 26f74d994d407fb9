"""The block-wise scan of LSSVWM (arXiv 2505.20171, section 3.2): Mamba-2 over each spatial block of tokens."""

from tensordict import TensorDict
from torch import Tensor

from worldmodel.mamba2 import Mamba2
from worldmodel.mixers.blocks import BlockMixer


class BlockSSM(BlockMixer):
    """`Mamba2` over each block, with its arguments."""

    def __init__(
        self,
        width: int,
        grid: tuple[int, int],
        block: tuple[int, int],
        expand: int = 2,
        headdim: int = 64,
        state: int = 128,
        normalised: bool = False,
        slow_heads: float = 0.0,
    ):
        """`slow_heads` is a share of the heads."""
        slow = round(slow_heads * (expand * width // headdim))
        positions = block[0] * block[1]
        super().__init__(grid, block, Mamba2(width, expand, headdim, state, positions, normalised, slow))
        self.state_width = expand * width * state

    def recurrent_state(self, memory: TensorDict) -> Tensor:
        """See `Mixer`: one for each block."""
        return memory["ssm"].flatten(-3)
