"""DreamerV3's sequence model (Hafner et al. 2023, and the authors' code): a GRU of block-diagonal recurrent weights.

With h the state before, z the latents before and a the action, in which [.] is concatenation, g one of G blocks of
the state's units, and all else as `worldmodel.dense`::

    x   = [dense(h), dense(z), dense(a)]                  read by every block
    y   = silu(norm([W_g [h_g, x] + b_g  for each g]))    the norm is over all blocks
    r_g, c_g, u_g = three parts of  V_g y_g + d_g
    h'  = u * tanh(r * c) + (1 - u) * h                   r = sigmoid(r_g ...), u = sigmoid(u_g ... - 1)

The -1 makes a new unit keep its state: u begins at 0.27.

Letters: B batch, D width of the state, G blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.dense import dense, norm, truncated_normal_

BLOCKS = 8


class BlockLinear(nn.Module):
    """A linear layer of blocks that do not see each other: (..., G * inputs) -> (..., G * outputs)."""

    def __init__(self, inputs: int, outputs: int, blocks: int):
        super().__init__()
        if inputs % blocks or outputs % blocks:
            raise ValueError(f"{blocks} blocks do not divide {inputs} inputs and {outputs} outputs evenly")
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(blocks, 1, outputs // blocks))
        truncated_normal_(self.weight, inputs)  # of all blocks together, as in the authors' code

    def forward(self, x: Tensor) -> Tensor:
        """(..., G * inputs) -> (..., G * outputs)"""
        blocks = x.flatten(0, -2).unflatten(-1, (len(self.weight), -1)).transpose(0, 1)  # (G, B, inputs)
        out = torch.baddbmm(self.bias, blocks, self.weight)
        return out.transpose(0, 1).reshape(*x.shape[:-1], -1)


class BlockGRU(nn.Module):
    """One step of the recurrence: h, z, action -> h."""

    def __init__(self, deter: int, latent: int, actions: int, hidden: int):
        super().__init__()
        self.in_h, self.in_z, self.in_action = (dense(width, hidden) for width in (deter, latent, actions))
        self.hidden = BlockLinear(deter + BLOCKS * 3 * hidden, deter, BLOCKS)
        self.norm = norm(deter)
        self.gates = BlockLinear(deter, 3 * deter, BLOCKS)

    def forward(self, h: Tensor, z: Tensor, action: Tensor) -> Tensor:
        """h (B, D), z (B, Z), action (B, A) -> h (B, D), in the precision that it came in."""
        x = torch.cat([self.in_h(h), self.in_z(z), self.in_action(action)], -1)  # (B, 3 hidden)
        read = torch.cat([by_block(h).to(x.dtype), x.unsqueeze(1).expand(-1, BLOCKS, -1)], -1)
        y = F.silu(self.norm(self.hidden(read.flatten(1))))
        reset, candidate, update = (part.flatten(1) for part in by_block(self.gates(y)).to(h.dtype).chunk(3, -1))
        candidate = torch.tanh(reset.sigmoid() * candidate)
        return torch.lerp(h, candidate, (update - 1).sigmoid())


def by_block(x: Tensor) -> Tensor:
    """(B, D) -> (B, G, D / G)"""
    return x.unflatten(-1, (BLOCKS, -1))
