"""World models of other packages, by an entry point or by the path to their class.

An installed package adds names by entry points of the group `lssvwm.worldmodels`, `name = "module:Class"`. Any class
that can be imported is also found by `module:Class` as its name. docs/add_a_world_model.md is a tutorial.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

from worldmodel.base import WorldModel

GROUP = "lssvwm.worldmodels"

NEEDED = ("name", "state_interval")
"""Fields of every configuration, which the rest of the toolkit reads."""


class PluginError(ValueError):
    """A name that stands for no usable world model; the message is one line."""


def entry_points() -> dict[str, metadata.EntryPoint]:
    """Entry points of installed packages, by name."""
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


def is_path(name: str) -> bool:
    """Whether the name is written `package.module:Class`."""
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", name) is not None


def find(name: str) -> tuple[type[WorldModel], Callable[..., Any]]:
    """The class of this name, and the factory of its default configuration, which has that name.

    Raises `PluginError` where there is none.
    """
    points = entry_points()
    path = points[name].value if name in points else name
    if not is_path(path):
        raise PluginError(f"world model {name}: {path!r} is not written package.module:Class")
    module, attribute = path.split(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"world model {name}: {path} cannot be imported: {' '.join(str(error).split())}") from error
    if not (isinstance(found, type) and issubclass(found, WorldModel)):
        raise PluginError(f"world model {name}: {path} is no subclass of worldmodel.WorldModel")
    return found, partial(_config_class(name, found), name=name)


def _config_class(name: str, model: type[WorldModel]) -> type:
    config: Any = getattr(model, "config_class", None)
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise PluginError(f"world model {name}: its class wants config_class, a dataclass of its options")
    fields = {field.name for field in dataclasses.fields(config)}
    for needed in NEEDED:
        if needed not in fields:
            raise PluginError(f"world model {name}: {config.__name__} wants a field {needed}")
    return config
