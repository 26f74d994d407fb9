"""Parameter-matched world models: as many parameters by another number of layers (as arXiv 2505.20171 compares)."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from worldmodel.lssvwm import LSSVWM, LSSVWMConfig

TOLERANCE = 0.05
"""Largest share by which a matched total may differ from the one that is asked for."""


def count(config: LSSVWMConfig, shape: Sequence[int], actions: int) -> int:
    """Parameters of the world model; it is made on the meta device, which takes no memory."""
    with torch.device("meta"):
        model = LSSVWM(config, tuple(shape), actions)
    return sum(parameter.numel() for parameter in model.parameters())


def matched(config: LSSVWMConfig, shape: Sequence[int], actions: int, parameters: int) -> LSSVWMConfig:
    """`config` with `layers` and `mlp` such that the world model has about this many parameters.

    Of layers, the number whose total is nearest; then the MLP's width makes up for the rest, in every layer alike.

    Args:
        shape: of one observation. actions: width of an action.
        parameters: the total to come to, as `count` gives it for another configuration.

    Raises ValueError, of one line, where no such configuration comes within `TOLERANCE`.
    """
    one, two = (count(replace(config, layers=layers), shape, actions) for layers in (1, 2))
    layer = two - one  # of every layer, whatever its block
    layers = max(1, 1 + round((parameters - one) / layer))
    total = one + (layers - 1) * layer

    hidden = round(config.mlp * config.width)
    unit = 2 * config.width + 1  # a unit's weights in and out and its bias
    wider = max(1 - hidden, round((parameters - total) / (layers * unit)))
    total += wider * layers * unit
    if abs(total - parameters) > TOLERANCE * parameters:
        raise ValueError(
            f"{config.name} cannot come within {TOLERANCE:.0%} of {parameters:,} parameters: "
            f"with 1 layer and the narrowest MLP it has {total:,}"
        )
    return replace(config, layers=layers, mlp=(hidden + wider) / config.width if wider else config.mlp)
