"""The README's commands on Memory Maze at debug size: train, then everything that reads the run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as imageio
import pytest

from eval import openloop, plot
from replay import Replay

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "maze"
    command = [sys.executable, "train_agent.py", "--env", "MemoryMaze", "--preset", "debug", "--run-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_training_leaves_episodes_a_plot_and_a_video(run: Path):
    replay = Replay(run / "episodes", 10**6)
    assert [replay.get(name).steps for name in replay.names()] == [1000, 1000]
    assert (run / "plots" / "returns.png").stat().st_size > 10_000
    assert len(imageio.imread(run / "videos" / "openloop.mp4", plugin="pyav")) == 15 + 45


def test_open_loop_scores_every_answer_by_horizon(run: Path, capsys: pytest.CaptureFixture[str]):
    openloop.main([str(run), "--episodes", "1", "--horizon", "15", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result.keys() == {"moving", "all"}
    for table in result.values():
        assert all(len(table[name]) == 15 for name in ("model", "repeat", "mean_image", "reconstruction"))
    every = result["all"]
    assert every["repeat"][0] > every["repeat"][14]
    assert (run / "plots" / "openloop.png").exists()


def test_two_runs_on_one_figure(run: Path, tmp_path: Path):
    plot.main([str(run), str(run), "--out", str(tmp_path / "both.png")])
    assert (tmp_path / "both.png").stat().st_size > 10_000
