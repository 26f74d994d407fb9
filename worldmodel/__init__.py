"""The learned simulator: frames and actions in, memory, dreams and decoded frames out."""

from collections.abc import Callable
from functools import partial
from typing import Any

from worldmodel.base import Losses, Rows, State, Trajectory, WorldModel, total
from worldmodel.lssvwm import LSSVWM, STACKS, LSSVWMConfig

MODELS: dict[str, tuple[type[WorldModel], Callable[..., Any]]] = {
    name: (LSSVWM, partial(LSSVWMConfig, name=name)) for name in STACKS
}
"""World models by name: the class, and what makes its default configuration."""


def names() -> list[str]:
    """Known world models."""
    return sorted(MODELS)


def make(config: Any, shape: tuple[int, ...], actions: int) -> WorldModel:
    """The world model that `config.name` says, for observations of `shape` and actions of width `actions`."""
    return MODELS[config.name][0](config, shape, actions)


__all__ = ["MODELS", "Losses", "Rows", "State", "Trajectory", "WorldModel", "make", "names", "total"]
