"""Scripted policies for Memory Maze that go out and come back the same way, so that what they see was seen before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs.waypoints import LEFT, Cell, cell_of, centre, random_cell, shortest_path, steer

OUT, BACK = 0, 1  # the label `phase`
TURN = 20
"""Steps of a full turn on the spot: 18.4 degrees each."""
LOOKS = 0.25
"""The chance to look around in a cell entered for the first time; it is 1 in the start cell."""
ARRIVED = 0.3
"""Distance in cells at which the middle of a cell counts as reached: a step is a quarter of a cell."""
CELL_STEPS, CORNER_STEPS = 5, 7
"""Steps to the next cell, and for a change of direction before it; generous."""
SHORTEST, LONGEST = 40, 400
"""Steps of one trajectory of `RepeatedOutAndBack`."""


class OutAndBack:
    """The retrieval trajectory of LSSVWM (arXiv 2505.20171, section 5): a path, then the same path reversed.

    In the first half of the steps it goes to random cells, one after another; in the second half it visits the same
    cells in reverse order. It goes from the middle of a cell to the middle of the next, without noise.

    It cannot go backwards: it turns round, and on the way back sees what was behind it on the way out. To have seen
    this before, it looks around, by a full turn on the spot, in the start cell and in a quarter of the cells that it
    enters for the first time, and again in these cells on the way back as long as time for the rest is left. It also
    turns on the spot when no time is left to reach another cell, at the end of either half.

    Args:
        steps: of the whole episode, at least 2; of an odd number the longer half is the way back. The time suffices to
            come back from about 100 steps on.
        seed: of the goals and the cells to look around in.
    """

    def __init__(self, steps: int, seed: int) -> None:
        if steps < 2:
            raise ValueError(f"out and back takes at least 2 steps, not {steps}")
        self._steps, self._half = steps, steps // 2
        self._rng = np.random.default_rng(seed)
        self._taken = 0
        self._turning = 0  # steps left of looking around
        self._route: list[Cell] = []  # cells whose middle is still to be reached, the next one first
        self._visited: list[Cell] = []  # cells of the way out, in order
        self._looked: list[Cell] = []

    @property
    def phase(self) -> int:
        """OUT or BACK, of the last action; OUT before the first."""
        return BACK if self._taken > self._half else OUT

    def act(self, info: Mapping[str, Any]) -> int:
        """The next action; reads maze_layout, agent_pos and agent_dir of `info`, of the frame before it."""
        here = cell_of(info["agent_pos"])
        if self._taken <= self._half and self._visited[-1:] != [here]:
            self._visited.append(here)
        if self._taken == self._half:
            self._turning = 0
            self._route = self._visited[::-1]
        self._taken += 1
        self._arrive(info["agent_pos"], here)
        if self._taken <= self._half and not self._route:
            self._route = shortest_path(info["maze_layout"], here, random_cell(info["maze_layout"], here, self._rng))
        if self._turning or not self._route:
            self._turning = max(0, self._turning - 1)
            return LEFT
        return steer(np.asarray(info["agent_dir"]), centre(self._route[0]) - np.asarray(info["agent_pos"]))

    def _arrive(self, position: np.ndarray, here: Cell) -> None:
        """Removes the next cell from the route if its middle is reached, and decides whether to look around there."""
        if self._turning or not self._route or np.linalg.norm(centre(self._route[0]) - position) > ARRIVED:
            return
        self._route.pop(0)
        if self._taken <= self._half:
            left = self._half - self._taken
            fresh = here not in self._looked and self._visited.count(here) == 1
            if left < CELL_STEPS + CORNER_STEPS:
                self._turning = left + 1
            elif fresh and (not self._looked or self._rng.random() < LOOKS):
                self._looked.append(here)
                self._turning = TURN
        elif here in self._looked and self._steps - self._taken >= TURN + _path_steps([here, *self._route]):
            self._turning = TURN


class RepeatedOutAndBack:
    """One `OutAndBack` after another, log-uniformly of `SHORTEST` to `LONGEST` steps.

    As training data: what was seen comes again after short and long times.

    Args:
        seed: of the lengths and the trajectories.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._left = 0  # steps of the trajectory

    def act(self, info: Mapping[str, Any]) -> int:
        """The next action; `info` as for `OutAndBack`."""
        if not self._left:
            self._left = round(np.exp(self._rng.uniform(np.log(SHORTEST), np.log(LONGEST))))
            self._trajectory = OutAndBack(self._left, int(self._rng.integers(1 << 32)))
        self._left -= 1
        return self._trajectory.act(info)


def _path_steps(cells: Sequence[Cell]) -> int:
    """Steps that suffice to go along these cells, with a turn at the beginning."""
    moves = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(cells, cells[1:], strict=False)]
    corners = 1 + sum(a != b for a, b in zip(moves, moves[1:], strict=False))
    return CELL_STEPS * len(moves) + CORNER_STEPS * corners
