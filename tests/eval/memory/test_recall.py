"""The measure of what a model expects of a return, with models whose memory is known."""

import math

import numpy as np
import pytest
import torch

import envs
from agent.runs import presets
from agent.runs.config import Config
from agent.training.evaluation import SEEDS
from agent.training.learner import Learner
from envs.recall.env import BACK
from eval.memory.recall import measure, play

DELAY = 7


@pytest.fixture(scope="module")
def learner():
    torch.manual_seed(0)
    made = Learner(presets.apply("debug", "image", Config(env="ObjectRecall")), (32, 32, 3), 4)
    made.model.eval()
    return made


def test_episodes_are_the_environments_own():
    before, episode = play("ObjectRecall", DELAY, 2, 4, 4)
    assert len(before) == len(episode) == 6 + DELAY + 6
    assert (episode.labels["phase"] == BACK).sum() == 6
    again = play("ObjectRecall", DELAY, 2, 4, 4)[1]
    assert np.array_equal(episode.observation, again.observation)
    environment = envs.make("ObjectRecall", delay=DELAY)
    frame, _ = environment.reset(seed=5)
    for t in range(1, len(episode)):
        assert np.array_equal(frame, episode.observation[t - 1])
        frame = environment.step(int(episode.action[t].argmax()))[0]


def test_metrics_of_a_model_that_knows_nothing(learner):
    found = measure(learner, "ObjectRecall:delay=2..50", DELAY, 20)
    assert set(found) == {"return", "just_seen", "reset"}
    for metrics in found.values():
        assert set(metrics) == {"kl", "psnr", "copy_psnr", "accuracy", "copy_accuracy"}
        assert all(math.isfinite(value) for value in metrics.values())
    # an untrained decoder is gray: no object to be read
    assert found["return"]["accuracy"] <= 0.2
    # the frame before the return shows no object, that before the next one does
    assert found["return"]["copy_accuracy"] <= 0.2
    assert found["just_seen"]["copy_accuracy"] == 1.0
    assert found["just_seen"]["copy_psnr"] > found["return"]["copy_psnr"] + 3


def test_copied_frames_are_scored_as_by_hand(learner):
    scores = []
    for episode in play("ObjectRecall", DELAY, 3, SEEDS, 4):
        frames = episode.observation / 255.0
        scores.append(-10 * np.log10(((frames[6 + DELAY - 1] - frames[6 + DELAY]) ** 2).mean()))
    assert measure(learner, "ObjectRecall", DELAY, 3)["return"]["copy_psnr"] == pytest.approx(np.mean(scores), abs=1e-3)


def test_a_reset_memory_is_the_memory_of_what_came_after(learner, monkeypatch):
    """The control must not depend on what was shown, and the metric itself must."""
    whole = measure(learner, "ObjectRecall", DELAY, 4)

    def repaint(*arguments):
        episodes = play(*arguments)
        for episode in episodes:
            episode.observation[:6] = 255 - episode.observation[:6]
        return episodes

    monkeypatch.setattr("eval.memory.recall.play", repaint)
    torch.manual_seed(0)
    other = measure(learner, "ObjectRecall", DELAY, 4)
    assert other["reset"]["kl"] == pytest.approx(whole["reset"]["kl"], abs=1e-4)
    assert other["return"]["kl"] != pytest.approx(whole["return"]["kl"], abs=1e-4)


def test_an_oracle_remembers_everything_and_one_whose_memory_is_reset_nothing(learner, monkeypatch):
    """In place of the prediction: the first frame of the episode, as long as memory is not reset."""

    def first_frame(_, state, action):
        return seen.pop(0)

    frames = np.stack([episode.observation[0] for episode in play("ObjectRecall", DELAY, 8, SEEDS, 4)])
    shown = torch.from_numpy(frames).float() / 255
    seen = [shown, shown, torch.full_like(shown, 0.08)]
    monkeypatch.setattr("eval.memory.recall.predicted_frame", first_frame)
    found = measure(learner, "ObjectRecall", DELAY, 8)
    assert found["return"]["accuracy"] == found["just_seen"]["accuracy"] == 1.0
    assert found["reset"]["accuracy"] < 0.5


def test_scenes_have_no_object_to_classify(learner):
    found = measure(learner, "SceneCut", DELAY, 2)
    assert set(found["return"]) == {"kl", "psnr", "copy_psnr"}
