"""Which objects and views of a Memory Maze are seen, and how long ago each was: geometry on an episode's labels.

An object is in view where its centre lies within the camera's field of view and the straight line to it from the
camera crosses no wall. The camera stands 0.15 units (0.075 cells) before the agent's centre, looks along its heading,
and shows 80 degrees (`fovy` of dm_control's jumping_ball_with_head.xml; frames are square). An approximation: an object
of which only an edge shows counts as hidden.
"""

from collections.abc import Mapping

import numpy as np

HALF_VIEW = np.radians(40.0)
CAMERA = 0.075
"""Cells from the agent's centre to the camera."""
POINTS = 128
"""Points checked on a line of sight; on the longest in a 9 x 9 maze, one each tenth of a cell."""
NEVER = -1
CELLS, DEGREES = 0.5, 20.0
"""How near in place and direction two frames show the same view."""
BINS = {"1-15": (1, 15), "16-63": (16, 63), "64-255": (64, 255), "256-": (256, 1 << 30), "never": (0, 0)}
"""Steps since a view was last seen, both ends included."""


def in_view(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """(L, M) bool: whether each of M objects is in view in each of L frames.

    Reads maze_layout (L, S, S), agent_pos and agent_dir (L, 2), targets_pos (L, M, 2), all in cells; one maze.
    """
    heading = labels["agent_dir"]
    camera = labels["agent_pos"] + CAMERA * heading
    to_object = labels["targets_pos"] - camera[:, None]  # (L, M, 2)
    ahead = (to_object * heading[:, None]).sum(-1)
    aside = to_object[..., 0] * heading[:, None, 1] - to_object[..., 1] * heading[:, None, 0]
    framed = np.abs(np.arctan2(aside, ahead)) <= HALF_VIEW
    layout = labels["maze_layout"][0].astype(bool)
    line = camera[:, None, None] + to_object[:, :, None] * np.linspace(0, 1, POINTS)[:, None]  # (L, M, points, 2)
    x, y = np.moveaxis(line.astype(int), -1, 0)
    free = layout[np.clip(y, 0, layout.shape[0] - 1), np.clip(x, 0, layout.shape[1] - 1)]
    return framed & free.all(-1)


def steps_since_seen(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """(L, M) int: steps since each object was last in view; 0 where it is in view, `NEVER` where it has not been."""
    seen = in_view(labels)
    rows = np.arange(len(seen))[:, None]
    latest = np.maximum.accumulate(np.where(seen, rows, -1), axis=0)
    return np.where(latest < 0, NEVER, rows - latest)


def steps_since(labels: Mapping[str, np.ndarray], last: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """For each of `frames` (W, H), steps since its view was seen in the frames up to `last` (W,); 0: never."""
    place, direction = labels["agent_pos"], labels["agent_dir"]
    near = np.linalg.norm(place[frames][:, :, None] - place, axis=-1) <= CELLS  # (W, H, L)
    same = direction[frames] @ direction.T >= np.cos(np.radians(DEGREES))
    seen = near & same & (np.arange(len(place)) <= last[:, None, None])
    latest = len(place) - 1 - seen[..., ::-1].argmax(-1)
    return np.where(seen.any(-1), frames - latest, 0)
