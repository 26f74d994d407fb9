"""Environments by name, under the current Gymnasium API.

`make(name, **options)` gives one environment, `make_vector(name, n, **options)` gives n of them in worker
processes. A name stands in `REGISTRY`, or is `gym:<id>` for any registered Gymnasium environment with image
or flat-vector observations and discrete actions.

This module imports nothing heavy: an environment's packages are loaded when the first one is made.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import gymnasium

    from envs.vector import ForkserverVectorEnv

# name -> ("module:callable", the options that the name stands for); one line for each environment.
REGISTRY: dict[str, tuple[str, dict[str, Any]]] = {
    "MemoryMaze": ("envs.memory_maze:MemoryMaze", {"size": "9x9"}),
    "MemoryMaze-11x11": ("envs.memory_maze:MemoryMaze", {"size": "11x11"}),
    "MemoryMaze-13x13": ("envs.memory_maze:MemoryMaze", {"size": "13x13"}),
    "MemoryMaze-15x15": ("envs.memory_maze:MemoryMaze", {"size": "15x15"}),
}

GYM_PREFIX = "gym:"


class UnknownEnvironment(ValueError):
    """No environment has this name; the message is one line that gives the name and the nearest right one."""

    def __init__(self, name: str, nearest: str) -> None:
        super().__init__(f"unknown environment {name!r}: did you mean {nearest!r}?")


def names() -> list[str]:
    """The names in the registry (`gym:<id>` names are not listed), sorted."""
    return sorted(REGISTRY)


def check_name(name: str) -> None:
    """Raise `UnknownEnvironment` unless `make` knows the name; makes no environment."""
    if name in REGISTRY:
        return
    from gymnasium import registry

    if name.startswith(GYM_PREFIX):
        if _gymnasium_knows(name.removeprefix(GYM_PREFIX)):
            return
        candidates = [GYM_PREFIX + id for id in registry]
    elif name in registry:
        candidates = [GYM_PREFIX + name]
    else:
        candidates = names()
    # An exact match but for case comes first, and the cutoff of 0 means that something is always named.
    folded = {candidate.lower(): candidate for candidate in reversed(candidates)}
    nearest = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.0)[0]
    raise UnknownEnvironment(name, folded[nearest])


def kind(name: str) -> Literal["image", "vector"]:
    """What the observations of an environment are. Raises as `make`."""
    check_name(name)
    if name in REGISTRY:
        return "image"
    environment = make(name)
    shape = environment.observation_space.shape or ()
    environment.close()
    return "image" if len(shape) == 3 else "vector"


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


def make(name: str, **options: Any) -> gymnasium.Env:
    """One environment.

    Args:
        name: a name from `names()`, or `gym:<id>`.
        options: passed to the environment, e.g. `labels=True` for Memory Maze.

    Raises:
        UnknownEnvironment: no environment has this name.
        ValueError: a `gym:` environment whose spaces are not supported.
    """
    check_name(name)
    if name.startswith(GYM_PREFIX):
        from envs.gym_env import make_gym

        return make_gym(name.removeprefix(GYM_PREFIX), **options)
    target, fixed = REGISTRY[name]
    module, attribute = target.split(":")
    return getattr(importlib.import_module(module), attribute)(**fixed, **options)


def make_vector(name: str, n: int, **options: Any) -> ForkserverVectorEnv:
    """n environments of one name, each in a worker process of its own; see `envs.vector`.

    Raises:
        UnknownEnvironment: no environment has this name.
        ValueError, RuntimeError: n is less than 1, or the environment cannot be made, as from `make`.
    """
    check_name(name)
    from envs.vector import ForkserverVectorEnv

    return ForkserverVectorEnv(name, n, **options)
