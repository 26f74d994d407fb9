"""The learned simulator: frames and actions in, memory, dreams and decoded frames out.

Those of this package are in `MODELS`; `worldmodel.plugins` finds those of others.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from worldmodel import plugins
from worldmodel.base import Losses, ObserveOutput, SequenceBatch, State, WorldModel, total
from worldmodel.lssvwm import LSSVWM
from worldmodel.lssvwm_config import LAYER_TYPES, NAMED_CONFIGS, LSSVWMConfig
from worldmodel.rssm import RSSM, RSSMConfig

MODELS: dict[str, tuple[type[WorldModel], Callable[..., Any]]] = {
    **{name: (LSSVWM, partial(LSSVWMConfig, name=name, **NAMED_CONFIGS.get(name, {}))) for name in LAYER_TYPES},
    "rssm": (RSSM, RSSMConfig),
}
"""World models by name: the class, and the factory of its default configuration."""


def names() -> list[str]:
    """Known world models: those of this package, and those that installed packages add."""
    return sorted({*MODELS, *plugins.entry_points()})


def find(name: str) -> tuple[type[WorldModel], Callable[..., Any]]:
    """The class of this name, and the factory of its default configuration; `package.module:Class` is a name too.

    Raises `plugins.PluginError`, a ValueError of one line, where there is none.
    """
    return MODELS[name] if name in MODELS else plugins.find(name)


def make(config: Any, shape: tuple[int, ...], actions: int) -> WorldModel:
    """The world model that `config.name` says, for observations of `shape` and actions of width `actions`."""
    return find(config.name)[0](config, shape, actions)


__all__ = [
    "MODELS",
    "Losses",
    "SequenceBatch",
    "State",
    "ObserveOutput",
    "WorldModel",
    "find",
    "make",
    "names",
    "total",
]
