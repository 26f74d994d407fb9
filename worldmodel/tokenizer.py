"""Frame <-> grid of tokens: patches for images, an MLP and a single token for vectors."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldmodel.heads import symexp, symlog
from worldmodel.norm import RMSNorm, RunningNorm

GRID = 4


class MixerLayer(nn.Module):
    """A layer of MLP-Mixer (Tolstikhin et al. 2021): an MLP across a frame's tokens, one across each token's width.

    Both are residual. Matrix products alone, which every machine is quick at.
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
    """Tokens in, tokens out: narrowed or widened, told their place, mixed by `layers` layers, normalised."""

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
        height, breadth, colours = shape
        if height % GRID or breadth % GRID or min(height, breadth) < 2 * GRID:
            raise ValueError(f"images of {height}x{breadth} pixels: want sides of 8 or more that {GRID} divides")
        self.shape, self.width = shape, width
        self.patch = {"h": GRID, "w": GRID, "p": height // GRID, "q": breadth // GRID}
        values = height * breadth * colours // GRID**2
        self.encoder = TokenStack(values, width, layers)
        to_pixels = nn.Linear(width, values)
        nn.init.zeros_(to_pixels.weight)  # gray at first, and no noise from weights that are slow to be taught
        nn.init.constant_(to_pixels.bias, 0.5)
        self.decoder = nn.Sequential(TokenStack(features, width, layers), to_pixels)

    def encode(self, observation: Tensor) -> Tensor:
        """(..., H, W, C) uint8 -> (..., 16, E)"""
        place = observation.device.type
        dtype = (
            torch.get_autocast_dtype(place) if torch.is_autocast_enabled(place) else self.encoder.in_proj.weight.dtype
        )
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
        return reconstruction_losses(
            self.decoder(feature).flatten(0, -3), self._patches(observation).flatten(0, -3), **self.patch
        )

    def update(self, observation: Tensor) -> None:
        """Images need no normalisation learnt from data."""


class VectorTokenizer(nn.Module):
    """(..., V) float -> (..., 1, E) and (..., 1, F) -> (..., V).

    Values are normalised by what was seen in training, and squeezed by symlog should they stray far.
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
        """(squared error of normal values, summed over a vector; 0: vectors have no perceptual term)."""
        error = self.decoder(feature).squeeze(-2).float() - symlog(self.norm(observation))
        return error.square().sum(-1).mean(), error.new_zeros(())

    def update(self, observation: Tensor) -> None:
        """Takes training observations (..., V) into the normalisation."""
        self.norm.update(observation)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity of images (..., H, W, C) in 0..1 (Wang et al. 2004), over square windows of 8.

    Windows are uniform and 4 pixels apart, not Gaussian at every pixel: the same measure at a sixteenth of the cost,
    for a loss. Gray means of the channels are compared.
    """
    return gray_ssim(*(image.flatten(0, -4).mean(-1) for image in (a, b)))


def gray_ssim(x: Tensor, y: Tensor) -> Tensor:
    """`ssim` of gray images (frames, H, W)."""

    def mean(values: Tensor) -> Tensor:  # over what two windows share first: quicker than over each window
        return F.avg_pool2d(F.avg_pool2d(values, 4), 2, 1)

    mean_x, mean_y = mean(x), mean(y)
    product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    covariance, variances = mean(x * y) - product, mean(x * x + y * y) - squares
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))).mean()


def reconstruction_losses(painted: Tensor, truth: Tensor, h: int, w: int, p: int, q: int) -> tuple[Tensor, Tensor]:
    """(squared error of a frame, 1 - SSIM), means over frames, of h x w patches of p x q pixels (frames, h w, p q c).

    `painted` are in about 0..1 and get gradients; `truth` are uint8.
    """
    return _ReconstructionLosses.apply(painted, truth, {"h": h, "w": w, "p": p, "q": q})


class _ReconstructionLosses(torch.autograd.Function):
    """Both at once, with their slopes, and a few frames at a time: pixels are an update's largest tensors, and stay in
    a CPU's cache so."""

    FRAMES = 32

    @staticmethod
    def forward(ctx: Any, painted: Tensor, truth: Tensor, patch: dict[str, int]) -> tuple[Tensor, Tensor]:
        frames = len(truth) if truth.is_cuda else _ReconstructionLosses.FRAMES
        wide = torch.promote_types(painted.dtype, torch.float32)
        colours = truth.shape[-1] // (patch["p"] * patch["q"])
        squared = unlike = painted.new_zeros((), dtype=wide)
        slopes = torch.empty_like(painted), torch.empty_like(painted)
        with torch.autocast(truth.device.type, enabled=False):  # variances are small differences of large numbers
            for given, true, *onto in zip(*(x.split(frames) for x in (painted, truth, *slopes)), strict=True):
                pair = given.to(wide, copy=True), true.to(wide).div_(255)
                x, y = (_gray(values, patch) for values in pair)
                with torch.enable_grad():
                    part = gray_ssim(x.requires_grad_(), y) * (len(true) / len(truth))
                    (slope,) = torch.autograd.grad(-part / colours, x)
                gap = pair[0].sub_(pair[1])
                squared = squared + torch.linalg.vector_norm(gap) ** 2 / len(truth)
                unlike = unlike - part.detach()
                onto[0].copy_(gap.mul_(2 / len(truth)))
                spread = rearrange(slope.to(onto[1].dtype), "f (h p) (w q) -> f (h w) (p q) 1", **patch)
                onto[1].unflatten(-1, (spread.shape[-2], -1)).copy_(spread)
        ctx.save_for_backward(*slopes)
        return squared, 1 + unlike

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, onto_squared: Tensor, onto_unlike: Tensor) -> tuple[Tensor, None, None]:
        far, unlike = ctx.saved_tensors
        return torch.addcmul(far * onto_squared.to(far.dtype), unlike, onto_unlike.to(far.dtype)), None, None


def _gray(patches: Tensor, patch: dict[str, int]) -> Tensor:
    """Values (f, h w, p q c) -> gray images (f, H, W)."""
    each = patches.unflatten(-1, (patch["p"] * patch["q"], -1))
    gray = each @ each.new_full((each.shape[-1],), 1 / each.shape[-1])
    return rearrange(gray, "f (h w) (p q) -> f (h p) (w q)", **patch)
