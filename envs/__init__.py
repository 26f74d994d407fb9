"""Environments by name, under the current Gymnasium API.

`make(name, **options)` gives one environment, `make_vector(name, n, **options)` gives n of them in worker
processes. A name is one of

    MemoryMaze, ObjectRecall, ...     `REGISTRY`
    Atari/Pong, MiniGrid/MemoryS7     a member of a family (`envs.families`); its package is an extra
    gym:<id>                          any registered Gymnasium environment with supported spaces (`envs.gym_env`)
    name of an entry point            an environment of an installed package (`envs.plugins`)
    package.module:Callable           anything importable that gives a Gymnasium environment

All but `gym:` names may carry options of what makes them: `ObjectRecall:delay=4..50,size=64`. Values are integers,
floats, true or false, pairs of integers `a..b`, or else strings.

This module imports nothing heavy: an environment's packages are loaded when its name is used.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from envs import families, plugins
from envs.errors import PluginError, UnknownEnvironment
from envs.families import ObsType
from envs.options import check_options, check_required, nearest, read_options

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

    from envs.vector import ForkserverVectorEnv

__all__ = ["UnknownEnvironment", "check_name", "forms", "make", "make_vector", "names", "obs_type"]

# name -> ("module:callable", the options that the name stands for); one line for each environment.
REGISTRY: dict[str, tuple[str, dict[str, Any]]] = {
    "MemoryMaze": ("envs.memory_maze.env:MemoryMaze", {}),
    "MemoryMaze-5x5": ("envs.memory_maze.env:MemoryMaze", {"size": "5x5"}),
    "MemoryMaze-7x7": ("envs.memory_maze.env:MemoryMaze", {"size": "7x7"}),
    "MemoryMaze-11x11": ("envs.memory_maze.env:MemoryMaze", {"size": "11x11"}),
    "MemoryMaze-13x13": ("envs.memory_maze.env:MemoryMaze", {"size": "13x13"}),
    "MemoryMaze-15x15": ("envs.memory_maze.env:MemoryMaze", {"size": "15x15"}),
    "ObjectRecall": ("envs.recall.env:ObjectRecall", {}),
    "ObjectRecall-Choice": ("envs.recall.env:ObjectRecallChoice", {}),
    "SceneCut": ("envs.recall.env:SceneCut", {}),
}

GYM_PREFIX = "gym:"


@dataclass(frozen=True)
class _Named:
    """What a name without options stands for; `obs_type` is None where only the spaces show it."""

    build: Callable[..., gymnasium.Env]
    obs_type: ObsType | None
    fixed: dict[str, Any] = field(default_factory=dict)


def names() -> list[str]:
    """The names in the registry and of entry points, sorted; see `forms` for the others."""
    return sorted({*REGISTRY, *plugins.entry_points()})


def forms() -> list[str]:
    """`names()`, and the forms of all other names, for the help."""
    return [*names(), *families.forms(), f"{GYM_PREFIX}<id>", "<module>:<Callable>"]


def check_name(name: str) -> None:
    """Raise `UnknownEnvironment` unless `make` knows the name and the options it carries; makes no environment.

    Checks the names of options; `make` checks their values and whether one is missing.
    """
    if name.startswith(GYM_PREFIX):
        _check_gym(name)
    else:
        _resolve(name)


def _check_gym(name: str) -> None:
    if not _gymnasium_knows(name.removeprefix(GYM_PREFIX)):
        from gymnasium import registry

        raise _unknown(name, nearest(name, [GYM_PREFIX + id for id in registry]))


def _unknown(name: str, nearest: str) -> UnknownEnvironment:
    return UnknownEnvironment(f"unknown environment {name!r}: did you mean {nearest!r}?")


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
    """What a name other than `gym:<id>` stands for, and the options it carries, their names checked."""
    base, colon, text = name.partition(":")
    named = _find(base)
    if named is None and (path := plugins.split_path(name)):
        base, options = path
        colon, text = ("", "") if options is None else (":", options)
        named = _find_path(base)
    if named is None:
        # The options of the misspelt name go with the right one.
        raise _unknown(name, _nearest_name(base) + (colon + text if "=" in text else ""))
    carried = read_options(base, text) if colon else {}
    check_options(base, carried, named.build, named.fixed)
    return named, carried


def _find(base: str) -> _Named | None:
    """What a name without options stands for; None for a path or an unknown name."""
    if base in REGISTRY:
        return _Named(_constructor(base), "image", REGISTRY[base][1])
    if found := families.find(base):
        return _Named(found[1], found[0].obs_type)
    if base in plugins.entry_points():
        return _adapted(base, plugins.load_entry_point(base))
    return None


def _find_path(base: str) -> _Named:
    try:
        return _adapted(base, plugins.load_path(base))
    except PluginError as error:
        if plugins.has_package(base):
            raise
        near = _nearest_name(base)
        hint = "install the package, or put its folder into PYTHONPATH"
        raise PluginError(f"{error}; the nearest known name is {near!r}; {hint}") from error


def _adapted(base: str, build: Callable[..., gymnasium.Env]) -> _Named:
    """Another package's environment, with observations and actions as world models take them."""

    @functools.wraps(build)
    def adapted(**options: Any) -> gymnasium.Env:
        from envs.gym_env import adapt

        return adapt(build(**options), base)

    return _Named(adapted, None)


def _nearest_name(name: str) -> str:
    """The known name that is most like this one, without options."""
    from gymnasium import registry

    if name in registry:
        return GYM_PREFIX + name
    members = families.installed_names()
    # Members are also found by their names in the family (`Pong`), Gymnasium's own without a version (`CartPole`).
    own = {spec.name: GYM_PREFIX + id for id, spec in registry.items() if _is_gymnasiums(spec)}
    known = own | members | {name: name for name in [*members.values(), *names()]}
    return known[nearest(name, known)]


def _is_gymnasiums(spec: EnvSpec) -> bool:
    return spec.namespace is None and str(spec.entry_point).startswith("gymnasium.envs.")


def _constructor(base: str) -> Callable[..., gymnasium.Env]:
    """What makes an environment of the registry."""
    module, attribute = REGISTRY[base][0].split(":")
    return getattr(importlib.import_module(module), attribute)


def obs_type(name: str) -> ObsType:
    """Whether an environment's observations are images or vectors. Raises as `make`."""
    if not name.startswith(GYM_PREFIX):
        known = _resolve(name)[0].obs_type
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
        options: passed to the environment, e.g. `labels=True` for Memory Maze; they override the name's.

    Raises:
        UnknownEnvironment: an unknown name, an unknown or missing option, or a missing package (`envs.errors`).
        ValueError: unsupported spaces, or a wrong value of an option.
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
        # A value of the wrong type in a name is a wrong value like any other.
        raise ValueError(f"{name}: {error}") from error


def make_vector(name: str, n: int, **options: Any) -> ForkserverVectorEnv:
    """n environments, each in a worker process (`envs.vector`). Raises as `make`, and ValueError for n < 1."""
    check_name(name)
    from envs.vector import ForkserverVectorEnv

    return ForkserverVectorEnv(name, n, **options)
