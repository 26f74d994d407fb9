"""DreamerV3's encoder and decoder of vectors (Hafner et al. 2023, and the authors' code): MLPs on symlog values."""

import torch
from torch import Tensor, nn

from worldmodel.dense import mlp, start
from worldmodel.heads import symexp, symlog
from worldmodel.sizes import Widths

LAYERS = 3


class VectorCoder(nn.Module):
    """(..., V) -> (..., E), and (..., D), (..., Z) -> (..., V)."""

    def __init__(self, shape: tuple[int, ...], widths: Widths):
        super().__init__()
        self.width = widths.hidden
        self.encoder = mlp(shape[0], widths.hidden, LAYERS)
        self.decoder = nn.Sequential(
            mlp(widths.deter + widths.latent, widths.hidden, LAYERS), start(nn.Linear(widths.hidden, shape[0]))
        )

    def encode(self, observation: Tensor) -> Tensor:
        """(..., V) -> (..., E)"""
        return self.encoder(symlog(observation))

    def decode(self, h: Tensor, z: Tensor) -> Tensor:
        """(..., D), (..., Z) -> (..., V)"""
        return symexp(self._symlogs(h, z))

    def loss(self, h: Tensor, z: Tensor, observation: Tensor) -> Tensor:
        """Squared error of symlog values, summed over a vector, mean over frames."""
        return (self._symlogs(h, z) - symlog(observation)).square().sum(-1).mean()

    def _symlogs(self, h: Tensor, z: Tensor) -> Tensor:
        out = self.decoder(torch.cat([h, z], -1))
        return out.to(torch.promote_types(out.dtype, torch.float32))
