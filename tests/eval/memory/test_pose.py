"""Poses by hand, exact reversal, and copies of episodes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.runs.fields import ConfigError
from eval.memory import pose
from replay import Episode, Replay

NORTH, EAST, SOUTH = (0.0, 1.0), (1.0, 0.0), (0.0, -1.0)
PLACES = [(1.5, 1.5), (1.5, 3.5), (3.5, 3.5), (3.5, 1.5), (5.5, 1.5)]
HEADINGS = [NORTH, NORTH, EAST, SOUTH, EAST]


def walk() -> Episode:
    """Five frames, each of its own grey: two cells north, east, south, east."""
    frames = np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None, None], (5, 8, 8, 3)).copy()
    action = np.eye(6, dtype=np.float32)[[0, 1, 1, 1, 1]]
    action[0] = 0
    labels = {"agent_pos": np.array(PLACES), "agent_dir": np.array(HEADINGS)}
    return Episode(frames, action, np.arange(5, dtype=np.float32), np.zeros(5, bool), labels)


def test_poses_are_ahead_and_to_the_left_of_the_first_frame():
    found = pose.relative_poses(walk().labels)
    assert found.dtype == np.float32 and found.shape == (5, pose.WIDTH)
    cells = [(0, 0), (2, 0), (2, -2), (0, -2), (0, -4)]  # north is ahead, and east to the right
    np.testing.assert_allclose(found[:, :2] * pose.SCALE, cells, atol=1e-6)
    np.testing.assert_allclose(found[:, 2:], [(1, 0), (1, 0), (0, -1), (-1, 0), (0, -1)], atol=1e-6)


@pytest.mark.parametrize("turn", [0.3, 2.0, -1.0])
def test_poses_do_not_say_where_an_episode_began(turn):
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.array([[cos, sin], [-sin, cos]])
    labels = walk().labels
    moved = {"agent_pos": labels["agent_pos"] @ rotation + 3, "agent_dir": labels["agent_dir"] @ rotation}
    np.testing.assert_allclose(pose.relative_poses(moved), pose.relative_poses(labels), atol=1e-6)


def test_poses_stand_in_place_of_actions():
    made = pose.with_poses(walk())
    assert not made.action[0].any() and (made.action[1:] == pose.relative_poses(walk().labels)[1:]).all()
    assert (made.observation == walk().observation).all()
    assert made.reward.tolist() == [0, 1, 2, 3, 4]


def test_the_second_half_is_the_first_reversed():
    made = pose.reversal(walk())
    assert made.observation[:, 0, 0, 0].tolist() == made.reward.tolist() == [0, 1, 1, 0]
    expected = pose.relative_poses(walk().labels)[[0, 1, 1, 0]]
    assert not made.action[0].any() and (made.action[1:] == expected[1:]).all()
    assert made.action[-1].tolist() == [0, 0, 1, 0]  # at the start again, as it began
    assert (made.labels["agent_pos"] == np.array(PLACES)[[0, 1, 1, 0]]).all()


def test_every_second_copy_is_reversed_and_none_is_made_twice(tmp_path: Path):
    source = Replay(tmp_path / "train", 1000)
    for _ in range(3):
        source.add(walk())
    folder = pose.convert(tmp_path / "train")
    assert folder == tmp_path / "train-pose"
    copies = Replay(folder, 1000)
    assert [len(copies.get(name)) for name in copies.names()] == [5, 4, 5]
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    source.add(walk())
    pose.convert(tmp_path / "train")
    assert len(list(folder.glob("*.npz"))) == 4 and all(p.stat().st_mtime_ns == at for p, at in stamps.items())


def test_episodes_without_poses_are_refused(tmp_path: Path):
    Replay(tmp_path / "train", 1000).add(replace(walk(), labels={}))
    with pytest.raises(ConfigError, match="train has no labels agent_pos and agent_dir, which --pose needs"):
        pose.convert(tmp_path / "train")
