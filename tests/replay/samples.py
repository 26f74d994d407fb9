"""Episodes to test with. The observation of row t of episode `tag` differs from every other row's."""

import numpy as np

from replay import Episode

ACTIONS = 3


def vector_episode(rows: int, tag: int = 0, terminated: bool = True) -> Episode:
    """(rows, 2) observations (tag, t), action t % 3, reward t."""
    t = np.arange(rows)
    action = np.eye(ACTIONS, dtype=np.float32)[t % ACTIONS]
    action[0] = 0
    ends = np.zeros(rows, np.bool_)
    ends[-1] = terminated
    return Episode(
        observation=np.stack([np.full(rows, tag), t], axis=1).astype(np.float32),
        action=action,
        reward=t.astype(np.float32),
        terminated=ends,
    )


def public_file(rows: int = 11) -> dict[str, np.ndarray]:
    """The arrays of a file as in Memory Maze's public data, with its dtypes; there, rows = 1001."""
    random = np.random.default_rng(0)
    action = np.eye(6, dtype=np.uint8)[random.integers(0, 6, rows)]
    action[0] = 0
    reward = np.zeros(rows)
    reward[5] = 1
    return {
        "image": random.integers(0, 256, (rows, 64, 64, 3), dtype=np.uint8),
        "action": action,
        "reward": reward,
        "maze_layout": random.integers(0, 2, (rows, 9, 9), dtype=np.uint8),
        "agent_pos": random.random((rows, 2)),
        "targets_vec": random.random((rows, 3, 2)),
    }


def assert_same(one: Episode, other: Episode) -> None:
    """Equal arrays under equal keys, dtypes too."""
    left, right = one.arrays(), other.arrays()
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype, key
        np.testing.assert_array_equal(left[key], right[key], err_msg=key)
