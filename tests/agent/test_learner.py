"""One update: what it changes, what it survives, and that a restored learner goes on as the one that was saved."""

import numpy as np
import pytest
import torch

from agent.runs import presets
from agent.runs.checkpoint import load, save
from agent.runs.config import Config
from agent.runs.flatten import CheckpointError
from agent.training.learner import Diverged, Learner

SHAPE, ACTIONS = (5,), 3


def small(**changes: object) -> Config:
    config = presets.apply("debug", "vector", Config(env="gym:CartPole-v1"))
    config.train.precision = "float32"
    for name, value in changes.items():
        setattr(config.worldmodel, name, value)
    return config


def window(seed: int, config: Config) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    B, T = config.replay.batch_size, config.replay.batch_length
    return {
        "observation": random.normal(size=(B, T, *SHAPE)).astype(np.float32),
        "action": np.eye(ACTIONS, dtype=np.float32)[random.integers(0, ACTIONS, (B, T))],
        "reward": random.normal(size=(B, T)).astype(np.float32),
        "is_first": random.random((B, T)) < 0.1,
        "terminated": random.random((B, T)) < 0.1,
    }


def weights(learner: Learner) -> list[torch.Tensor]:
    return [p.detach().clone() for m in (learner.model, learner.agent) for p in m.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_an_update_learns_and_carries_memory():
    config = small()
    learner = Learner(config, SHAPE, ACTIONS)
    before = weights(learner)
    figures = learner.update(window(0, config))
    assert not same(before, weights(learner))
    assert learner.state["memory", "0", "0", "ssm"].abs().sum() > 0
    assert not learner.state["h"].requires_grad
    assert {"model/loss/dynamics", "agent/loss/policy", "agent/loss/replay_value"} <= figures.keys()


def test_repeated_updates_on_one_window_fit_it():
    torch.manual_seed(0)
    config = small()
    learner = Learner(config, SHAPE, ACTIONS)
    first = [learner.update(window(0, config))["model/loss/reconstruction"] for _ in range(3)]
    last = [learner.update(window(0, config))["model/loss/reconstruction"] for _ in range(250)][-3:]
    assert float(torch.stack(last).mean()) < 0.7 * float(torch.stack(first).mean())


def test_a_loss_that_is_not_finite_is_skipped_and_counted():
    config = small()
    learner = Learner(config, SHAPE, ACTIONS)
    learner.update(window(0, config))
    before = weights(learner)
    bad = window(1, config)
    bad["reward"][0, 3] = np.nan
    learner.update(bad)
    assert learner.nonfinite_updates == 1
    assert same(before, weights(learner))
    assert torch.isfinite(learner.state["h"]).all()
    learner.update(window(2, config))
    assert not same(before, weights(learner))


def test_ten_bad_updates_in_a_row_stop_the_run():
    config = small()
    learner = Learner(config, SHAPE, ACTIONS)
    bad = window(1, config)
    bad["reward"][:] = np.inf
    for _ in range(9):
        learner.update(bad)
    with pytest.raises(Diverged, match="10 updates in a row"):
        learner.update(bad)


def test_a_good_update_between_bad_ones_starts_the_count_again():
    config = small()
    learner = Learner(config, SHAPE, ACTIONS)
    bad = window(1, config)
    bad["reward"][:] = np.nan
    for _ in range(2):
        for _ in range(9):
            learner.update(bad)
        learner.update(window(0, config))
    assert learner.nonfinite_updates == 18


def test_the_learning_rate_falls_linearly_to_its_share():
    config = small()
    config.train.learning_rate, config.train.lr_end_fraction = 1e-3, 0.1
    learner = Learner(config, SHAPE, ACTIONS)
    rates = []
    for progress in (0.0, 0.5, 1.0, 1.2):
        learner.anneal(progress)
        rates.append(learner.model_optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 5.5e-4, 1e-4, 1e-4])


def test_a_restored_learner_goes_on_as_the_saved_one(tmp_path):
    config = small()
    torch.manual_seed(0)
    learner = Learner(config, SHAPE, ACTIONS)
    for seed in range(3):
        learner.update(window(seed, config))
    tensors, meta = learner.snapshot()
    path = save(tmp_path, 3, tensors, meta, keep=1)
    other = Learner(config, SHAPE, ACTIONS)
    _, tensors, meta = load(path)
    other.restore(tensors, meta)
    for one in (learner, other):
        torch.manual_seed(7)
        one.update(window(9, config))
    assert same(weights(learner), weights(other))
    assert learner.updates == other.updates == 4
    assert torch.equal(learner.state["memory", "1", "1", "kv"], other.state["memory", "1", "1", "kv"])


def test_another_models_checkpoint_is_refused_by_name():
    tensors, meta = Learner(small(), SHAPE, ACTIONS).snapshot()
    other = Learner(small(width=16), SHAPE, ACTIONS)
    before = weights(other)
    with pytest.raises(CheckpointError, match="checkpoint's tensor .* expected"):
        other.restore(tensors, meta)
    assert same(before, weights(other))
