"""DreamerV3's image encoder and decoder (Hafner et al. 2023, and the authors' code): convolutions of 5x5 and pooling.

Up to four times: convolution, half the size by the largest of 2x2, RMSNorm over channels, SiLU. The decoder goes the
same way back by repeated pixels. The channels are multiples of one depth.

Letters: M frames, D width of h, Z of z, C colours.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldmodel.block_gru import BLOCKS, BlockLinear
from worldmodel.dense import dense, norm, start
from worldmodel.sizes import Widths

MULTIPLES = (2, 3, 4, 4)
"""Channels of each level, in depths."""
KERNEL = 5
LEAST, MOST = 3, 16
"""Pixels of a side at the lowest level. An image too small for four halvings is given fewer."""


class ImageCoder(nn.Module):
    """(..., H, W, C) uint8 -> (..., E), and (..., D), (..., Z) -> (..., H, W, C) in 0..1."""

    def __init__(self, shape: tuple[int, ...], widths: Widths):
        super().__init__()
        self.shape = shape
        small = lowest(shape[:2])
        self.small = small[-1]
        channels = [widths.depth * multiple for multiple in MULTIPLES[: len(small)]]
        self.width = math.prod(self.small) * channels[-1]
        self.encoder = nn.Sequential(*(Down(i, o) for i, o in pairwise([shape[2], *channels])))
        self.from_h = BlockLinear(widths.deter, self.width, math.gcd(BLOCKS, channels[-1]))
        self.from_z = nn.Sequential(
            dense(widths.latent, 2 * widths.hidden), start(nn.Linear(2 * widths.hidden, self.width))
        )
        self.norm = norm(channels[-1])
        self.decoder = nn.Sequential(*(Up(i, o) for i, o in pairwise(channels[::-1])))
        self.to_pixels = start(nn.Conv2d(channels[0], shape[2], KERNEL, padding="same"))

    def encode(self, observation: Tensor) -> Tensor:
        """(..., H, W, C) uint8 -> (..., E)"""
        x = observation.flatten(0, -4).permute(0, 3, 1, 2)  # (M, C, H, W), in memory as it was: channels last
        x = self.encoder(x.to(self.to_pixels.weight.dtype, copy=True).div_(255).sub_(0.5))
        return x.permute(0, 2, 3, 1).reshape(*observation.shape[:-3], -1)

    def decode(self, h: Tensor, z: Tensor) -> Tensor:
        """(..., D), (..., Z) -> (..., H, W, C) float in 0..1"""
        height, width = self.small
        lead = h.shape[:-1]
        groups = len(self.from_h.weight)
        from_h = rearrange(
            self.from_h(h.reshape(-1, h.shape[-1])), "m (g h w c) -> m h w (g c)", g=groups, h=height, w=width
        )
        x = F.silu(self.norm(from_h + self.from_z(z.reshape(-1, z.shape[-1])).view_as(from_h)))
        x = self.to_pixels(twice(self.decoder(x.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1)
        x = x[:, : self.shape[0], : self.shape[1]]  # an odd side was halved upwards
        x = x.reshape(*lead, *self.shape)
        return x.to(torch.promote_types(x.dtype, torch.float32)).sigmoid()

    def loss(self, h: Tensor, z: Tensor, observation: Tensor) -> Tensor:
        """Squared error of the decoded frames, summed over a frame's values, mean over frames."""
        decoded = self.decode(h, z)
        truth = observation.to(decoded.dtype, copy=True).div_(255)
        return F.mse_loss(decoded, truth, reduction="sum") / decoded.shape[:-3].numel()


class Down(nn.Module):
    """(M, i, H, W) -> (M, o, H / 2, W / 2)"""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = start(nn.Conv2d(inputs, outputs, KERNEL, padding="same"))
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """A side that is odd is halved upwards."""
        return _normal(F.max_pool2d(self.conv(x), 2, ceil_mode=True), self.norm)


class Up(nn.Module):
    """(M, i, H, W) -> (M, o, 2 H, 2 W)"""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = start(nn.Conv2d(inputs, outputs, KERNEL, padding="same"))
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Each pixel four times, then the convolution."""
        return _normal(self.conv(twice(x)), self.norm)


def lowest(size: tuple[int, ...]) -> list[tuple[int, int]]:
    """The sizes (height, width) that an image of this one is halved to, by level.

    Raises ValueError, of one line, where it cannot be halved once, or stays too large.
    """
    levels = []
    height, width = size
    for _ in MULTIPLES:
        height, width = (height + 1) // 2, (width + 1) // 2
        if min(height, width) >= LEAST:
            levels.append((height, width))
    if not levels or max(levels[-1]) > MOST:
        most = MOST * 2 ** len(MULTIPLES)
        raise ValueError(
            f"images of {size[0]}x{size[1]} pixels: want sides of {2 * LEAST - 1} to {most}, none many times the other"
        )
    return levels


def twice(x: Tensor) -> Tensor:
    """(M, C, H, W) -> (M, C, 2 H, 2 W), each pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _normal(x: Tensor, over_channels: nn.Module) -> Tensor:
    """SiLU of (M, C, H, W) normalised at each pixel."""
    return F.silu(over_channels(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
