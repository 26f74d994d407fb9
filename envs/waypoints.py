"""A scripted walker for Memory Maze, led to the targets by the labels: for tests and data collection."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

STAY, FORWARD, LEFT, RIGHT, FORWARD_LEFT, FORWARD_RIGHT = range(6)
Cell = tuple[int, int]

# Angles to the next waypoint (radians): beyond the first turn on the spot, within the second go straight.
_TURN_ON_THE_SPOT, _STRAIGHT = 0.9, 0.2


class Waypoints:
    """Walks the shortest path to the current target, or to a given goal, cell by cell.

    Args:
        noise: probability of a random action in place of the chosen one.
        seed: of the random actions.
    """

    def __init__(self, noise: float = 0.0, seed: int = 0) -> None:
        self._noise = noise
        self._rng = np.random.default_rng(seed)

    def act(self, info: Mapping[str, Any], goal: np.ndarray | None = None) -> int:
        """The action towards `goal`, (2,) in cells, by default the current target.

        `info` is that of `envs.make("MemoryMaze", labels=True)`: maze_layout, agent_pos, agent_dir and
        target_pos are read.
        """
        if self._noise and self._rng.random() < self._noise:
            return int(self._rng.integers(6))
        position = np.asarray(info["agent_pos"])
        goal = np.asarray(info["target_pos"] if goal is None else goal)
        path = shortest_path(info["maze_layout"], _cell(position), _cell(goal))
        waypoint = np.array(path[1]) + 0.5 if len(path) > 1 else goal
        return _steer(np.asarray(info["agent_dir"]), waypoint - position)


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


def _cell(position: np.ndarray) -> Cell:
    return int(position[0]), int(position[1])


def _steer(heading: np.ndarray, to_waypoint: np.ndarray) -> int:
    """Turn, or walk, or both, by the angle from the heading to the waypoint (positive is to the left)."""
    cross = heading[0] * to_waypoint[1] - heading[1] * to_waypoint[0]
    angle = np.arctan2(cross, heading @ to_waypoint)
    if abs(angle) > _TURN_ON_THE_SPOT:
        return LEFT if angle > 0 else RIGHT
    if abs(angle) > _STRAIGHT:
        return FORWARD_LEFT if angle > 0 else FORWARD_RIGHT
    return FORWARD
