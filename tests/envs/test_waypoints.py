"""The scripted walker: its paths, and its steering."""

import numpy as np
import pytest

from envs.waypoints import FORWARD, FORWARD_LEFT, LEFT, RIGHT, Waypoints, shortest_path

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
