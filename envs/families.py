"""Environments that a package brings many of, under a prefix: `Atari/Pong`, `MiniGrid/MemoryS7`, ...

The packages are extras. A family's module has `members()`, the names that may follow the prefix, and a callable that
makes one of them. It is imported, and the package with it, when a name with the prefix is used.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from envs.errors import MissingPackageError

ObsType = Literal["image", "vector"]


@dataclass(frozen=True)
class Family:
    """Args:
    maker: "module:callable", called with a member's name and options.
    package, project, extra: the module to import, the project to install, and the extra of this package.
    member: placeholder of a member in the help.
    obs_type: of all members.
    """

    maker: str
    package: str
    project: str
    extra: str
    member: str
    obs_type: ObsType


FAMILIES = {
    "Atari": Family("envs.atari.env:Atari", "ale_py", "ale-py", "atari", "<Game>", "image"),
    "MiniGrid": Family("envs.grid:make_grid", "minigrid", "minigrid", "minigrid", "<Name>", "image"),
    "POPGym": Family("envs.popgym_env:make_popgym", "popgym", "popgym", "popgym", "<Name>", "vector"),
}


def find(base: str) -> tuple[Family, Callable[..., Any]] | None:
    """The family of a name without options, and what makes the member from its options; None for other names.

    Raises `MissingPackageError` where the family's package is not installed.
    """
    prefix, slash, member = base.partition("/")
    if not slash or prefix not in FAMILIES:
        return None
    family = FAMILIES[prefix]
    if not _is_installed(family):
        raise MissingPackageError(f"{prefix} needs {family.project}: pip install 'lssvwm[{family.extra}]'")
    if member not in _members(family):
        return None
    module, attribute = family.maker.split(":")
    return family, functools.partial(getattr(importlib.import_module(module), attribute), member)


def installed_names() -> dict[str, str]:
    """member -> full name, of the families whose packages are installed; imports these."""
    installed = {prefix: family for prefix, family in FAMILIES.items() if _is_installed(family)}
    return {member: f"{prefix}/{member}" for prefix, family in installed.items() for member in _members(family)}


def forms() -> list[str]:
    """How the families' names are written, for the help."""
    return [f"{prefix}/{family.member}" for prefix, family in FAMILIES.items()]


def _is_installed(family: Family) -> bool:
    return importlib.util.find_spec(family.package) is not None


def _members(family: Family) -> list[str]:
    return importlib.import_module(family.maker.split(":")[0]).members()
