"""When a view was last seen, by hand; and the baselines."""

import numpy as np
import pytest
import torch

from agent.runs import presets
from agent.runs.config import Config
from agent.training.learner import Learner
from eval.memory.maze import by_view, continued
from eval.memory.visibility import steps_since
from replay import Episode

NORTH, EAST = (0.0, 1.0), (1.0, 0.0)


def labels(places, directions) -> dict[str, np.ndarray]:
    return {"agent_pos": np.array(places, float), "agent_dir": np.array(directions, float)}


def test_steps_since_by_hand():
    # three cells and back, the way back facing east
    path = labels([(0, 0), (1, 0), (2, 0), (1, 0), (0, 0), (0.4, 0)], [NORTH, NORTH, NORTH, EAST, NORTH, NORTH])
    since = steps_since(path, np.array([2]), np.array([[3, 4, 5]]))
    # the same place in another direction was not seen; the start was, 4 and 5 steps ago
    assert since.tolist() == [[0, 4, 5]]
    # with more in memory the latest sight counts
    assert steps_since(path, np.array([4]), np.array([[5]])).tolist() == [[1]]


def test_what_is_near_enough():
    path = labels([(0, 0), (0.5, 0), (0.51, 0), (0, 0), (0, 0)], [NORTH] * 3 + [(0.3, 0.954), (0.36, 0.933)])
    assert steps_since(path, np.array([0]), np.array([[1, 2, 3, 4]])).tolist() == [[1, 0, 3, 0]]  # 17.5, 21.1 degrees


@pytest.fixture(scope="module")
def learner():
    torch.manual_seed(0)
    made = Learner(presets.apply("debug", "image", Config(env="MemoryMaze")), (32, 32, 3), 6)
    made.model.eval()
    return made


def episode(rows: int, still: bool) -> Episode:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (1 if still else rows, 32, 32, 3), dtype=np.uint8)
    action = np.eye(6, dtype=np.float32)[random.integers(0, 6, rows)]
    action[0] = 0
    where = labels([(i // 20, 0) for i in range(rows)], [NORTH] * rows)
    observation = np.broadcast_to(frames, (rows, 32, 32, 3)).copy()
    return Episode(observation, action, np.zeros(rows, np.float32), np.zeros(rows, bool), where)


def test_baselines_are_perfect_where_nothing_moves(learner):
    found = continued(learner, [episode(100, still=True)] * 2, 0.5)
    for name in ("repeat", "mean"):
        assert found[name]["psnr"] > 55 and found[name]["ssim"] > 0.999 and found[name]["frames"] == 100
    assert found["model"]["psnr"] < 20
    names = {"wiped", "mode", "single", "reconstruction", "heading", "nearest_pose", "pose_kernel", "best_frame"}
    assert names <= set(found) and found["wiped"]["by_gap"]["all"]["frames"] == 100
    assert found["best_frame"]["psnr"] >= found["nearest_pose"]["psnr"] - 1e-6
    assert list(found["remembrance"]) == ["16", "32"]  # of a context of 50 frames
    model = found["model"]  # 50 frames, in two stretches
    assert len(model["curve"]) == 2 and np.mean(model["curve"]) == pytest.approx(model["psnr"], abs=1e-3)


def test_frames_are_sorted_by_their_view(learner):
    found = by_view(learner, [episode(100, still=False)])
    # a cell is left after 20 rows and never seen again: frames ahead are of this cell or of a new one
    assert set(found) == {"1-15", "never"}
    starts = range(7, 100 - 8, 8)
    ahead = [(s + h) // 20 == s // 20 for s in starts for h in range(1, 9)]
    assert found["1-15"]["frames"] == sum(ahead) and found["never"]["frames"] == len(ahead) - sum(ahead)
