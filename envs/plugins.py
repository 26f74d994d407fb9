"""Environments of other packages, by entry point or by path.

An installed package adds names by entry points of the group `lssvwm.environments`, `name = "module:callable"`. Whatever
can be imported is also named by its path, `module:Callable`. docs/add_an_environment.md has examples.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable
from typing import Any

from envs.errors import PluginError

GROUP = "lssvwm.environments"

_PATH = re.compile(r"(?P<base>[^\W\d][\w.]*:[^\W\d]\w*)(?::(?P<options>.*))?")


def entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """The entry points of installed packages, by name."""
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}


def split_path(name: str) -> tuple[str, str | None] | None:
    """`package.module:Callable:a=1` -> ("package.module:Callable", "a=1"), without options None; None for no path."""
    match = _PATH.fullmatch(name)
    return (match["base"], match["options"]) if match else None


def load_entry_point(name: str) -> Callable[..., Any]:
    """The callable of an entry point. Raises `PluginError`."""
    point = entry_points()[name]
    return _import(point.value, f"{name}, an entry point to {point.value}, cannot be imported")


def load_path(base: str) -> Callable[..., Any]:
    """The callable that `package.module:Callable` names. Raises `PluginError`."""
    return _import(base, f"{base} is no known environment, and as a path it cannot be imported")


def has_package(base: str) -> bool:
    """Whether Python finds the outermost package of a path."""
    return importlib.util.find_spec(re.split("[.:]", base)[0]) is not None


def _import(path: str, problem: str) -> Callable[..., Any]:
    try:
        return importlib.metadata.EntryPoint(path, path, GROUP).load()
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{problem}: {' '.join(str(error).split())}") from error
