"""Poses in place of actions, and exact reversal: the protocol of LSSVWM (arXiv 2505.20171, section 5) in Memory Maze.

There the agent's pose is a model's input, and retrieval is the frames of the context in reverse order. Poses take the
place of actions in an episode, so that a world model needs nothing but its `action` input:

| column | value                                                                       |
|--------|-----------------------------------------------------------------------------|
| 0, 1   | ahead and to the left of the first frame's place, in units of `SCALE` cells |
| 2, 3   | cosine and sine of the angle from the first frame's heading                 |

All is relative to the episode's first frame: where in the maze it begins is not an input. Row 0 is zero, as the action
of a reset is.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from agent.runs.fields import ConfigError
from agent.training.offline import EVERYTHING
from eval.memory.predictors import has_poses
from replay import Episode, Replay, save_episode
from replay.atomic import remove_leftovers, wait_for_lock
from replay.progress import track

WIDTH = 4
"""Columns of a pose."""
SCALE = 8.0
"""Cells that 1 stands for: as far as a place can be along a side of the 9 x 9 maze."""


def relative_poses(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """(L, 4) float32: the pose of each frame relative to the first."""
    place, heading = labels["agent_pos"], labels["agent_dir"]
    ahead = heading[0] / np.linalg.norm(heading[0])
    axes = np.stack([ahead, [-ahead[1], ahead[0]]], -1)  # columns: ahead, left
    return np.concatenate([(place - place[0]) @ axes / SCALE, heading @ axes], -1).astype(np.float32)


def with_poses(episode: Episode) -> Episode:
    """The episode with poses for actions."""
    action = relative_poses(episode.labels)
    action[0] = 0
    return Episode(episode.observation, action, episode.reward, episode.terminated, episode.labels)


def reversal(episode: Episode) -> Episode:
    """The first half of an episode, then the same frames, poses and all else from the last back to the first.

    Of 801 rows it takes 400, and has 800. The frame at which it turns stands twice.
    """
    there = np.arange(len(episode) // 2)
    return with_poses(episode.take(np.concatenate([there, there[::-1]])))


def require_poses(episode: Episode, origin: str | Path) -> None:
    """Raises ConfigError for an episode whose labels do not say where the agent is."""
    if not has_poses(episode.labels):
        raise ConfigError(f"{origin} has no labels agent_pos and agent_dir, which --pose needs")


def convert(source: Path) -> Path:
    """The folder of copies of the episodes in `source` with poses for actions; those that are there stay.

    Every second copy is a `reversal`, so that training shows both ways of moving. The folder lies beside `source`, and
    takes as much on disk.
    """
    folder = source.with_name(f"{source.name}-pose")
    folder.mkdir(exist_ok=True)
    replay = Replay(source, EVERYTHING)
    with wait_for_lock(folder):
        remove_leftovers(folder)
        missing = [i for i in range(len(replay)) if not any(folder.glob(f"{i:08d}-*.npz"))]
        for i in track(missing, "episodes", folder.name):
            episode = replay.get(replay.names()[i])
            require_poses(episode, source)
            made = reversal(episode) if i % 2 else with_poses(episode)
            save_episode(folder, made, f"{i:08d}-{len(made)}.npz")
    return folder
