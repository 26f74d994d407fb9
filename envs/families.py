"""Environments that a package brings many of, under a prefix: `Atari/Pong`, `MiniGrid/MemoryS7`, ...

The packages are extras. A family's module has `members()`, the names that may follow the prefix, and what makes one
of them; it is imported, and the package with it, when a name with its prefix is used.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from envs.errors import MissingPackage, UnknownEnvironment
from envs.options import nearest


@dataclass(frozen=True)
class Family:
    """Args:
    maker: "module:callable", called with a member's name and options; the module has `members()`.
    package, project, extra: what is imported, what it is called where it is installed from, and our extra.
    member: what may follow the prefix, in words for the help.
    kind: of the observations of all members.
    """

    maker: str
    package: str
    project: str
    extra: str
    member: str
    kind: Literal["image", "vector"]


FAMILIES = {
    "Atari": Family("envs.atari:Atari", "ale_py", "ale-py", "atari", "<Game>", "image"),
    "MiniGrid": Family("envs.grid:make_grid", "minigrid", "minigrid", "minigrid", "<Name>", "image"),
    "POPGym": Family("envs.popgym_env:make_popgym", "popgym", "popgym", "popgym", "<Name>", "vector"),
}


def find(base: str) -> tuple[Family, Callable[..., Any]] | None:
    """The family of this name without options, and what makes it from its options; None where the prefix is none.

    Raises:
        MissingPackage: the family's package is not installed.
        UnknownEnvironment: it is, and has nothing of this name.
    """
    prefix, slash, member = base.partition("/")
    if not slash or prefix not in FAMILIES:
        return None
    family = FAMILIES[prefix]
    if not _is_installed(family):
        raise MissingPackage(f"{prefix} needs {family.project}: pip install 'lssvwm[{family.extra}]'")
    if member not in _members(family):
        raise UnknownEnvironment(base, nearest(base, _names_of(prefix)))
    module, attribute = family.maker.split(":")
    return family, functools.partial(getattr(importlib.import_module(module), attribute), member)


def installed_names() -> list[str]:
    """The names of all members of the families whose packages are installed; imports these."""
    return [name for prefix, family in FAMILIES.items() if _is_installed(family) for name in _names_of(prefix)]


def forms() -> list[str]:
    """How the families' names are written, for the help."""
    return [f"{prefix}/{family.member}" for prefix, family in FAMILIES.items()]


def _is_installed(family: Family) -> bool:
    return importlib.util.find_spec(family.package) is not None


def _names_of(prefix: str) -> list[str]:
    return [f"{prefix}/{member}" for member in _members(FAMILIES[prefix])]


def _members(family: Family) -> list[str]:
    return importlib.import_module(family.maker.split(":")[0]).members()
