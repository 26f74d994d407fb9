"""Probes: what is in view by hand; what features hold is found, and no more."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.runs import presets
from agent.runs.config import Config
from agent.runs.folder import open_run
from agent.training.learner import Learner
from agent.training.offline import train_offline
from eval.memory.probe_features import features, read
from eval.memory.probe_mlp import Fitting, Probe, fit, predict
from eval.memory.visibility import NEVER, in_view, steps_since_seen
from eval.probe import main, split
from replay import Episode, Replay

ROWS, SIZE = 40, 5
QUICK = Fitting(hidden=64, layers=2, updates=300, batch=128, learning_rate=1e-3)


def labels(places, headings, objects, layout=None) -> dict[str, np.ndarray]:
    """Of an agent at `places` with `headings`, and objects that stay where they are."""
    rows = len(places)
    layout = np.ones((SIZE, SIZE), np.uint8) if layout is None else layout
    places, headings = np.array(places, float), np.array(headings, float)
    objects = np.array(objects, float)
    away = objects - places[:, None]
    ahead = (away * headings[:, None]).sum(-1)
    aside = away[..., 0] * headings[:, None, 1] - away[..., 1] * headings[:, None, 0]
    return {
        "maze_layout": np.broadcast_to(layout, (rows, SIZE, SIZE)).copy(),
        "agent_pos": places,
        "agent_dir": headings,
        "targets_pos": np.broadcast_to(objects, (rows, *objects.shape)).copy(),
        "targets_vec": np.stack([aside, ahead], -1),
    }


def test_what_is_in_view():
    east, west, north = (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0)
    spot = [(1.5, 1.5)] * 3
    # straight ahead to the east; and 45 degrees off it, more than half of 80
    seen = in_view(labels(spot, [east, west, north], [(3.5, 1.5), (3.5, 3.5)]))
    assert seen.tolist() == [[True, False], [False, False], [False, False]]
    wall = np.ones((SIZE, SIZE), np.uint8)
    wall[1, 2] = 0  # at x 2..3, y 1..2: between the two
    assert not in_view(labels(spot, [east] * 3, [(3.5, 1.5)], wall)).any()


def test_steps_since_an_object_was_seen():
    east, west = (1.0, 0.0), (-1.0, 0.0)
    found = steps_since_seen(labels([(1.5, 1.5)] * 5, [west, east, west, west, east], [(3.5, 1.5)]))
    assert found[:, 0].tolist() == [NEVER, 0, 1, 2, 0]


def test_a_probe_finds_what_is_there_and_no_more():
    torch.manual_seed(0)
    truth = torch.randn(2000, 3)
    mixed = truth @ torch.randn(3, 20) + 0.01 * torch.randn(2000, 20)
    noise = torch.randn(2000, 20)
    for inputs, least, most in ((mixed, 0.0, 0.1), (noise, 0.9, 1.1)):
        probe = Probe(20, truth.mean(0), truth.std(0), QUICK)
        data = [(inputs[part], truth[part]) for part in (slice(0, 1200), slice(1200, 1600))]
        fit(probe, torch.nn.functional.mse_loss, *data, QUICK)
        error = (predict(probe, inputs[1600:]) - truth[1600:]).square().mean()
        assert least <= error <= most * truth[1600:].var()


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    random = np.random.default_rng(0)
    made = []
    for _ in range(6):
        angle = random.uniform(0, 2 * np.pi, ROWS)
        heading = np.stack([np.cos(angle), np.sin(angle)], -1)
        known = labels(random.uniform(0.5, SIZE - 0.5, (ROWS, 2)), heading, random.uniform(1, 4, (3, 2)))
        action = np.eye(6, dtype=np.float32)[random.integers(0, 6, ROWS)]
        action[0] = 0
        frames = random.integers(0, 256, (ROWS, 64, 64, 3), dtype=np.uint8)
        made.append(Episode(frames, action, np.zeros(ROWS, np.float32), np.zeros(ROWS, bool), known))
    return made


def config(folder: Path) -> Config:
    return presets.apply("debug", "image", Config(env="MemoryMaze", run_dir=str(folder)))


def test_features_hold_the_whole_past(episodes: list[Episode], tmp_path: Path):
    torch.manual_seed(0)
    learner = Learner(config(tmp_path), (64, 64, 3), 6)
    learner.model.eval()
    every = features(learner, episodes[:2])
    assert every.shape == (2, ROWS, learner.model.tokens * learner.model.feature_width)
    torch.testing.assert_close(features(learner, episodes[:2], stride=4), every[:, ::4])
    frames = read(learner, episodes[:2], stride=4)
    assert frames.row.tolist() == [*range(0, ROWS, 4)] * 2
    assert torch.equal(frames.scored, frames.row >= ROWS // 2)
    torch.testing.assert_close(
        frames.objects[3], torch.from_numpy(episodes[0].labels["targets_vec"][12]).float().flatten()
    )


def test_the_command(episodes: list[Episode], tmp_path: Path, capsys: pytest.CaptureFixture):
    replay = Replay(tmp_path / "data", 10_000)
    for episode in episodes:
        replay.add(episode)
    open_run(config(tmp_path / "run"))
    train_offline(config(tmp_path / "run"), tmp_path / "run", tmp_path / "data", 1, stream=io.StringIO())
    main(
        [str(tmp_path / "run"), "--data", str(tmp_path / "data"), "--hidden", "16", "--layers", "1", "--updates", "20"]
    )
    assert "walls, accuracy" in capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert result["train"] == 4 and result["held_out"] == 2
    assert result["walls"]["constant"] == 1.0  # every maze here is without walls
    counted = sum(errors["count"] for errors in result["objects"]["by_age"].values())
    assert counted == 2 * 3 * sum(row >= ROWS // 2 for row in range(0, ROWS, 4))
    assert (tmp_path / "run" / "plots" / "probe.png").stat().st_size > 5_000


def test_too_few_episodes_are_refused(episodes: list[Episode]):
    with pytest.raises(ValueError, match="want at least 2"):
        split(episodes[:2], None)
