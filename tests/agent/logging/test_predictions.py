"""Open-loop prediction: which frames are compared, how they are scored, and its videos."""

import json
from dataclasses import replace

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from agent.logging.predictions import Predictions, predict, psnr, score
from agent.logging.video import openloop_strip, openloop_video
from agent.runs import presets
from agent.runs.config import Config
from agent.training.learner import Learner
from eval import openloop, probe
from replay import Episode, Replay


@pytest.fixture(scope="module")
def learner() -> Learner:
    torch.manual_seed(0)
    return Learner(presets.apply("debug", "image", Config()), (32, 32, 3), 4)


def episode(rows: int) -> Episode:
    random = np.random.default_rng(0)
    action = np.eye(4, dtype=np.float32)[random.integers(0, 4, rows)]
    action[0] = 0
    return Episode(
        observation=random.integers(0, 255, (rows, 32, 32, 3), dtype=np.uint8),
        action=action,
        reward=np.zeros(rows, np.float32),
        terminated=np.zeros(rows, bool),
    )


def test_predictions_are_of_the_frames_after_each_state(learner: Learner):
    e = episode(37)
    p = predict(learner, e, horizon=5, window=16)
    block = learner.config.worldmodel.state_interval
    assert p.index.tolist() == [i for i in range(block - 1, 37, block) if i + 5 < 37]
    for w, at in enumerate(p.index.tolist()):
        np.testing.assert_allclose(p.context[w].numpy() * 255, e.observation[at], atol=1e-3)
        np.testing.assert_allclose(p.truth[w].numpy() * 255, e.observation[at + 1 : at + 6], atol=1e-3)
    assert p.predicted.shape == p.reconstructed.shape == p.truth.shape


def test_predictions_do_not_depend_on_how_the_past_is_cut(learner: Learner):
    learner.config.train.precision = "float32"
    one, other = (predict(learner, episode(40), horizon=4, window=w) for w in (8, 40))
    torch.testing.assert_close(one.predicted, other.predicted, atol=1e-3, rtol=1e-3)


def test_predictions_can_be_few_and_spread_over_the_episode(learner: Learner):
    every = predict(learner, episode(60), horizon=4, dreams=1)
    few = predict(learner, episode(60), horizon=4, dreams=1, most=3)
    assert len(every.index) == 7 and few.index.tolist() == every.index[[0, 3, 6]].tolist()
    torch.testing.assert_close(few.predicted, every.predicted[[0, 3, 6]], atol=1e-2, rtol=0)
    assert len(predict(learner, episode(60), horizon=4, dreams=1, most=99).index) == 7


def test_an_episode_too_short_is_refused(learner: Learner):
    with pytest.raises(ValueError, match="too short"):
        predict(learner, episode(9), horizon=8)


def test_psnr_by_hand():
    a = torch.zeros(2, 4, 4, 3)
    assert psnr(a, a + 0.1).tolist() == pytest.approx([20.0, 20.0], abs=1e-3)
    assert psnr(a, a).tolist() == [60.0, 60.0]


def test_score_separates_moving_starts_from_still_ones(learner: Learner):
    p = predict(learner, episode(40), horizon=4)
    still = predict(learner, episode(40), horizon=4)
    still.truth[:] = still.context.unsqueeze(1)
    result = score([p, still], torch.full((32, 32, 3), 0.5))
    count = len(p.truth)
    assert result["moving"]["windows"] == [count]
    assert result["all"]["windows"] == [2 * count]
    assert result["moving"]["repeat"][-1] < 18 < result["all"]["repeat"][-1]
    assert all(len(result["all"][name]) == 4 for name in ("model", "repeat", "mean_image", "reconstruction"))


def test_the_video_can_be_read_back(learner: Learner, tmp_path):
    path = tmp_path / "openloop.mp4"
    openloop_video(learner, episode(40), path, horizon=6, windows=2, zoom=2)
    frames = imageio.imread(path, plugin="pyav")
    assert len(frames) == 15 + 6
    assert frames[0].shape == (2 * 64 + 8, 3 * 64, 3)
    assert list(tmp_path.iterdir()) == [path]


def test_the_strip_shows_context_and_predictions(learner: Learner, tmp_path):
    openloop_strip(predict(learner, episode(40), horizon=5), tmp_path / "strip.png", every=2, zoom=1)
    assert imageio.imread(tmp_path / "strip.png").shape == (3 * 32, (1 + 3) * (32 + 2), 3)


def test_held_out_episodes_may_have_continuous_actions():
    learner = Learner(presets.apply("debug", "image", Config()), (64, 64, 3), 2, continuous=True)
    for held_out in openloop.held_out(learner, "tests.agent.logging.two_colours:TwoColours", 2):
        assert held_out.action.shape == (4, 2) and (np.abs(held_out.action[1:]) % 1 > 0).all()


@pytest.mark.parametrize("read", [openloop.mean_image, lambda replay: probe.load(replay.folder)])
def test_damaged_episodes_are_passed_over(tmp_path, read):
    whole = replace(episode(9), labels={name: np.zeros((9, 2)) for name in probe.LABELS})
    Replay(tmp_path, 100).add(whole)
    expected = read(Replay(tmp_path, 100))
    (tmp_path / "00000001-9.npz").write_text("damaged")
    with pytest.warns(UserWarning, match="renamed"):
        found = read(Replay(tmp_path, 100))
    assert len(found) == len(expected)


def test_json_has_null_where_no_window_moves():
    still = torch.zeros(1, 2, 4, 4, 3)
    result = score([Predictions(torch.tensor([3]), still[:, 0], still, still, still, still)], still[0, 0])
    read = json.loads(openloop.as_json(result), parse_constant=pytest.fail)
    assert read["moving"]["model"] == [None, None] and read["moving"]["windows"] == [0]
    assert read["all"]["model"] == [60, 60]
