"""MiniGrid (Chevalier-Boisvert et al., arXiv 2306.13831) as pictures of what the agent sees: `MiniGrid/MemoryS7`."""

from __future__ import annotations

import functools
import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs

# minigrid imports pygame, which greets on standard output.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import minigrid  # noqa: E402, F401  (registers its environments)
from minigrid.core.constants import OBJECT_TO_IDX  # noqa: E402
from minigrid.core.grid import Grid  # noqa: E402
from minigrid.core.world_object import WorldObj  # noqa: E402

from envs.pictures import PICTURE  # noqa: E402

PREFIX, SUFFIX = "MiniGrid-", "-v0"
MOVES = 3  # turn left, turn right, forward: the first of all environments' actions
# Nothing in these can be picked up, dropped or opened.
MOVES_ALONE = ("Memory", "Empty", "FourRooms", "LavaCrossing", "SimpleCrossing", "LavaGap", "DistShift", "Dynamic")
# minigrid 3.2.0 is packaged without the pictures that these are made from.
UNUSABLE = ("WFC-",)


def members() -> list[str]:
    """`<Name>` of each `MiniGrid-<Name>-v0` that the package registers and can make."""
    ids = (id for id in gymnasium.registry if id.startswith(PREFIX) and id.endswith(SUFFIX))
    every = (id.removeprefix(PREFIX).removesuffix(SUFFIX) for id in ids)
    return [name for name in every if not name.startswith(UNUSABLE)]


def make_grid(name: str) -> gymnasium.Env:
    """`MiniGrid-<name>-v0` as `AgentView`, with the moves alone for actions where no other does anything.

    The moves: turn left, turn right, forward. The others, in the package's order: pick up, drop, toggle, done.
    """
    # Gymnasium's checker would look at every step of an environment that is known to be right.
    env = gymnasium.make(f"{PREFIX}{name}{SUFFIX}", disable_env_checker=True)
    return AgentView(env, MOVES if name.startswith(MOVES_ALONE) else None)


class AgentView(gymnasium.Wrapper, RecordConstructorArgs):
    """The cells in front of the agent that it can see, 7 by 7, as the package draws them.

    Observation: (64, 64, 3) uint8, a cell 9 pixels a side; the agent stands at the bottom in the middle and looks
    up, and what it carries lies under it. The compass and the words of the mission are left out, so an environment
    whose mission names another thing in each episode (Fetch, GoToDoor, GoToObject, PutNear) is one of guessing.

    Args:
        env: a MiniGrid environment.
        moves: so many actions, the first ones; None for all.
    """

    def __init__(self, env: gymnasium.Env, moves: int | None) -> None:
        # Recorded so that Gymnasium can make the environment again from its spec.
        RecordConstructorArgs.__init__(self, moves=moves)
        gymnasium.Wrapper.__init__(self, env)
        self.observation_space = gymnasium.spaces.Box(0, 255, PICTURE, np.uint8)
        if moves is not None:
            self.action_space = gymnasium.spaces.Discrete(moves)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return _draw(observation["image"]), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"this MiniGrid environment has {self.action_space}, not action {action!r}")
        observation, reward, terminated, truncated, info = self.env.step(action)
        return _draw(observation["image"]), float(reward), terminated, truncated, info


def _draw(view: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8, kind, colour and state of each cell by column and row -> (64, 64, 3) uint8.

    What is drawn is pixel for pixel the package's `get_pov_render`, put on black from top left. That works out
    once more what can be seen, which takes most of a step's time.
    """
    cells = view.shape[0]
    side = PICTURE[0] // cells
    agent = (cells // 2, cells - 1)
    picture = np.zeros(PICTURE, np.uint8)
    for i, column in enumerate(view.tolist()):
        for j, cell in enumerate(column):
            tile = _tile(*cell, side, (i, j) == agent)
            picture[j * side : (j + 1) * side, i * side : (i + 1) * side] = tile
    return picture


@functools.cache
def _tile(kind: int, colour: int, state: int, side: int, has_agent: bool) -> np.ndarray:
    """One cell, (side, side, 3) uint8; lit up where the agent sees it."""
    return Grid.render_tile(
        WorldObj.decode(kind, colour, state),
        agent_dir=3 if has_agent else None,
        highlight=kind != OBJECT_TO_IDX["unseen"],
        tile_size=side,
    )
