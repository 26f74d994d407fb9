"""Environments of other packages, by an entry point or by the path to what makes them.

An installed package adds names by entry points of the group `lssvwm.environments`, `name = "module:callable"`. What
can be imported is also reached without one, by `module:Callable` as its name. docs/add_an_environment.md has examples.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable
from typing import Any

from envs.errors import CannotImport

GROUP = "lssvwm.environments"

_PATH = re.compile(r"(?P<base>[^\W\d][\w.]*:[^\W\d]\w*)(?::(?P<options>.*))?")


def entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """What installed packages add, by name."""
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}


def split_path(name: str) -> tuple[str, str | None] | None:
    """`package.module:Callable:a=1` -> ("package.module:Callable", "a=1"), without options None; None for no path."""
    match = _PATH.fullmatch(name)
    return (match["base"], match["options"]) if match else None


def load_entry_point(name: str) -> Callable[..., Any]:
    """What makes the environment of this name. Raises `CannotImport`."""
    point = entry_points()[name]
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise CannotImport(f"{name}, an entry point to {point.value}, cannot be imported: {_line(error)}") from error


def load_path(base: str) -> Callable[..., Any]:
    """What `package.module:Callable` names. Raises `CannotImport`."""
    module, attribute = base.split(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise CannotImport(
            f"{base} is no known environment, and as a path it cannot be imported: {_line(error)}"
        ) from error


def has_package(base: str) -> bool:
    """Whether Python finds the outermost package of a path."""
    return importlib.util.find_spec(re.split("[.:]", base)[0]) is not None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
