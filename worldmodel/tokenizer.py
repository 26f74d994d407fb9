"""Frame <-> grid of tokens: patches for images, an MLP and a single token for vectors."""

import torch
from einops import rearrange
from torch import Tensor, nn

from worldmodel.heads import symexp, symlog
from worldmodel.norm import RMSNorm, RunningNorm
from worldmodel.reconstruction import reconstruction_losses

GRID = 4


class MixerLayer(nn.Module):
    """A layer of MLP-Mixer (Tolstikhin et al. 2021): an MLP across a frame's tokens, one across each token's width.

    Both are residual, and matrix products alone.
    """

    def __init__(self, tokens: int, width: int):
        super().__init__()
        self.norms = nn.ModuleList(RMSNorm(width, eps=1e-5) for _ in range(2))
        self.token_mlp = nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.SiLU(), nn.Linear(2 * tokens, tokens))
        self.channel_mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.SiLU(), nn.Linear(3 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., N, D) -> (..., N, D)"""
        x = x + self.token_mlp(self.norms[0](x).transpose(-1, -2)).transpose(-1, -2)
        return x + self.channel_mlp(self.norms[1](x))


class TokenStack(nn.Module):
    """(..., 16, inputs) -> (..., 16, width): a projection, position embeddings, `layers` layers and a norm."""

    def __init__(self, inputs: int, width: int, layers: int):
        super().__init__()
        self.in_proj = nn.Linear(inputs, width)
        self.pos_emb = nn.Parameter(torch.randn(GRID**2, width) * 0.02)
        self.layers = nn.Sequential(*(MixerLayer(GRID**2, width) for _ in range(layers)))
        self.norm = RMSNorm(width, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """(..., 16, inputs) -> (..., 16, width)"""
        x = self.in_proj(x)
        return self.norm(self.layers(x + self.pos_emb.to(x.dtype)))


class ImageTokenizer(nn.Module):
    """(..., H, W, C) uint8 -> (..., 16, E) and (..., 16, F) -> (..., H, W, C) in about 0..1: a patch of 4x4 a token."""

    grid = (GRID, GRID)

    def __init__(self, shape: tuple[int, ...], width: int, layers: int, features: int):
        super().__init__()
        height, breadth, channels = shape
        if height % GRID or breadth % GRID or min(height, breadth) < 2 * GRID:
            raise ValueError(f"images of {height}x{breadth} pixels: want sides of 8 or more that {GRID} divides")
        self.shape, self.width = shape, width
        self.patch = {"h": GRID, "w": GRID, "p": height // GRID, "q": breadth // GRID}
        values = height * breadth * channels // GRID**2
        self.encoder = TokenStack(values, width, layers)
        to_pixels = nn.Linear(width, values)
        nn.init.zeros_(to_pixels.weight)  # gray at first, without the noise of untrained weights
        nn.init.constant_(to_pixels.bias, 0.5)
        self.decoder = nn.Sequential(TokenStack(features, width, layers), to_pixels)

    def encode(self, observation: Tensor) -> Tensor:
        """(..., H, W, C) uint8 -> (..., 16, E)"""
        device, dtype = observation.device.type, self.encoder.in_proj.weight.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        # half steps around the middle are exact in bfloat16
        return self.encoder(self._patches(observation).to(dtype).sub_(127.5).div_(255))

    def _patches(self, observation: Tensor) -> Tensor:
        """(..., H, W, C) -> (..., 16, values)"""
        return rearrange(observation, "... (h p) (w q) c -> ... (h w) (p q c)", **self.patch)

    def decode(self, feature: Tensor) -> Tensor:
        """(..., 16, F) -> (..., H, W, C), about 0..1 and not clipped."""
        patches = self.decoder(feature)
        return rearrange(patches, "... (h w) (p q c) -> ... (h p) (w q) c", **self.patch).float()

    def losses(self, feature: Tensor, observation: Tensor) -> tuple[Tensor, Tensor]:
        """(squared error, 1 - SSIM) of decoded frames, the first summed over a frame's values, means over frames."""
        decoded, truth = self.decoder(feature), self._patches(observation)
        return reconstruction_losses(decoded.flatten(0, -3), truth.flatten(0, -3), self.patch)

    def update(self, observation: Tensor) -> None:
        """Images have no running normalisation."""


class VectorTokenizer(nn.Module):
    """(..., V) float -> (..., 1, E) and (..., 1, F) -> (..., V).

    Values are normalised by the running mean and deviation of training, and squeezed by symlog.
    """

    grid = (1, 1)

    def __init__(self, shape: tuple[int, ...], width: int, features: int):
        super().__init__()
        self.shape = shape
        self.width = width
        self.norm = RunningNorm(shape[0])
        self.encoder = nn.Sequential(
            nn.Linear(shape[0], self.width), nn.SiLU(), nn.Linear(self.width, self.width), nn.SiLU()
        )
        self.decoder = nn.Sequential(nn.Linear(features, self.width), nn.SiLU(), nn.Linear(self.width, shape[0]))

    def encode(self, observation: Tensor) -> Tensor:
        """(..., V) -> (..., 1, E)"""
        return self.encoder(symlog(self.norm(observation))).unsqueeze(-2)

    def decode(self, feature: Tensor) -> Tensor:
        """(..., 1, F) -> (..., V)"""
        return self.norm.inverse(symexp(self.decoder(feature).squeeze(-2).float()))

    def losses(self, feature: Tensor, observation: Tensor) -> tuple[Tensor, Tensor]:
        """(squared error of normalised values, summed over a vector, mean over frames; 0: no perceptual term)."""
        error = self.decoder(feature).squeeze(-2).float() - symlog(self.norm(observation))
        return error.square().sum(-1).mean(), error.new_zeros(())

    def update(self, observation: Tensor) -> None:
        """Adds training observations (..., V) to the running normalisation."""
        self.norm.update(observation)
