"""World models with equal numbers of parameters, by the number of layers or by widths, for fair comparisons."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from worldmodel import make
from worldmodel.lssvwm_config import LSSVWMConfig
from worldmodel.rssm import RSSMConfig

TOLERANCE = 0.05
"""Largest share by which the total may differ from the one asked for."""

MOST_HIDDEN = 4096
"""Largest width of hidden layers that is tried for an RSSM: four times the largest published."""


def count(config: Any, shape: Sequence[int], actions: int) -> int:
    """Parameters of the world model; made on the meta device, which takes no memory."""
    with torch.device("meta"):
        model = make(config, tuple(shape), actions)
    return sum(parameter.numel() for parameter in model.parameters())


def match_parameters(config: Any, shape: Sequence[int], actions: int, parameters: int) -> Any:
    """`config` with other layers or widths, such that the world model has about `parameters` parameters.

    Args:
        config: of a stack of mixers, or of an RSSM.
        shape: of one observation. actions: width of an action.
        parameters: the total, as `count` gives it for another configuration.

    Raises ValueError, of one line, where no such configuration comes within `TOLERANCE`, and for other world models.
    """
    if isinstance(config, LSSVWMConfig):
        return _by_layers(config, shape, actions, parameters)
    if isinstance(config, RSSMConfig):
        return _by_hidden(config, shape, actions, parameters)
    raise ValueError(
        f"{config.name} cannot be given as many parameters as another: it is no stack of mixers and no RSSM"
    )


def _by_hidden(config: RSSMConfig, shape: Sequence[int], actions: int, parameters: int) -> RSSMConfig:
    """The width of hidden layers whose total is nearest, of those that a bisection tries; other widths follow it.

    The total is not quite monotonic in the width: more blocks of channels take fewer parameters.
    """
    totals: dict[int, int] = {}

    def total(hidden: int) -> int:
        totals[hidden] = count(replace(config, hidden=hidden), shape, actions)
        return totals[hidden]

    bisect(range(1, MOST_HIDDEN + 1), parameters, key=total)
    hidden = min(totals, key=lambda hidden: abs(totals[hidden] - parameters))
    _check(config.name, totals[hidden], parameters, "the nearest width found of its hidden layers")
    return replace(config, hidden=hidden)


def _by_layers(config: LSSVWMConfig, shape: Sequence[int], actions: int, parameters: int) -> LSSVWMConfig:
    """Of layers, the number whose total is nearest; then the MLP's width makes up for the rest, in all layers alike."""
    one, two = (count(replace(config, layers=layers), shape, actions) for layers in (1, 2))
    layer = two - one  # of every layer, whatever its block
    layers = max(1, 1 + round((parameters - one) / layer))
    total = one + (layers - 1) * layer

    hidden = round(config.mlp_ratio * config.d_model)
    unit = 2 * config.d_model + 1  # a unit's weights in and out and its bias
    wider = max(1 - hidden, round((parameters - total) / (layers * unit)))
    total += wider * layers * unit
    _check(config.name, total, parameters, "1 layer and the narrowest MLP")
    return replace(config, layers=layers, mlp_ratio=(hidden + wider) / config.d_model if wider else config.mlp_ratio)


def _check(name: str, total: int, parameters: int, how: str) -> None:
    if abs(total - parameters) > TOLERANCE * parameters:
        raise ValueError(
            f"{name} cannot come within {TOLERANCE:.0%} of {parameters:,} parameters: with {how} it has {total:,}"
        )
