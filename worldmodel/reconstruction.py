"""How far decoded images are from observed ones: squared error, and structural similarity (SSIM).

Images are also given as patches (frames, h w, p q c): h x w patches of p x q pixels, as a tokenizer has them.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

CPU_FRAMES = 32
"""Frames compared at once on a CPU: pixels are the largest tensors of an update, and so few stay in its cache."""


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity of images (..., H, W, C) in 0..1 (Wang et al. 2004), over square windows of 8.

    Windows are uniform and 4 pixels apart, in place of a Gaussian at every pixel: a sixteenth of the cost. Compares
    the gray means of the channels.
    """
    return gray_ssim(*(image.flatten(0, -4).mean(-1) for image in (a, b)))


def gray_ssim(x: Tensor, y: Tensor) -> Tensor:
    """`ssim` of gray images (frames, H, W)."""

    def mean(values: Tensor) -> Tensor:  # of windows, from the parts that two of them share
        return F.avg_pool2d(F.avg_pool2d(values, 4), 2, 1)

    mean_x, mean_y = mean(x), mean(y)
    product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    covariance, variances = mean(x * y) - product, mean(x * x + y * y) - squares
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))).mean()


def gray(patches: Tensor, patch: dict[str, int]) -> Tensor:
    """Patches (frames, h w, p q c) -> gray images (frames, H, W)."""
    pixels = patches.unflatten(-1, (patch["p"] * patch["q"], -1))
    means = pixels @ pixels.new_full((pixels.shape[-1],), 1 / pixels.shape[-1])
    return rearrange(means, "f (h w) (p q) -> f (h p) (w q)", **patch)


def reconstruction_losses(decoded: Tensor, truth: Tensor, patch: dict[str, int]) -> tuple[Tensor, Tensor]:
    """(squared error of a frame, 1 - SSIM), means over frames.

    Args:
        decoded: patches in about 0..1, with gradients.
        truth: patches, uint8.
        patch: the numbers h, w, p and q.
    """
    frames = len(decoded)
    squared = similarity = torch.zeros((), device=decoded.device)
    with torch.autocast(decoded.device.type, enabled=False):  # variances are small differences of large numbers
        at_once = frames if decoded.is_cuda else CPU_FRAMES
        for x, y in zip(decoded.split(at_once), truth.split(at_once), strict=True):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            y = y.to(x.dtype).div_(255)
            squared = squared + (x - y).square().sum() / frames
            similarity = similarity + gray_ssim(gray(x, patch), gray(y, patch)) * (len(x) / frames)
    return squared, 1 - similarity
