"""Environments by name, under the current Gymnasium API.

`make(name, **options)` gives one environment, `make_vector(name, n, **options)` gives n of them in worker
processes. A name is one of

    MemoryMaze, ObjectRecall, ...     `REGISTRY`
    Atari/Pong, MiniGrid/MemoryS7     a member of a family (`envs.families`); its package is an extra
    gym:<id>                          any registered Gymnasium environment with supported spaces (`envs.gym_env`)
    what an installed package adds    by an entry point (`envs.plugins`)
    package.module:Callable           anything that can be imported and gives a Gymnasium environment

All but `gym:` names may carry options for what makes them: `ObjectRecall:delay=4..50,size=64`. Their values are
whole numbers, floats, true or false, pairs of whole numbers `a..b`, or else strings.

This module imports nothing heavy: an environment's packages are loaded when its name is used.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from envs import families, plugins
from envs.errors import CannotImport, CannotMake, MissingPackage, UnknownEnvironment, WrongOptions
from envs.options import check_options, check_required, nearest, read_options

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

    from envs.vector import ForkserverVectorEnv

__all__ = [
    "CannotImport",
    "CannotMake",
    "MissingPackage",
    "UnknownEnvironment",
    "WrongOptions",
    "check_name",
    "forms",
    "obs_type",
    "make",
    "make_vector",
    "names",
]

# name -> ("module:callable", the options that the name stands for); one line for each environment.
REGISTRY: dict[str, tuple[str, dict[str, Any]]] = {
    "MemoryMaze": ("envs.memory_maze:MemoryMaze", {"size": "9x9"}),
    "MemoryMaze-11x11": ("envs.memory_maze:MemoryMaze", {"size": "11x11"}),
    "MemoryMaze-13x13": ("envs.memory_maze:MemoryMaze", {"size": "13x13"}),
    "MemoryMaze-15x15": ("envs.memory_maze:MemoryMaze", {"size": "15x15"}),
    "ObjectRecall": ("envs.recall:ObjectRecall", {}),
    "ObjectRecall-Choice": ("envs.recall:ObjectRecallChoice", {}),
    "SceneCut": ("envs.recall:SceneCut", {}),
}

GYM_PREFIX = "gym:"

Kind = Literal["image", "vector"]


@dataclass(frozen=True)
class _Named:
    """What a name without options stands for; `kind` is None where only a look at the spaces tells it."""

    build: Callable[..., gymnasium.Env]
    kind: Kind | None
    fixed: dict[str, Any] = field(default_factory=dict)


def names() -> list[str]:
    """The names in the registry and those that installed packages add, sorted; see `forms` for the others."""
    return sorted({*REGISTRY, *plugins.entry_points()})


def forms() -> list[str]:
    """`names()`, and how all other names are written, for the help."""
    return [*names(), *families.forms(), f"{GYM_PREFIX}<id>", "<module>:<Callable>"]


def check_name(name: str) -> None:
    """Raise `UnknownEnvironment` unless `make` knows the name and the options it carries; makes no environment.

    Options are checked by their names; whether a value is right or one is missing, `make` says.
    """
    if name.startswith(GYM_PREFIX):
        _check_gym(name)
    else:
        _resolve(name)


def _check_gym(name: str) -> None:
    if not _gymnasium_knows(name.removeprefix(GYM_PREFIX)):
        from gymnasium import registry

        raise UnknownEnvironment(name, nearest(name, [GYM_PREFIX + id for id in registry]))


def _gymnasium_knows(id: str) -> bool:
    """Whether Gymnasium has this id, which may be `module:id` to import the module that registers it."""
    from gymnasium import registry

    module, _, id = id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            return False
    return id in registry


def _resolve(name: str) -> tuple[_Named, dict[str, Any]]:
    """What a name (but for `gym:` ones) stands for, and the options it carries, their names checked."""
    base, colon, text = name.partition(":")
    named = _find(base)
    if named is None and (path := plugins.split_path(name)):
        base, options = path
        colon, text = ("", "") if options is None else (":", options)
        named = _find_path(base)
    if named is None:
        # Options that go with the misspelt name go with the right one too.
        raise UnknownEnvironment(name, _nearest_name(base) + (colon + text if "=" in text else ""))
    carried = read_options(base, text) if colon else {}
    check_options(base, carried, named.build, named.fixed)
    return named, carried


def _find(base: str) -> _Named | None:
    """What a name without options stands for; None where it is none, or a path."""
    if base in REGISTRY:
        return _Named(_constructor(base), "image", REGISTRY[base][1])
    if found := families.find(base):
        return _Named(found[1], found[0].kind)
    if base in plugins.entry_points():
        return _outside(base, plugins.load_entry_point(base))
    return None


def _find_path(base: str) -> _Named:
    try:
        return _outside(base, plugins.load_path(base))
    except CannotImport as error:
        if plugins.has_package(base):
            raise
        # A path, or a name misspelt: both are spoken of.
        near = _nearest_name(base)
        hint = "a package of one's own has to be installed, or its folder in PYTHONPATH"
        raise CannotImport(f"{error}; the nearest known name is {near!r}; {hint}") from error


def _outside(base: str, build: Callable[..., gymnasium.Env]) -> _Named:
    """Another package's environment, with what it observes made what world models take."""

    @functools.wraps(build)
    def adapted(**options: Any) -> gymnasium.Env:
        from envs.gym_env import adapt

        return adapt(build(**options), base)

    return _Named(adapted, None)


