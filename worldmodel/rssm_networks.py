"""DreamerV3's networks (Hafner et al. 2023, arXiv 2301.04104, and the authors' code): block GRU, encoders, decoders.

Letters: M frames, B batch, D width of h, Z of z, A actions, E of an encoded frame, C channels, G blocks.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldmodel.heads import symexp, symlog
from worldmodel.norm import RMSNorm

SIZES = {"1M": 64, "12M": 256, "25M": 384, "50M": 512, "100M": 768, "200M": 1024}
"""Units of a hidden layer by the name of a published size, which counts the parameters of a whole agent, about."""
CATEGORICALS = 32
"""Categorical variables of a frame's latent, at every size."""
BLOCKS = 8
"""Blocks of the recurrent weights."""
MULTIPLES = (2, 3, 4, 4)
"""Channels of each level of the convolutions, in depths."""
KERNEL = 5
MIN_SIDE, MAX_SIDE = 3, 16
"""Pixels of a side at the lowest level. Images too small for four halvings are halved less often."""
VECTOR_LAYERS = 3
"""Layers of a vector's encoder, and of its decoder."""


@dataclass(frozen=True)
class Widths:
    """Every width of a model whose hidden layers have `hidden` units, in the proportions of all published sizes."""

    hidden: int

    @property
    def deter(self) -> int:
        """Width of the recurrent state h: D."""
        return 8 * self.hidden

    @property
    def classes(self) -> int:
        """Classes of each categorical; at least those of the smallest published size."""
        return max(4, round(self.hidden / 16))

    @property
    def depth(self) -> int:
        """The unit of the convolutions' channels; at least that of the smallest published size."""
        return max(4, round(self.hidden / 16))

    @property
    def latent(self) -> int:
        """Width of a one-hot latent z: Z."""
        return CATEGORICALS * self.classes


# layers


