"""Environments by name, under the current Gymnasium API.

`make(name, **options)` gives one environment, `make_vector(name, n, **options)` gives n of them in worker
processes. A name stands in `REGISTRY`, or is `gym:<id>` for any registered Gymnasium environment with image
or flat-vector observations and discrete actions. A name in the registry may carry options for the environment's
constructor: `ObjectRecall:delay=4..50,size=64`. Their values are whole numbers, floats, true or false, pairs of
whole numbers `a..b`, or else strings.

This module imports nothing heavy: an environment's packages are loaded when the first one is made.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    import gymnasium

    from envs.vector import ForkserverVectorEnv

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


class UnknownEnvironment(ValueError):
    """No environment has this name; the message is one line that gives the name and the nearest right one."""

    def __init__(self, name: str, nearest: str) -> None:
        super().__init__(f"unknown environment {name!r}: did you mean {nearest!r}?")


class WrongOptions(UnknownEnvironment):
    """A name carries options that its environment does not take; the message is one line."""

    def __init__(self, message: str) -> None:
        ValueError.__init__(self, message)


def names() -> list[str]:
    """The names in the registry (`gym:<id>` names are not listed), sorted."""
    return sorted(REGISTRY)


def check_name(name: str) -> None:
    """Raise `UnknownEnvironment` unless `make` knows the name and the options it carries; makes no environment.

    Options are checked by their names; whether a value is right, the environment says when it is made.
    """
    base, colon, text = name.partition(":")
    if base in REGISTRY:
        if colon:
            _check_options(base, _read_options(base, text))
        return
    from gymnasium import registry

    if name.startswith(GYM_PREFIX):
        if _gymnasium_knows(name.removeprefix(GYM_PREFIX)):
            return
        candidates = [GYM_PREFIX + id for id in registry]
    elif name in registry:
        candidates = [GYM_PREFIX + name]
    else:
        # Options that go with the misspelt name go with the right one too.
        tail = colon + text if "=" in text else ""
        candidates = [known + tail for known in names()]
    raise UnknownEnvironment(name, _nearest(name, candidates))


def _nearest(name: str, candidates: list[str]) -> str:
    # An exact match but for case comes first, and the cutoff of 0 means that something is always named.
    folded = {candidate.lower(): candidate for candidate in reversed(candidates)}
    return folded[difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.0)[0]]


def _constructor(base: str) -> Callable[..., gymnasium.Env]:
    """What makes the environments of this name in the registry."""
    module, attribute = REGISTRY[base][0].split(":")
    return getattr(importlib.import_module(module), attribute)


def _read_options(base: str, text: str) -> dict[str, Any]:
    """`delay=4..50,size=64` -> {"delay": (4, 50), "size": 64}. Raises `WrongOptions`."""
    options: dict[str, Any] = {}
    for part in text.split(","):
        option, equals, value = part.partition("=")
        if not (option and equals and value):
            raise WrongOptions(f"{base} has an option {part!r} in its name: options are written {base}:name=value,...")
        if option in options:
            raise WrongOptions(f"{base} has the option {option!r} twice in its name")
        options[option] = _read_value(value)
    return options


def _read_value(text: str) -> Any:
    """An int, float, bool or pair of ints where the text is one; else the text."""
    if text in ("true", "false"):
        return text == "true"
    if pair := re.fullmatch(r"(-?\d+)\.\.(-?\d+)", text):
        return int(pair[1]), int(pair[2])
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def _check_options(base: str, options: dict[str, Any]) -> None:
    """Raise `WrongOptions` for one that the constructor lacks or the registry fixes."""
    known = [option for option in inspect.signature(_constructor(base)).parameters if option not in REGISTRY[base][1]]
    for option in options:
        if option not in known:
            nearest = _nearest(option, known)
            raise WrongOptions(f"{base} has no option {option!r}: did you mean {nearest!r}?")


def kind(name: str) -> Literal["image", "vector"]:
    """What the observations of an environment are. Raises as `make`."""
    check_name(name)
    if not name.startswith(GYM_PREFIX):
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
        name: a name from `names()`, with or without options, or `gym:<id>`.
        options: passed to the environment, e.g. `labels=True` for Memory Maze; they go before the name's.

    Raises:
        UnknownEnvironment: no environment has this name, or not the options it carries.
        ValueError: a `gym:` environment whose spaces are not supported, or an option's value that is wrong.
    """
    check_name(name)
    if name.startswith(GYM_PREFIX):
        from envs.gym_env import make_gym

        return make_gym(name.removeprefix(GYM_PREFIX), **options)
    base, _, text = name.partition(":")
    carried = _read_options(base, text) if text else {}
    try:
        return _constructor(base)(**REGISTRY[base][1], **carried | options)
    except TypeError as error:
        if not carried:
            raise
        # A value of the wrong type in a name is the user's to mend, as any other wrong value.
        raise ValueError(f"{name}: {error}") from error


def make_vector(name: str, n: int, **options: Any) -> ForkserverVectorEnv:
    """n environments of one name, each in a worker process of its own; see `envs.vector`.

    Raises:
        UnknownEnvironment: no environment has this name, or not the options it carries.
        ValueError, RuntimeError: n is less than 1, or the environment cannot be made, as from `make`.
    """
    check_name(name)
    from envs.vector import ForkserverVectorEnv

    return ForkserverVectorEnv(name, n, **options)