def _nearest_name(name: str) -> str:
    """The name that this one, without options, was meant to be."""
    from gymnasium import registry

    if name in registry:
        return GYM_PREFIX + name
    members = families.installed_names()
    # A member is known by its name in the family too: `Pong`; Gymnasium's own by theirs without a version: `CartPole`.
    own = {spec.name: GYM_PREFIX + id for id, spec in registry.items() if _is_gymnasiums(spec)}
    known = own | members | {name: name for name in [*members.values(), *names()]}
    return known[nearest(name, known)]


def _is_gymnasiums(spec: EnvSpec) -> bool:
    return spec.namespace is None and str(spec.entry_point).startswith("gymnasium.envs.")


def _constructor(base: str) -> Callable[..., gymnasium.Env]:
    """What makes the environments of this name in the registry."""
    module, attribute = REGISTRY[base][0].split(":")
    return getattr(importlib.import_module(module), attribute)


def obs_type(name: str) -> Kind:
    """What the observations of an environment are. Raises as `make`."""
    if not name.startswith(GYM_PREFIX):
        known = _resolve(name)[0].kind
        if known is not None:
            return known
    environment = make(name)
    shape = environment.observation_space.shape or ()
    environment.close()
    return "image" if len(shape) == 3 else "vector"


def make(name: str, **options: Any) -> gymnasium.Env:
    """One environment.

    Args:
        name: see the top of this module.
        options: passed to the environment, e.g. `labels=True` for Memory Maze; they go before the name's.

    Raises:
        UnknownEnvironment: no environment has this name, or not the options it carries, or it has to have others, or
            a package is missing.
        ValueError: an environment whose spaces are not supported, or an option's value that is wrong.
    """
    if name.startswith(GYM_PREFIX):
        _check_gym(name)
        from envs.gym_env import make_gym

        return make_gym(name.removeprefix(GYM_PREFIX), **options)
    named, carried = _resolve(name)
    check_required(name, {*named.fixed, *carried, *options}, named.build)
    try:
        return named.build(**named.fixed, **carried | options)
    except TypeError as error:
        if not carried:
            raise
        # A value of the wrong type in a name is the user's to mend, as any other wrong value.
        raise ValueError(f"{name}: {error}") from error


def make_vector(name: str, n: int, **options: Any) -> ForkserverVectorEnv:
    """n environments of one name, each in a worker process of its own; see `envs.vector`.

    Raises:
        UnknownEnvironment, ValueError, RuntimeError: as from `make`, or n is less than 1.
    """
    check_name(name)
    from envs.vector import ForkserverVectorEnv

    return ForkserverVectorEnv(name, n, **options)
