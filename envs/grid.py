"""MiniGrid (Chevalier-Boisvert et al., arXiv 2306.13831) as images of what the agent sees: `MiniGrid/MemoryS7`."""

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

from envs.images import IMAGE_SHAPE  # noqa: E402

PREFIX, SUFFIX = "MiniGrid-", "-v0"
MOVES = 3  # turn left, turn right, forward: the first of all environments' actions
# Nothing in these can be picked up, dropped or opened.
MOVES_ONLY = ("Memory", "Empty", "FourRooms", "LavaCrossing", "SimpleCrossing", "LavaGap", "DistShift", "Dynamic")
# minigrid 3.2.0 is packaged without the images that these are made from.
EXCLUDED = ("WFC-",)


def members() -> list[str]:
    """`<Name>` of each `MiniGrid-<Name>-v0` that the package registers and can make."""
    ids = (id for id in gymnasium.registry if id.startswith(PREFIX) and id.endswith(SUFFIX))
    every = (id.removeprefix(PREFIX).removesuffix(SUFFIX) for id in ids)
    return [name for name in every if not name.startswith(EXCLUDED)]


def make_grid(name: str) -> gymnasium.Env:
    """`MiniGrid-<name>-v0` as `AgentView`; its actions are the moves alone where the others have no effect.

    Moves: turn left, turn right, forward. Others, in the package's order: pick up, drop, toggle, done.
    """
    # Gymnasium's checker would check every step.
    env = gymnasium.make(f"{PREFIX}{name}{SUFFIX}", disable_env_checker=True)
    return AgentView(env, MOVES if name.startswith(MOVES_ONLY) else None)


class AgentView(gymnasium.ObservationWrapper, RecordConstructorArgs):
    """The cells in front of the agent that it can see, 7 by 7, as the package draws them.

    Observation: (64, 64, 3) uint8, a cell is 9 by 9 pixels; the agent stands at the bottom in the middle and looks up,
    and what it carries lies under it. The compass and the text of the mission are left out: environments whose mission
    names another object in each episode (Fetch, GoToDoor, GoToObject, PutNear) cannot be solved.

    Args:
        env: a MiniGrid environment.
        moves: the number of its first actions to offer; None for all.
    """

    def __init__(self, env: gymnasium.Env, moves: int | None) -> None:
        # Recorded so that Gymnasium can make the environment again from its spec.
        RecordConstructorArgs.__init__(self, moves=moves)
        gymnasium.ObservationWrapper.__init__(self, env)
        self.observation_space = gymnasium.spaces.Box(0, 255, IMAGE_SHAPE, np.uint8)
        if moves is not None:
            self.action_space = gymnasium.spaces.Discrete(moves)

    def observation(self, observation: dict[str, Any]) -> np.ndarray:
        return _render(observation["image"])

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"this MiniGrid environment has {self.action_space}, not action {action!r}")
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, float(reward), terminated, truncated, info


def _render(view: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8, kind, colour and state of each cell by column and row -> (64, 64, 3) uint8.

    Pixel for pixel the package's `get_pov_render`, top left on black, without computing visibility again, which takes
    most of a step.
    """
    cells = view.shape[0]
    side = IMAGE_SHAPE[0] // cells
    agent = (cells // 2, cells - 1)
    image = np.zeros(IMAGE_SHAPE, np.uint8)
    for i, column in enumerate(view.tolist()):
        for j, cell in enumerate(column):
            tile = _tile(*cell, side, (i, j) == agent)
            image[j * side : (j + 1) * side, i * side : (i + 1) * side] = tile
    return image


@functools.cache
def _tile(kind: int, colour: int, state: int, side: int, has_agent: bool) -> np.ndarray:
    """One cell, (side, side, 3) uint8; highlighted where the agent sees it."""
    return Grid.render_tile(
        WorldObj.decode(kind, colour, state),
        agent_dir=3 if has_agent else None,
        highlight=kind != OBJECT_TO_IDX["unseen"],
        tile_size=side,
    )
