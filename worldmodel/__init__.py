"""The learned simulator: frames and actions in, memory, dreams and decoded frames out."""

from typing import Any

from worldmodel.base import Losses, Rows, State, Trajectory, WorldModel, total
from worldmodel.lssvwm import LSSVWM, LSSVWMConfig

MODELS: dict[str, tuple[type[WorldModel], type]] = {
    "lssvwm": (LSSVWM, LSSVWMConfig),
}


def names() -> list[str]:
    """Known world models."""
    return sorted(MODELS)


def make(config: Any, shape: tuple[int, ...], actions: int) -> WorldModel:
    """The world model that `config.name` says, for observations of `shape` and actions of width `actions`."""
    return MODELS[config.name][0](config, shape, actions)


__all__ = ["MODELS", "Losses", "Rows", "State", "Trajectory", "WorldModel", "make", "names", "total"]
