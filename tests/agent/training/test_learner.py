"""One update: what it changes, what it survives, and that a restored learner goes on as the one that was saved."""

import numpy as np
import pytest
import torch

from agent.runs import presets
from agent.runs.checkpoint import load, save
from agent.runs.config import Config
from agent.runs.fields import Diverged
from agent.runs.flatten import CheckpointError
from agent.training import learner as learner_module
from agent.training.learner import Learner
from worldmodel import State

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


def update(learner: Learner, arrays: dict[str, np.ndarray], state: State | None = None) -> tuple[dict, State]:
    """An update from no memory, or from a State."""
    return learner.update(arrays, learner.model.initial(len(arrays["reward"])) if state is None else state)


def weights(learner: Learner) -> list[torch.Tensor]:
    return [p.detach().clone() for m in (learner.model, learner.agent) for p in m.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_an_update_learns_and_carries_memory():
    config = small()
    learner = Learner(config, SHAPE, ACTIONS)
    before = weights(learner)
    metrics, state = update(learner, window(0, config))
    assert not same(before, weights(learner))
    assert state["memory", "0", "0", "ssm"].abs().sum() > 0 and not state["h"].requires_grad
    assert {"model/loss/dynamics", "agent/loss/policy", "agent/loss/replay_value"} <= metrics.keys()


def test_repeated_updates_on_one_window_fit_it():
    torch.manual_seed(0)
    config = small()
    learner = Learner(config, SHAPE, ACTIONS)
    first = [update(learner, window(0, config))[0]["model/loss/reconstruction"] for _ in range(3)]
    last = [update(learner, window(0, config))[0]["model/loss/reconstruction"] for _ in range(250)][-3:]
    assert float(torch.stack(last).mean()) < 0.7 * float(torch.stack(first).mean())


def test_a_loss_that_is_not_finite_is_skipped_and_counted():
    config = small()
    learner = Learner(config, SHAPE, ACTIONS)
    update(learner, window(0, config))
    before = weights(learner)
    bad = window(1, config)
    bad["reward"][0, 3] = np.nan
    _, state = update(learner, bad)
    assert learner.nonfinite_updates == 1
    assert same(before, weights(learner))
    assert not state["h"].any()
    update(learner, window(2, config))
    assert not same(before, weights(learner))


def test_ten_bad_updates_in_a_row_stop_the_run():
    config = small()
    learner = Learner(config, SHAPE, ACTIONS)
    bad = window(1, config)
    bad["reward"][:] = np.inf
    for _ in range(9):
        update(learner, bad)
    with pytest.raises(Diverged, match="10 updates in a row"):
        update(learner, bad)


def test_a_good_update_between_bad_ones_starts_the_count_again():
    config = small()
    learner = Learner(config, SHAPE, ACTIONS)
    bad = window(1, config)
    bad["reward"][:] = np.nan
    for _ in range(2):
        for _ in range(9):
            update(learner, bad)
        update(learner, window(0, config))
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
        update(learner, window(seed, config))
    tensors, meta = learner.snapshot()
    path = save(tmp_path, 3, tensors, meta, keep=1)
    other = Learner(config, SHAPE, ACTIONS)
    _, tensors, meta = load(path)
    other.restore(tensors, meta)
    for one in (learner, other):
        torch.manual_seed(7)
        update(one, window(9, config))
    assert same(weights(learner), weights(other))
    assert learner.updates == other.updates == 4


def test_another_models_checkpoint_is_refused_by_name():
    tensors, meta = Learner(small(), SHAPE, ACTIONS).snapshot()
    other = Learner(small(d_model=16), SHAPE, ACTIONS)
    before = weights(other)
    with pytest.raises(CheckpointError, match="checkpoint's tensor .* expected"):
        other.restore(tensors, meta)
    assert same(before, weights(other))


def test_rates_rise_over_the_warm_up():
    config = small()
    config.train.warmup = 4
    learner = Learner(config, SHAPE, ACTIONS)
    rates = []
    for seed in range(5):
        learner.anneal(0.0)
        rates.append(learner.agent_optimizer.param_groups[0]["lr"] / config.agent.learning_rate)
        update(learner, window(seed, config))
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_imagination_starts_are_a_random_part_of_the_states(monkeypatch):
    config = small()
    config.agent.imagination_starts = 3
    learner = Learner(config, SHAPE, ACTIONS)
    started = []
    imagine = learner_module.imagine

    def spy(model, state, *rest):
        started.append(len(state))
        return imagine(model, state, *rest)

    monkeypatch.setattr(learner_module, "imagine", spy)
    update(learner, window(0, config))
    learner.agent.config.imagination_starts = 0
    update(learner, window(0, config))
    replay = config.replay
    assert started == [3, replay.batch_size * replay.batch_length // config.worldmodel.state_interval]


@pytest.mark.parametrize("reaches", [False, True])
def test_the_replayed_value_loss_trains_the_world_model_if_asked(reaches):
    gradients = []
    for scale in (0.3, 300.0):
        config = small()
        config.agent.replay_value_grad, config.agent.replay_value_scale = reaches, scale
        torch.manual_seed(0)
        learner = Learner(config, SHAPE, ACTIONS)
        with torch.no_grad():
            learner.agent.critic.out.weight.add_(0.1)
        gradients.append(float(update(learner, window(0, config))[0]["model/grad_norm"]))
    assert (gradients[0] != gradients[1]) == reaches