def init_linear(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """The layer with biases of zero and weights of variance 1 / inputs, from a normal cut off at two deviations."""
    assert layer.bias is not None
    truncated_normal_(layer.weight, layer.weight[0].numel())
    nn.init.zeros_(layer.bias)
    return layer


def truncated_normal_(weight: Tensor, inputs: int) -> None:
    """Fills a weight; the factor gives back the variance that the cut takes."""
    std = 1.1368 * inputs**-0.5
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def rms_norm(width: int) -> RMSNorm:
    """RMSNorm over the last axis."""
    return RMSNorm(width, eps=1e-4)


def dense(inputs: int, outputs: int) -> nn.Sequential:
    """Linear, RMSNorm, SiLU."""
    return nn.Sequential(init_linear(nn.Linear(inputs, outputs)), rms_norm(outputs), nn.SiLU())


def mlp(inputs: int, units: int, layers: int) -> nn.Sequential:
    """`layers` dense layers."""
    return nn.Sequential(*(dense(units if i else inputs, units) for i in range(layers)))


def widen(x: Tensor) -> Tensor:
    """float32 or wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Head(nn.Sequential):
    """A feature (..., 1, F) -> (..., outputs), float32 or wider: one hidden layer.

    The last layer starts at `scale` times its weights: at 0 the first predictions are neutral.
    """

    def __init__(self, inputs: int, units: int, outputs: int, scale: float = 1.0):
        out = init_linear(nn.Linear(units, outputs))
        with torch.no_grad():
            out.weight.mul_(scale)
        super().__init__(mlp(inputs, units, 1), out)

    def forward(self, feature: Tensor) -> Tensor:
        """(..., 1, F) -> (..., outputs)"""
        return widen(super().forward(feature.squeeze(-2)))


# sequence model


class BlockLinear(nn.Module):
    """A linear layer whose weight is block-diagonal: (..., G * inputs) -> (..., G * outputs)."""

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
    """One step of the sequence model: a GRU with block-diagonal recurrent weights.

    With [.] concatenation and g one of G blocks of the state's units::

        x   = [dense(h), dense(z), dense(a)]                  read by every block
        y   = silu(norm([W_g [h_g, x] + b_g  for each g]))    one norm over all blocks
        r_g, c_g, u_g = three parts of  V_g y_g + d_g
        h'  = u * tanh(r * c) + (1 - u) * h                   r = sigmoid(r_g ...), u = sigmoid(u_g ... - 1)

    The -1 makes a new unit keep its state: u starts at 0.27.
    """

    def __init__(self, deter: int, latent: int, actions: int, hidden: int):
        super().__init__()
        self.in_h, self.in_z, self.in_action = (dense(width, hidden) for width in (deter, latent, actions))
        self.hidden = BlockLinear(deter + BLOCKS * 3 * hidden, deter, BLOCKS)
        self.norm = rms_norm(deter)
        self.gates = BlockLinear(deter, 3 * deter, BLOCKS)

    def forward(self, h: Tensor, z: Tensor, action: Tensor) -> Tensor:
        """h (B, D), z (B, Z), action (B, A) -> h (B, D), in the type of h."""
        x = torch.cat([self.in_h(h), self.in_z(z), self.in_action(action)], -1)  # (B, 3 hidden)
        inputs = torch.cat([by_block(h).to(x.dtype), x.unsqueeze(1).expand(-1, BLOCKS, -1)], -1)
        y = F.silu(self.norm(self.hidden(inputs.flatten(1))))
        reset, candidate, update = (part.flatten(1) for part in by_block(self.gates(y)).to(h.dtype).chunk(3, -1))
        candidate = torch.tanh(reset.sigmoid() * candidate)
        return torch.lerp(h, candidate, (update - 1).sigmoid())


def by_block(x: Tensor) -> Tensor:
    """(B, D) -> (B, G, D / G)"""
    return x.unflatten(-1, (BLOCKS, -1))


class Posterior(nn.Module):
    """Logits of z_t from h_t and the encoded frame. The frame's part is computed for all frames at once."""

    def __init__(self, deter: int, encoded: int, hidden: int, outputs: int):
        super().__init__()
        # one layer that reads [h, e], in the two parts of its product
        whole = init_linear(nn.Linear(deter + encoded, hidden))
        self.from_h, self.from_frame = nn.Linear(deter, hidden, bias=False), nn.Linear(encoded, hidden)
        with torch.no_grad():
            self.from_h.weight.copy_(whole.weight[:, :deter])
            self.from_frame.weight.copy_(whole.weight[:, deter:])
            self.from_frame.bias.zero_()
        self.rest = nn.Sequential(rms_norm(hidden), nn.SiLU())
        self.logits = init_linear(nn.Linear(hidden, outputs))

    def forward(self, h: Tensor, frame: Tensor) -> Tensor:
        """h (B, D) and `from_frame` of the encoded frame (B, hidden) -> (B, Z)"""
        return self.logits(self.rest(self.from_h(h) + frame))


# encoders and decoders


class VectorCoder(nn.Module):
    """MLPs on symlog values: (..., V) -> (..., E), and (..., D), (..., Z) -> (..., V)."""

    def __init__(self, shape: tuple[int, ...], widths: Widths):
        super().__init__()
        self.width = widths.hidden
        self.encoder = mlp(shape[0], widths.hidden, VECTOR_LAYERS)
        self.decoder = nn.Sequential(
            mlp(widths.deter + widths.latent, widths.hidden, VECTOR_LAYERS),
            init_linear(nn.Linear(widths.hidden, shape[0])),
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
        return widen(self.decoder(torch.cat([h, z], -1)))


class ImageCoder(nn.Module):
    """Convolutions of 5x5: (..., H, W, C) uint8 -> (..., E), and (..., D), (..., Z) -> (..., H, W, C) in 0..1.

    The encoder has up to four levels: convolution, half the size by the largest of 2x2, RMSNorm over channels, SiLU.
    The decoder goes the same way back by repeated pixels.
    """

    def __init__(self, shape: tuple[int, ...], widths: Widths):
        super().__init__()
        self.shape = shape
        levels = halvings(shape[:2])
        self.lowest = levels[-1]
        channels = [widths.depth * multiple for multiple in MULTIPLES[: len(levels)]]
        self.width = math.prod(self.lowest) * channels[-1]
        self.encoder = nn.Sequential(*(Down(i, o) for i, o in pairwise([shape[2], *channels])))
        self.from_h = BlockLinear(widths.deter, self.width, math.gcd(BLOCKS, channels[-1]))
        self.from_z = nn.Sequential(
            dense(widths.latent, 2 * widths.hidden), init_linear(nn.Linear(2 * widths.hidden, self.width))
        )
        self.norm = rms_norm(channels[-1])
        self.decoder = nn.Sequential(*(Up(i, o) for i, o in pairwise(channels[::-1])))
        self.to_pixels = init_linear(nn.Conv2d(channels[0], shape[2], KERNEL, padding="same"))

    def encode(self, observation: Tensor) -> Tensor:
        """(..., H, W, C) uint8 -> (..., E)"""
        x = observation.flatten(0, -4).permute(0, 3, 1, 2)  # (M, C, H, W); the memory stays channels last
        x = self.encoder(x.to(self.to_pixels.weight.dtype, copy=True).div_(255).sub_(0.5))
        return x.permute(0, 2, 3, 1).reshape(*observation.shape[:-3], -1)

    def decode(self, h: Tensor, z: Tensor) -> Tensor:
        """(..., D), (..., Z) -> (..., H, W, C) float in 0..1"""
        height, width = self.lowest
        from_h = rearrange(
            self.from_h(h.flatten(0, -2)),
            "m (g h w c) -> m h w (g c)",
            g=len(self.from_h.weight),
            h=height,
            w=width,
        )
        x = F.silu(self.norm(from_h + self.from_z(z.flatten(0, -2)).view_as(from_h)))
        x = self.to_pixels(upsample(self.decoder(x.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1)
        x = x[:, : self.shape[0], : self.shape[1]]  # an odd side is halved upwards
        return widen(x.reshape(*h.shape[:-1], *self.shape)).sigmoid()

    def loss(self, h: Tensor, z: Tensor, observation: Tensor) -> Tensor:
        """Squared error of the decoded frames, summed over a frame's values, mean over frames."""
        decoded = self.decode(h, z)
        truth = observation.to(decoded.dtype, copy=True).div_(255)
        return F.mse_loss(decoded, truth, reduction="sum") / decoded.shape[:-3].numel()


class Level(nn.Module):
    """A convolution, and RMSNorm over the channels of each pixel."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = init_linear(nn.Conv2d(inputs, outputs, KERNEL, padding="same"))
        self.norm = rms_norm(outputs)

    def _activate(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class Down(Level):
    """(M, i, H, W) -> (M, o, H / 2, W / 2); an odd side is halved upwards."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolution, then the largest of each 2x2 pixels."""
        return self._activate(F.max_pool2d(self.conv(x), 2, ceil_mode=True))


class Up(Level):
    """(M, i, H, W) -> (M, o, 2 H, 2 W)"""

    def forward(self, x: Tensor) -> Tensor:
        """Each pixel four times, then the convolution."""
        return self._activate(self.conv(upsample(x)))


def halvings(size: tuple[int, ...]) -> list[tuple[int, int]]:
    """The sizes (height, width) that an image of this size is halved to, by level.

    Raises ValueError, of one line, for an image that cannot be halved once, or that stays too large.
    """
    levels = []
    height, width = size
    for _ in MULTIPLES:
        height, width = (height + 1) // 2, (width + 1) // 2
        if min(height, width) >= MIN_SIDE:
            levels.append((height, width))
    if not levels or max(levels[-1]) > MAX_SIDE:
        most = MAX_SIDE * 2 ** len(MULTIPLES)
        raise ValueError(
            f"images of {size[0]}x{size[1]} pixels: want sides of {2 * MIN_SIDE - 1} to {most}, none many times the "
            f"other"
        )
    return levels


def upsample(x: Tensor) -> Tensor:
    """(M, C, H, W) -> (M, C, 2 H, 2 W), each pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
