"""The measure of what a model expects of a return, with models whose memory is known."""

import fcntl
import math
import os

import numpy as np
import pytest
import torch

import envs
from agent.runs import presets
from agent.runs.config import Config
from agent.training.evaluation import SEEDS
from agent.training.learner import Learner
from envs.recall.env import BACK
from eval.memory.recall import gather, measure, play
from replay import Replay

DELAY = 7


@pytest.fixture(scope="module")
def learner():
    torch.manual_seed(0)
    made = Learner(presets.apply("debug", "image", Config(env="ObjectRecall")), (32, 32, 3), 4)
    made.model.eval()
    return made


def test_episodes_are_the_environments_own():
    environment = envs.make("ObjectRecall", delay=DELAY, labels=True)
    episode = play(environment, 5, 4)
    assert len(episode) == 6 + DELAY + 6
    assert (episode.labels["phase"] == BACK).sum() == 6
    again = play(environment, 5, 4)
    assert np.array_equal(episode.observation, again.observation)
    frame, _ = environment.reset(seed=5)
    for t in range(1, len(episode)):
        assert np.array_equal(frame, episode.observation[t - 1])
        frame = environment.step(int(episode.action[t].argmax()))[0]


def test_figures_of_a_model_that_knows_nothing(learner):
    found = measure(learner, "ObjectRecall:delay=2..50", DELAY, 20)
    assert set(found) == {"return", "just_seen", "reset"}
    for figures in found.values():
        assert set(figures) == {"kl", "psnr", "copy_psnr", "accuracy", "copy_accuracy"}
        assert all(math.isfinite(value) for value in figures.values())
    # an untaught decoder is gray: no object to be read
    assert found["return"]["accuracy"] <= 0.2
    # the frame before the return shows no object, that before the next one does
    assert found["return"]["copy_accuracy"] <= 0.2
    assert found["just_seen"]["copy_accuracy"] == 1.0
    assert found["just_seen"]["copy_psnr"] > found["return"]["copy_psnr"] + 3


def test_copied_frames_are_scored_as_by_hand(learner):
    environment = envs.make("ObjectRecall", delay=DELAY, labels=True)
    scores = []
    for i in range(3):
        frames = play(environment, SEEDS + i, 4).observation / 255.0
        scores.append(-10 * np.log10(((frames[6 + DELAY - 1] - frames[6 + DELAY]) ** 2).mean()))
    assert measure(learner, "ObjectRecall", DELAY, 3)["return"]["copy_psnr"] == pytest.approx(np.mean(scores), abs=1e-3)


def test_a_wiped_memory_is_the_memory_of_what_came_after(learner, monkeypatch):
    """The control must not depend on what was shown, and the figure itself must."""
    whole = measure(learner, "ObjectRecall", DELAY, 4)

    def repaint(environment, seed, actions):
        episode = play(environment, seed, actions)
        episode.observation[:6] = 255 - episode.observation[:6]
        return episode

    monkeypatch.setattr("eval.memory.recall.play", repaint)
    torch.manual_seed(0)
    other = measure(learner, "ObjectRecall", DELAY, 4)
    assert other["reset"]["kl"] == pytest.approx(whole["reset"]["kl"], abs=1e-4)
    assert other["return"]["kl"] != pytest.approx(whole["return"]["kl"], abs=1e-4)


def test_an_oracle_remembers_everything_and_a_wiped_one_nothing(learner, monkeypatch):
    """In place of the dream: the first frame of the episode, as long as memory was not wiped."""

    def first_frame(_, state, action):
        return seen.pop(0)

    environment = envs.make("ObjectRecall", delay=DELAY, labels=True)
    frames = np.stack([play(environment, SEEDS + i, 4).observation[0] for i in range(8)])
    shown = torch.from_numpy(frames).float() / 255
    seen = [shown, shown, torch.full_like(shown, 0.08)]
    monkeypatch.setattr("eval.memory.recall._next", first_frame)
    found = measure(learner, "ObjectRecall", DELAY, 8)
    assert found["return"]["accuracy"] == found["just_seen"]["accuracy"] == 1.0
    assert found["reset"]["accuracy"] < 0.5


def test_scenes_have_no_object_to_judge(learner):
    found = measure(learner, "SceneCut", DELAY, 2)
    assert set(found["return"]) == {"kl", "psnr", "copy_psnr"}


def test_episodes_are_gathered_by_one_command_at_a_time(tmp_path, monkeypatch):
    """Under the lock of `replay.collect`, the count of what is there included."""
    (tmp_path / "train").mkdir()

    def held(function):
        def checked(*arguments):
            descriptor = os.open(tmp_path / "train", os.O_RDONLY)
            try:
                with pytest.raises(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(descriptor)
            return function(*arguments)

        return checked

    monkeypatch.setattr("eval.memory.recall.Replay", held(Replay))
    monkeypatch.setattr("eval.memory.recall.play", held(play))
    gather("ObjectRecall:delay=2", 2, tmp_path / "train", seed=0)
    assert len(list((tmp_path / "train").glob("*.npz"))) == 2
