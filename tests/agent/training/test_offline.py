"""A world model trained on episodes alone: it learns, is validated, and resumes where it stopped."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from agent.logging.sinks import read_metrics
from agent.runs import checkpoint, presets
from agent.runs.config import Config
from agent.runs.fields import ConfigError
from agent.runs.folder import open_run
from agent.training.learner import Learner
from agent.training.load import load_run
from agent.training.offline import train_offline, validate
from replay import Episode, Replay


def configured(folder, **worldmodel) -> Config:
    config = presets.apply("debug", "vector", Config(env="gym:CartPole-v1", run_dir=str(folder)))
    config.worldmodel = replace(config.worldmodel, **worldmodel)
    config.replay.curriculum_start = 8
    config.train.precision = "float32"
    open_run(config)
    return config


@pytest.fixture
def data(tmp_path):
    """Episodes of a slow pendulum in four numbers: predictable from the past."""
    replay = Replay(tmp_path / "data", 10_000)
    random = np.random.default_rng(0)
    for _ in range(4):
        t = np.arange(60) * 0.2 + random.random()
        action = np.eye(2, dtype=np.float32)[random.integers(0, 2, 60)]
        action[0] = 0
        observation = np.stack([np.sin(t), np.cos(t), np.sin(t / 2), np.cos(t / 2)], 1).astype(np.float32)
        replay.add(Episode(observation, action, np.zeros(60, np.float32), np.zeros(60, bool)))
    return tmp_path / "data"


def test_it_learns_and_leaves_a_run(tmp_path, data):
    said = io.StringIO()
    config = configured(tmp_path / "run")
    learner = train_offline(config, tmp_path / "run", data, 100, val=data, val_frames=40, stream=said)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    losses = [row["val/loss"] for row in rows if "val/loss" in row]
    assert len(losses) == 10 and losses[-1] < 0.8 * losses[0]
    assert not any(name.startswith("agent/") for row in rows for name in row)
    assert "\nrun  updates 100/100  frames/s " in said.getvalue() and said.getvalue().endswith("left 0:00\n")
    _, loaded, step = load_run(tmp_path / "run")
    assert step == 100
    for name, tensor in learner.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)


def test_a_stopped_run_ends_as_one_that_was_not(tmp_path, data, monkeypatch):
    whole = train_offline(configured(tmp_path / "whole"), tmp_path / "whole", data, 40, val=data, stream=io.StringIO())

    class Stopped(Exception):
        pass

    saved = checkpoint.save

    def save_then_stop(folder, step, *rest):
        saved(folder, step, *rest)
        if step == 24:
            raise Stopped

    config = configured(tmp_path / "cut")
    monkeypatch.setattr(checkpoint, "save", save_then_stop)
    with pytest.raises(Stopped):
        train_offline(config, tmp_path / "cut", data, 40, stream=io.StringIO())
    monkeypatch.setattr(checkpoint, "save", saved)
    cut = train_offline(config, tmp_path / "cut", data, 40, stream=io.StringIO())
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(cut.model.state_dict()[name], tensor, msg=lambda text, name=name: f"{name}: {text}")


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, data, monkeypatch):
    config, said = configured(tmp_path / "run"), io.StringIO()
    update = Learner.update

    def interrupted_at_seven(learner, *rest, **named):
        if learner.updates == 7:
            raise KeyboardInterrupt
        return update(learner, *rest, **named)

    monkeypatch.setattr(Learner, "update", interrupted_at_seven)
    with pytest.raises(KeyboardInterrupt):
        train_offline(config, tmp_path / "run", data, 40, stream=said)
    assert "interrupted and saved at update 7: the same command resumes" in said.getvalue()
    assert load_run(tmp_path / "run")[2] == 7
    monkeypatch.setattr(Learner, "update", update)
    assert train_offline(config, tmp_path / "run", data, 10, stream=said).updates == 10


def test_a_run_that_is_done_is_left_alone(tmp_path, data):
    config = configured(tmp_path / "run")
    train_offline(config, tmp_path / "run", data, 10, stream=io.StringIO())
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert train_offline(config, tmp_path / "run", data, 10).updates == 10
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_validation_changes_nothing_and_repeats(tmp_path, data):
    config = configured(tmp_path / "run")
    learner = train_offline(config, tmp_path / "run", data, 10, stream=io.StringIO())
    before, random = learner.model.state_dict(), torch.get_rng_state()
    copies = {name: tensor.clone() for name, tensor in before.items()}
    first = validate(learner, Replay(data, 10_000), 48)
    assert first == validate(learner, Replay(data, 10_000), 48)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(copies[name], tensor) for name, tensor in learner.model.state_dict().items())
    assert learner.model.training


def test_no_episodes_is_one_line(tmp_path):
    config = configured(tmp_path / "run")
    with pytest.raises(ConfigError, match="holds no episodes"):
        train_offline(config, tmp_path / "run", tmp_path / "empty", 10)


def test_a_tokenizer_is_taught_first_and_once(tmp_path, data):
    said = io.StringIO()

    def trained(updates: int) -> Learner:
        config = configured(tmp_path / "run", latents="continuous", latent_width=4, tokenizer_updates=200)
        return train_offline(config, tmp_path / "run", data, updates, stream=said)

    first = trained(4).model.state_dict()
    assert said.getvalue().count("tokenizer: 200 of 200 updates, squared error") == 1
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert not any("reconstruction" in name or "representation" in name for row in rows for name in row)
    later = trained(8).model.state_dict()
    assert said.getvalue().count("tokenizer: 200 of 200") == 1
    same = {name for name in first if torch.equal(first[name], later[name])}
    taught = {name for name in first if name.startswith(("tokenizer.", "posterior."))}
    assert taught <= same and "backbone.embed.weight" not in same

    model = load_run(tmp_path / "run")[1].model
    observation = torch.from_numpy(Replay(data, 10_000).get("00000000-60.npz").observation)
    z = model.latents.mean(model.latents.posterior(model.posterior(model.tokenizer.encode(observation))))
    error = (model.tokenizer.decode(z) - observation).square().mean()
    assert error < 0.5 * observation.var()
