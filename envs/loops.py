"""A scripted policy for Memory Maze that walks along closed loops, so that it comes back by another way."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs.out_and_back import ARRIVED
from envs.waypoints import Cell, cell_of, centre, random_cell, shortest_path, steer

AGAIN = 1_000
"""Cells that a way back goes round rather than enter one cell of the way out again."""


class Loops:
    """Walks one closed loop of cells after another, each from the cell that the episode began in and back to it.

    A loop is the shortest way to a random cell, then the shortest of the ways back that share the fewest cells with
    it: none where the maze has another way, all where it has not (out and back). It goes from the middle of a cell to
    the middle of the next, without noise.

    Args:
        seed: of the goals.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._route: list[Cell] = []  # cells whose middle is still to be reached, the next one first

    def act(self, info: Mapping[str, Any]) -> int:
        """The next action; reads maze_layout, agent_pos and agent_dir of `info`, of the frame before it."""
        position = np.asarray(info["agent_pos"])
        if self._route and np.linalg.norm(centre(self._route[0]) - position) <= ARRIVED:
            self._route.pop(0)
        if not self._route:
            here = cell_of(position)
            self._route = loop(info["maze_layout"], here, random_cell(info["maze_layout"], here, self._rng))[1:]
        return steer(np.asarray(info["agent_dir"]), centre(self._route[0]) - position)


def loop(layout: np.ndarray, start: Cell, goal: Cell) -> list[Cell]:
    """Cells from start to goal the shortest way, and back to start; over the cells where layout[y, x] is 1."""
    out = shortest_path(layout, start, goal)
    return out + another_way_back(layout, out)[1:]


def another_way_back(layout: np.ndarray, out: Sequence[Cell]) -> list[Cell]:
    """From the last cell of the path `out` to its first: the fewest cells of the path, then the fewest cells.

    Dijkstra's algorithm (1959), where a cell of the path counts `AGAIN` cells.
    """
    used = set(out[1:-1])
    queue: list[tuple[int, Cell, tuple[Cell, ...]]] = [(0, out[-1], ())]
    done: set[Cell] = set()
    while queue:
        cost, cell, before = heapq.heappop(queue)
        way = (*before, cell)
        if cell == out[0]:
            return list(way)
        if cell in done:
            continue
        done.add(cell)
        x, y = cell
        for step in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            inside = 0 <= step[0] < layout.shape[1] and 0 <= step[1] < layout.shape[0]
            if inside and layout[step[1], step[0]]:
                heapq.heappush(queue, (cost + (AGAIN if step in used else 1), step, way))
    raise ValueError(f"no way from {out[-1]} to {out[0]}")
