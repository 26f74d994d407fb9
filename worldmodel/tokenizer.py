"""Frame <-> grid of tokens: convolutions for images, an MLP and a single token for vectors.

An image tokenizer halves the frame until the grid is 4x4 (32 and 64 pixels alike).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.heads import symexp, symlog
from worldmodel.norm import RMSNorm, RunningNorm

GRID = 4


class ImageTokenizer(nn.Module):
    """(..., H, W, C) uint8 -> (..., 16, E) and (..., 16, F) -> (..., H, W, C) in 0..1."""

    grid = (GRID, GRID)

    def __init__(self, shape: tuple[int, ...], channels: int, features: int):
        super().__init__()
        size, _, colours = shape
        halvings = (size // GRID).bit_length() - 1
        if shape[0] != shape[1] or GRID << halvings != size or not 2 <= halvings <= 5:
            raise ValueError(f"images of {shape[0]}x{shape[1]} pixels: want square ones of 16, 32, 64 or 128")
        self.shape = shape
        widths = [channels << i for i in range(halvings)]  # from the finest grid to the coarsest
        self.width = widths[-1]
        down: list[nn.Module] = []
        for i, o in zip([colours, *widths], widths, strict=False):
            down += [nn.Conv2d(i, o, 4, 2, 1), nn.SiLU()]
        self.encoder = nn.Sequential(*down[:-1])
        self.norm = RMSNorm(self.width, eps=1e-5)  # the posterior's logits start at a known scale
        self.unembed = nn.Linear(features, self.width)
        up: list[nn.Module] = []
        for i, o in zip(widths[::-1], widths[-2::-1], strict=False):
            up += [nn.SiLU(), nn.ConvTranspose2d(i, o, 4, 2, 1)]
        # a quarter-size image with four times the channels, unfolded: cheaper than convolving at full size
        up += [nn.SiLU(), nn.Conv2d(channels, 4 * colours, 3, padding=1), nn.PixelShuffle(2)]
        self.decoder = nn.Sequential(*up)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, observation: Tensor) -> Tensor:
        """(..., H, W, C) uint8 -> (..., 16, E)"""
        lead = observation.shape[:-3]
        # a permuted view of (H, W, C) is channels-last already
        x = observation.flatten(0, -4).permute(0, 3, 1, 2).to(self.unembed.weight.dtype) / 255 - 0.5
        return self.norm(self.encoder(x).flatten(2).transpose(1, 2)).unflatten(0, lead)

    def decode(self, feature: Tensor) -> Tensor:
        """(..., 16, F) -> (..., H, W, C), about 0..1 and not clipped."""
        lead = feature.shape[:-2]
        x = self.unembed(feature).flatten(0, -3).transpose(1, 2).unflatten(2, self.grid)
        x = self.decoder(x.contiguous(memory_format=torch.channels_last))
        return x.permute(0, 2, 3, 1).float().add(0.5).unflatten(0, lead)

    def losses(self, feature: Tensor, observation: Tensor) -> tuple[Tensor, Tensor]:
        """(squared error, 1 - SSIM) of decoded frames, the first summed over a frame's values, means over frames."""
        decoded = self.decode(feature)
        truth = observation.to(decoded.dtype) / 255
        return (decoded - truth).square().sum((-1, -2, -3)).mean(), 1 - ssim(decoded, truth)

    def update(self, observation: Tensor) -> None:
        """Images need no normalisation learnt from data."""


class VectorTokenizer(nn.Module):
    """(..., V) float -> (..., 1, E) and (..., 1, F) -> (..., V).

    Values are normalised by what was seen in training, and squeezed by symlog should they stray far.
    """

    grid = (1, 1)

    def __init__(self, shape: tuple[int, ...], channels: int, features: int):
        super().__init__()
        self.shape = shape
        self.width = 8 * channels
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
        """(squared error of normal values, summed over a vector; 0: vectors have no perceptual term)."""
        error = self.decoder(feature).squeeze(-2).float() - symlog(self.norm(observation))
        return error.square().sum(-1).mean(), error.new_zeros(())

    def update(self, observation: Tensor) -> None:
        """Takes training observations (..., V) into the normalisation."""
        self.norm.update(observation)


def ssim(a: Tensor, b: Tensor, window: int = 8, stride: int = 4) -> Tensor:
    """Mean structural similarity of images (..., H, W, C) in 0..1 (Wang et al. 2004), over square windows.

    Windows are uniform and `stride` pixels apart, not Gaussian at every pixel: the same measure at a sixteenth of
    the cost, for a loss. Gray means of the channels are compared.
    """
    x = torch.stack([a.mean(-1), b.mean(-1)], 0).flatten(1, -3)  # (2, frames, H, W)

    def mean(y: Tensor) -> Tensor:
        return F.avg_pool2d(y, window, stride)

    mu = mean(x)
    var = mean(x * x) - mu * mu
    cov = mean(x[0] * x[1]) - mu[0] * mu[1]
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mu[0] * mu[1] + c1) * (2 * cov + c2)
    return (top / ((mu[0] ** 2 + mu[1] ** 2 + c1) * (var[0] + var[1] + c2))).mean()
