"""The names of an environment's actions, and the keys that take them."""

import re
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium.spaces import Box

NAMES: dict[str, tuple[str, ...]] = {
    "MemoryMaze": ("noop", "forward", "left", "right", "forward_left", "forward_right"),
    "ObjectRecall": ("right", "up", "left", "down"),
    "SceneCut": ("right", "up", "left", "down"),
    "gym:CartPole": ("left", "right"),
    "gym:MountainCar": ("left", "noop", "right"),
    "gym:Acrobot": ("left", "noop", "right"),
}
"""By the beginning of an environment's name, for those without names of their own."""

WORDS = {"up": "up", "forward": "up", "down": "down", "backward": "down", "left": "left", "right": "right"} | {
    "fire": "fire"
}
"""Words of an action's name, and the key that each is."""


@dataclass(frozen=True)
class Actions:
    """The actions of an environment, in words and keys."""

    names: tuple[str, ...]
    chords: tuple[tuple[str, ...], ...]
    """For each, the keys (up, down, left, right, fire) that take it when held together; none where it has no such."""
    idle: int
    """The action while no key is held."""
    continuous: int
    """How many values an action has; 0 where actions are numbered."""


def describe(name: str, environment: gymnasium.Env) -> Actions:
    """The actions of this environment, which `envs.make(name)` gave."""
    space = environment.action_space
    if isinstance(space, Box):
        return Actions((), (), 0, space.shape[0])
    count = int(space.n)  # type: ignore[attr-defined]
    names = _names(name, environment, count)
    chords: list[tuple[str, ...]] = []
    for action in names:
        chord = _chord(action)
        chords.append(chord if chord not in chords else ())
    idle = next((i for i, action in enumerate(names) if _letters(action) in ("noop", "stay", "nothing")), 0)
    return Actions(names, tuple(chords), idle, 0)


def _names(name: str, environment: gymnasium.Env, count: int) -> tuple[str, ...]:
    """Its own names, those of `NAMES`, or numbers."""
    found: Any = ()
    if environment.has_wrapper_attr("get_action_meanings"):
        found = environment.get_wrapper_attr("get_action_meanings")()
    elif environment.has_wrapper_attr("actions"):  # MiniGrid's enumeration, of which the first may be all there are
        found = [action.name for action in environment.get_wrapper_attr("actions")][:count]
    else:
        found = next((names for start, names in NAMES.items() if name.startswith(start)), ())
    names = tuple(str(action).lower() for action in found)
    return names if len(names) == count else tuple(f"action {i}" for i in range(count))


def _chord(action: str) -> tuple[str, ...]:
    """`forward_left` and `UPLEFT` -> (left, up); empty for a name that has other words in it."""
    rest, keys = _letters(action), set()
    while found := re.match("|".join(WORDS), rest):
        keys.add(WORDS[found[0]])
        rest = rest[found.end() :]
    return () if rest else tuple(sorted(keys))


def _letters(action: str) -> str:
    return re.sub("[^a-z]", "", action.lower())
