"""Networks that read a feature, and symexp two-hot regression (DreamerV3, Hafner et al. 2023)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.norm import RMSNorm


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|)"""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of symlog."""
    return x.sign() * x.abs().expm1()


class TokenMLP(nn.Module):
    """A feature (..., N, F) -> (..., outputs): each token projected by shared weights, then an MLP over all.

    The last layer's weights start with a deviation of `scale` / sqrt(units): at 0 the first predictions are neutral.
    """

    def __init__(self, tokens: int, features: int, outputs: int, units: int, layers: int = 1, scale: float = 0.0):
        super().__init__()
        narrow = units if tokens == 1 else min(32, units)
        self.in_proj = nn.Linear(features, narrow)
        self.norm = RMSNorm(tokens * narrow, eps=1e-5)
        sizes = [tokens * narrow] + [units] * layers
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.Linear(i, o, bias=False), RMSNorm(o, eps=1e-5), nn.SiLU())
            for i, o in zip(sizes, sizes[1:], strict=False)
        )
        self.out = nn.Linear(sizes[-1], outputs)
        nn.init.normal_(self.out.weight, std=scale / units**0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, feature: Tensor) -> Tensor:
        """(..., N, F) -> (..., outputs) float32"""
        x = F.silu(self.norm(self.in_proj(feature).flatten(-2)))
        for layer in self.hidden:
            x = layer(x)
        return self.out(x).float()


class TwoHot(nn.Module):
    """Numbers as a distribution over bins that are evenly spaced after symlog."""

    bins: Tensor

    def __init__(self, count: int = 255, limit: float = 20.0):
        super().__init__()
        half = symexp(torch.linspace(-limit, 0, count // 2 + 1, dtype=torch.float64))
        bins = torch.cat([half, -half[:-1].flip(0)])  # exactly symmetric, so that zero logits mean zero
        self.register_buffer("bins", bins.float(), persistent=False)

    def init_output(self, out: nn.Module) -> None:
        """Starts a head's last layer, whose weights are zero, from probabilities proportional to exp(-|symlog(bin)|).

        Each bin then contributes equally to the mean, which is 0. From a uniform start the mean depends for thousands
        of updates on the outermost bins, at 5e8, cancelling out: any asymmetry moves it far off.
        """
        with torch.no_grad():
            out.get_parameter("bias").copy_(-self.bins.abs().log1p())

    def mean(self, logits: Tensor) -> Tensor:
        """(..., bins) -> (...): the expected number."""
        weighted = F.softmax(logits, -1) * self.bins
        half = len(self.bins) // 2
        # the huge outer bins are added pairwise first, so that they cancel
        pairs = weighted[..., :half] + weighted[..., half + 1 :].flip(-1)
        return pairs.flip(-1).sum(-1) + weighted[..., half]

    def target(self, x: Tensor) -> Tensor:
        """(...) -> (..., bins): weights on the two bins next to each number, whose mean it is."""
        x = x.clamp(self.bins[0], self.bins[-1])
        above = torch.searchsorted(self.bins, x.contiguous()).clamp(1, len(self.bins) - 1)
        low, high = self.bins[above - 1], self.bins[above]
        share = ((x - low) / (high - low)).unsqueeze(-1)
        hot = F.one_hot(above, len(self.bins)).to(x.dtype)
        return hot * share + hot.roll(-1, -1) * (1 - share)

    def loss(self, logits: Tensor, x: Tensor) -> Tensor:
        """Cross-entropy (...) of the logits (..., bins) against the number."""
        return -(self.target(x) * F.log_softmax(logits, -1)).sum(-1)
