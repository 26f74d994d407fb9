"""Scripted policies for Memory Maze that read its labels: to the target, or to random cells."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

STAY, FORWARD, LEFT, RIGHT, FORWARD_LEFT, FORWARD_RIGHT = range(6)
Cell = tuple[int, int]

# Angles to the next waypoint (radians): above the first turn on the spot, below the second go straight.
_TURN_ON_THE_SPOT, _STRAIGHT = 0.9, 0.2


class Waypoints:
    """Goes the shortest path to the current target, or to a given goal, cell by cell.

    Args:
        noise: probability of a random action in place of the chosen one.
        seed: of the random actions.
    """

    def __init__(self, noise: float = 0.0, seed: int = 0) -> None:
        self._noise = noise
        self._rng = np.random.default_rng(seed)

    def act(self, info: Mapping[str, Any], goal: np.ndarray | None = None) -> int:
        """The action towards `goal`, (2,) in cells, by default the current target.

        `info`: of `envs.make("MemoryMaze", labels=True)`; reads maze_layout, agent_pos, agent_dir and target_pos.
        """
        if self._noise and self._rng.random() < self._noise:
            return int(self._rng.integers(6))
        position = np.asarray(info["agent_pos"])
        goal = np.asarray(info["target_pos"] if goal is None else goal)
        path = shortest_path(info["maze_layout"], cell_of(position), cell_of(goal))
        waypoint = centre(path[1]) if len(path) > 1 else goal
        return steer(np.asarray(info["agent_dir"]), waypoint - position)


class RandomGoals:
    """Goes as `Waypoints` to one random cell after another: the policy of the public Memory Maze data.

    Goals are uniform over the free cells, whatever the target is.

    Args:
        noise: probability of a random action in place of the chosen one.
        seed: of the goals and the random actions.
    """

    def __init__(self, noise: float, seed: int) -> None:
        goals, actions = np.random.SeedSequence(seed).generate_state(2)
        self._rng = np.random.default_rng(goals)
        self._waypoints = Waypoints(noise, int(actions))
        self._goal: Cell | None = None

    def act(self, info: Mapping[str, Any]) -> int:
        """The next action; `info` as for `Waypoints`, of the frame before it."""
        here = cell_of(info["agent_pos"])
        if self._goal is None or here == self._goal:
            self._goal = random_cell(info["maze_layout"], here, self._rng)
        return self._waypoints.act(info, centre(self._goal))


def random_cell(layout: np.ndarray, here: Cell, rng: np.random.Generator) -> Cell:
    """A cell (x, y) other than `here` where layout[y, x] is 1, each with the same chance."""
    free = [(int(x), int(y)) for y, x in np.argwhere(layout) if (x, y) != here]
    return free[rng.integers(len(free))]


def shortest_path(layout: np.ndarray, start: Cell, end: Cell) -> list[Cell]:
    """Cells (x, y) from start to end, both included, over the cells where layout[y, x] is 1.

    Only [start] if there is no way.
    """
    came_from: dict[Cell, Cell | None] = {start: None}
    queue = deque([start])
    while queue and end not in came_from:
        x, y = queue.popleft()
        for cell in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            inside = 0 <= cell[0] < layout.shape[1] and 0 <= cell[1] < layout.shape[0]
            if inside and layout[cell[1], cell[0]] and cell not in came_from:
                came_from[cell] = (x, y)
                queue.append(cell)
    if end not in came_from:
        return [start]
    path: list[Cell] = []
    step: Cell | None = end
    while step is not None:
        path.append(step)
        step = came_from[step]
    return path[::-1]


def cell_of(position: np.ndarray) -> Cell:
    """The cell (x, y) that a position (2,) lies in."""
    return int(position[0]), int(position[1])


def centre(cell: Cell) -> np.ndarray:
    """The position (2,) of a cell's middle."""
    return np.array(cell) + 0.5


def steer(heading: np.ndarray, to_waypoint: np.ndarray) -> int:
    """The action for the angle from the heading to the waypoint, positive to the left: turn, go forward, or both."""
    cross = heading[0] * to_waypoint[1] - heading[1] * to_waypoint[0]
    angle = np.arctan2(cross, heading @ to_waypoint)
    if abs(angle) > _TURN_ON_THE_SPOT:
        return LEFT if angle > 0 else RIGHT
    if abs(angle) > _STRAIGHT:
        return FORWARD_LEFT if angle > 0 else FORWARD_RIGHT
    return FORWARD
