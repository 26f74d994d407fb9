"""DreamerV3's layers (Hafner et al. 2023, and the authors' code): weights from a truncated normal, RMSNorm, SiLU."""

from torch import Tensor, nn

from worldmodel.norm import RMSNorm

EPSILON = 1e-4
"""Added to the mean square in every norm."""


def start(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """The layer with biases of zero and weights of variance 1 / inputs, cut off at two deviations of the normal."""
    assert layer.bias is not None
    inputs = layer.weight[0].numel()
    truncated_normal_(layer.weight, inputs)
    nn.init.zeros_(layer.bias)
    return layer


def truncated_normal_(weight: Tensor, inputs: int) -> None:
    """Fills a weight; what the cut takes from the variance is given back."""
    std = 1.1368 * inputs**-0.5
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def norm(width: int) -> RMSNorm:
    """RMSNorm over the last axis, with a scale."""
    return RMSNorm(width, eps=EPSILON)


def dense(inputs: int, outputs: int) -> nn.Sequential:
    """Linear, norm, SiLU."""
    return nn.Sequential(start(nn.Linear(inputs, outputs)), norm(outputs), nn.SiLU())


def mlp(inputs: int, units: int, layers: int) -> nn.Sequential:
    """So many dense layers, one after the other."""
    return nn.Sequential(*(dense(units if i else inputs, units) for i in range(layers)))
