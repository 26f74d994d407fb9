"""The scripted policies: their paths, their steering, and the way back."""

import numpy as np
import pytest

from envs.loops import Loops, another_way_back, loop
from envs.out_and_back import BACK, LONGEST, OUT, SHORTEST, OutAndBack, RepeatedOutAndBack
from envs.waypoints import (
    FORWARD,
    FORWARD_LEFT,
    FORWARD_RIGHT,
    LEFT,
    RIGHT,
    RandomGoals,
    Waypoints,
    cell_of,
    random_cell,
    shortest_path,
)

LAYOUT = np.array([[1, 1, 1], [0, 0, 1], [1, 1, 1]], np.uint8)  # row 0 is the bottom


def test_path_goes_round_the_wall():
    assert shortest_path(LAYOUT, (0, 0), (0, 2)) == [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2)]


def test_no_way_and_already_there():
    shut = np.array([[1, 0, 1]], np.uint8)
    assert shortest_path(shut, (0, 0), (2, 0)) == [(0, 0)]
    assert shortest_path(shut, (0, 0), (0, 0)) == [(0, 0)]


@pytest.mark.parametrize(
    ("heading", "action"),
    [((1, 0), FORWARD), ((0, 1), RIGHT), ((0, -1), LEFT), ((-1, 0.1), RIGHT), ((1, -0.5), FORWARD_LEFT)],
)
def test_turns_to_the_next_cell(heading, action):
    info = {
        "maze_layout": LAYOUT,
        "agent_pos": np.array([0.5, 0.5]),
        "agent_dir": np.array(heading, float),
        "target_pos": np.array([0.5, 2.5]),
    }
    assert Waypoints().act(info) == action


def test_noise_is_seeded():
    info = {
        "maze_layout": LAYOUT,
        "agent_pos": np.array([0.5, 0.5]),
        "agent_dir": np.array([1.0, 0.0]),
        "target_pos": np.array([2.5, 0.5]),
    }
    one, other = Waypoints(noise=0.5, seed=1), Waypoints(noise=0.5, seed=1)
    actions = [one.act(info) for _ in range(50)]
    assert actions == [other.act(info) for _ in range(50)]
    assert FORWARD in actions and len(set(actions)) > 2


def test_random_goals_are_other_cells_that_are_free():
    rng = np.random.default_rng(0)
    drawn = {random_cell(LAYOUT, (1, 2), rng) for _ in range(100)}
    assert drawn == {(x, y) for x in range(3) for y in range(3) if LAYOUT[y, x]} - {(1, 2)}


def play(policy, steps: int, layout: np.ndarray = LAYOUT) -> list[tuple[int, int]]:
    """Cells visited by an agent that turns by 18.4 degrees or moves a quarter of a cell at a step, as in the maze."""
    position, angle, visited = np.array([0.5, 0.5]), 0.0, []
    for _ in range(steps):
        info = {"maze_layout": layout, "agent_pos": position, "agent_dir": np.array([np.cos(angle), np.sin(angle)])}
        visited.append(cell_of(position))
        action = policy.act(info)
        angle += np.radians(18.4) * ((action in (LEFT, FORWARD_LEFT)) - (action in (RIGHT, FORWARD_RIGHT)))
        if action in (FORWARD, FORWARD_LEFT, FORWARD_RIGHT):
            position = position + 0.25 * np.array([np.cos(angle), np.sin(angle)])
    return [cell for i, cell in enumerate(visited) if i == 0 or cell != visited[i - 1]]


def test_random_goals_are_reached_one_after_another():
    visited = play(RandomGoals(0.0, seed=0), 400, np.ones((9, 9), np.uint8))
    assert len(set(visited)) > 30


@pytest.mark.parametrize("steps", [100, 301, 800])
def test_out_and_back(steps):
    phases = []

    class Watched(OutAndBack):
        def act(self, info):
            phases.append(self.phase)
            return super().act(info)

    visited = play(Watched(steps, seed=2), steps)
    assert len(visited) > 2 and visited == visited[::-1] and visited[0] == (0, 0)
    assert phases == [OUT] * (steps // 2 + 1) + [BACK] * (steps - steps // 2 - 1)


def test_out_and_back_takes_two_steps():
    with pytest.raises(ValueError, match="at least 2 steps, not 1"):
        OutAndBack(1, seed=0)
    assert len(play(OutAndBack(2, seed=0), 2)) == 1


def test_repeated_out_and_back(monkeypatch):
    lengths = []

    class Watched(OutAndBack):
        def __init__(self, steps, seed):
            lengths.append(steps)
            super().__init__(steps, seed)

    monkeypatch.setattr("envs.out_and_back.OutAndBack", Watched)
    layout, steps = np.ones((9, 9), np.uint8), 4_000
    visited = play(RepeatedOutAndBack(seed=1), steps, layout)
    assert sum(lengths[:-1]) < steps <= sum(lengths)  # each to its end before the next begins
    assert SHORTEST <= min(lengths) and max(lengths) <= LONGEST and len(set(lengths)) > len(lengths) / 2
    assert np.median(lengths) < 200  # evenly by logarithm, not by steps
    assert len(set(visited)) > 15  # the start of each is where the last one came back to, and it goes elsewhere
    assert visited == play(RepeatedOutAndBack(seed=1), steps, layout)


RING = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 1, 0]], np.uint8)  # a ring of eight cells, and a dead end


def test_a_loop_comes_back_by_another_way():
    walked = loop(RING, (0, 0), (2, 2))
    assert walked[0] == walked[-1] == (0, 0) and len(set(walked)) == len(walked) - 1 == 8


def test_a_loop_shares_only_what_it_must():
    # the dead end (3, 0) has one way in; between (2, 0) and (0, 0) there are two
    assert loop(RING, (3, 0), (0, 0)) == [
        *[(3, 0), (2, 0), (1, 0), (0, 0)],
        *[(0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (3, 0)],
    ]


def test_without_another_way_it_is_out_and_back():
    corridor = np.ones((1, 4), np.uint8)
    assert loop(corridor, (0, 0), (3, 0)) == [(0, 0), (1, 0), (2, 0), (3, 0), (2, 0), (1, 0), (0, 0)]
    assert another_way_back(corridor, [(1, 0)]) == [(1, 0)]
    with pytest.raises(ValueError, match=r"no way from \(3, 0\) to \(0, 0\)"):
        another_way_back(np.array([[1, 0, 1, 1]], np.uint8), [(0, 0), (3, 0)])


def test_loops_are_walked_one_after_another():
    visited = play(Loops(seed=0), 600, RING)
    homes = [i for i, cell in enumerate(visited) if cell == (0, 0)]
    assert len(homes) > 5 and len(set(visited)) == RING.sum()
    closed = [visited[a : b + 1] for a, b in zip(homes, homes[1:], strict=False)]
    assert any(len(set(walk)) == len(walk) - 1 == 8 for walk in closed)  # all round
    assert visited == play(Loops(seed=0), 600, RING)
