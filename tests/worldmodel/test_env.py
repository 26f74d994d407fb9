"""The world model as an environment keeps Gymnasium's contract, and says what the model says."""

import warnings

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from tests.worldmodel.small import ACTIONS, SHAPES, assert_equal, random_batch, small_model
from worldmodel import State, WorldModel
from worldmodel.env import Observe, StartStates, WorldModelEnv, WorldModelVectorEnv, flat

N, HORIZON = 5, 6


def starts_of(model: WorldModel, kind: str = "image") -> tuple[State, StartStates]:
    """Some States with memory, and what draws from them."""
    with torch.no_grad():
        rows = random_batch(kind, 2, 12, firsts=[(0, 0), (1, 0)])
        pool = model.observe(rows, model.initial(2)).start_states.reshape(-1).clone()
    return pool, lambda n: pool[torch.randint(len(pool), (n,))]


def continuing(model: WorldModel, logit: float) -> WorldModel:
    """The model, sure (or not) that episodes go on."""
    with torch.no_grad():
        model.continue_head.out.weight.zero_()
        model.continue_head.out.bias.fill_(logit)
    return model


def actions(seed: int, steps: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).integers(ACTIONS, size=(steps, n))


@pytest.mark.parametrize("kind", ["image", "vector"])
@pytest.mark.parametrize("observe", ["features", "frames"])
def test_spaces_and_types(kind: str, observe: Observe):
    model = small_model("lssvwm", kind)
    dreams = WorldModelVectorEnv(model, starts_of(model, kind)[1], N, HORIZON, observe)
    observation, infos = dreams.reset(seed=0)
    shape = SHAPES[kind] if observe == "frames" else (model.tokens * model.feature_width,)
    assert dreams.single_observation_space.shape == shape and infos == {}
    assert dreams.single_action_space == Discrete(ACTIONS)
    for action in actions(0, 2 * HORIZON):
        assert dreams.observation_space.contains(observation)
        observation, reward, terminated, truncated, _ = dreams.step(action)
        assert (reward.shape, reward.dtype) == ((N,), np.float64)
        assert (terminated.dtype, truncated.dtype) == (bool, bool)


@pytest.mark.parametrize("kind", ["image", "vector"])
def test_one_dream_passes_gymnasiums_own_checks(kind: str):
    model = small_model("lssvwm", kind)
    mode = "rgb_array" if kind == "image" else None
    for observe in ("features", "frames"):
        dreams = WorldModelVectorEnv(model, starts_of(model, kind)[1], 1, HORIZON, observe, render_mode=mode)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # features and vectors know no bounds, and a dream has no registered name
            check_env(WorldModelEnv(dreams))


def test_a_dream_is_the_models_own():
    """Step by step, what the model itself imagines from the same State, by the same draws."""
    model = continuing(small_model(), 50.0)
    pool, _ = starts_of(model)
    dreams = WorldModelVectorEnv(model, lambda n: pool[:n], 3, HORIZON)
    observation, _ = dreams.reset(seed=4)
    draws, state = np.random.default_rng(4), pool[:3]
    draws.integers(2**63)  # the reset's own
    np.testing.assert_array_equal(observation, model.feature(state).flatten(1).numpy())
    for action in actions(1, HORIZON - 1, 3):
        observation, reward, _, _, _ = dreams.step(action)
        torch.manual_seed(int(draws.integers(2**63)))
        with torch.no_grad():
            state = model.dream(state, torch.eye(ACTIONS)[action])
            feature = model.feature(state)
            np.testing.assert_array_equal(observation, feature.flatten(1).numpy())
            np.testing.assert_allclose(reward, model.reward(feature).numpy(), rtol=1e-6)


def test_frames_are_what_the_model_decodes():
    model = small_model()
    pool, starts = starts_of(model)
    dreams = WorldModelVectorEnv(model, lambda n: pool[:n], 3, HORIZON, "frames", render_mode="rgb_array")
    observation, _ = dreams.reset(seed=0)
    with torch.no_grad():
        decoded = model.decode(model.feature(pool[:3])).numpy()
    assert np.abs(observation - np.clip(decoded, 0, 1) * 255).max() <= 0.5001
    frames = dreams.render()
    assert isinstance(frames, tuple) and len(frames) == 3
    np.testing.assert_array_equal(np.stack(frames), observation)


def test_a_seed_repeats_all_and_leaves_everyone_elses_draws_alone():
    model = small_model()
    starts = starts_of(model)[1]

    def played(dreams: WorldModelVectorEnv, seed: int | None) -> list[np.ndarray]:
        rows = [dreams.reset(seed=seed)[0]]
        for action in actions(2, 8):
            observation, reward, terminated, truncated, _ = dreams.step(action)
            rows += [observation, reward, terminated, truncated]
        return rows

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = played(WorldModelVectorEnv(model, starts, N, HORIZON), 3)
    assert torch.equal(torch.rand(3), expected)
    dreams = WorldModelVectorEnv(model, starts, N, HORIZON)
    played(dreams, 11)
    again, other, unseeded = played(dreams, 3), played(dreams, 4), played(dreams, None)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1]) and not np.array_equal(other[1], unseeded[1])


def test_the_kept_states_stay_as_they_were():
    model = continuing(small_model(), -1.0)
    pool, starts = starts_of(model)
    before = pool.clone()
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        dreams = WorldModelVectorEnv(model, starts, N, 3, autoreset_mode=mode)
        dreams.reset(seed=0)
        for action in actions(3, 10):
            dreams.step(action)
    assert_equal(pool, before)


def test_next_step_resets_ignore_the_action_and_pay_nothing():
    model = continuing(small_model(), 50.0)
    pool, _ = starts_of(model)
    dreams = WorldModelVectorEnv(model, lambda n: pool[:1].expand(n), N, 3)
    assert dreams.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    first, _ = dreams.reset(seed=0)
    for episode in range(3):
        for step in range(3):
            observation, reward, terminated, truncated, infos = dreams.step(np.full(N, step % ACTIONS))
            assert not terminated.any() and truncated.all() == (step == 2) and infos == {}
            assert (reward != 0).all() and not np.array_equal(observation, first)
        observation, reward, terminated, truncated, _ = dreams.step(np.full(N, episode))
        np.testing.assert_array_equal(observation, first)
        assert not reward.any() and not terminated.any() and not truncated.any()


def test_same_step_resets_keep_the_last_observation_aside():
    model = continuing(small_model(), 50.0)
    pool, _ = starts_of(model)
    dreams = WorldModelVectorEnv(model, lambda n: pool[:1].expand(n), N, 2, autoreset_mode=AutoresetMode.SAME_STEP)
    first, _ = dreams.reset(seed=0)
    for _ in range(3):
        _, _, _, truncated, infos = dreams.step(np.zeros(N, int))
        assert not truncated.any() and infos == {}
        observation, reward, _, truncated, infos = dreams.step(np.zeros(N, int))
        assert truncated.all() and reward.all() and infos["_final_obs"].all()
        np.testing.assert_array_equal(observation, first)
        assert all(not np.array_equal(infos["final_obs"][i], first[i]) for i in range(N))


def test_dreams_end_one_by_one_as_often_as_the_model_says():
    """With a chance of 3 in 4 to go on, a quarter of all steps but for the resets' end an episode."""
    model = continuing(small_model("lssvwm", "vector"), float(np.log(3)))
    starts = starts_of(model, "vector")[1]
    n = 400
    dreams = WorldModelVectorEnv(model, starts, n, 1000)
    dreams.reset(seed=0)
    ended = np.zeros(n, bool)
    met = 0
    for step in range(3):
        _, _, terminated, truncated, _ = dreams.step(np.zeros(n, int))
        assert not truncated.any() and not (terminated & ended).any()  # the step after an end begins anew
        met += int(terminated.sum())
        if step == 0:
            assert terminated.mean() == pytest.approx(0.25, abs=0.07)  # three standard deviations
        ended = terminated
    playing = n + n * 0.75 + n * (0.75**2 + 0.25)
    assert met / playing == pytest.approx(0.25, abs=0.045)


def test_continuous_actions_go_to_the_model_as_they_are():
    model = continuing(small_model("lssvwm", "vector"), 50.0)
    pool, _ = starts_of(model, "vector")
    dreams = WorldModelVectorEnv(model, lambda n: pool[:n], 2, HORIZON, continuous=True)
    assert dreams.single_action_space == Box(-1, 1, (ACTIONS,))
    dreams.reset(seed=0)
    action = np.array([[0.3, -0.7, 0.1], [-1.0, 1.0, 0.0]], np.float32)
    observation, *_ = dreams.step(action)
    draws = np.random.default_rng(0)
    draws.integers(2**63)
    torch.manual_seed(int(draws.integers(2**63)))
    with torch.no_grad():
        wanted = model.feature(model.dream(pool[:2], torch.from_numpy(action)))
    np.testing.assert_array_equal(observation, wanted.flatten(1).numpy())


def test_what_cannot_be_is_refused():
    model = small_model("lssvwm", "vector")
    starts = starts_of(model, "vector")[1]
    with pytest.raises(ValueError, match="0 dreams of 5 steps"):
        WorldModelVectorEnv(model, starts, 0, 5)
    with pytest.raises(ValueError, match="DISABLED"):
        WorldModelVectorEnv(model, starts, 1, 5, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match="decodes images"):
        WorldModelVectorEnv(model, starts, 1, 5, render_mode="rgb_array")
    with pytest.raises(ValueError, match="2 dreams side by side"):
        WorldModelEnv(WorldModelVectorEnv(model, starts, 2, 5))
    dreams = WorldModelVectorEnv(model, starts, 2, 5)
    with pytest.raises(ResetNeeded):
        dreams.step(np.zeros(2, int))
    dreams.reset(seed=0)
    for wrong in ([0, ACTIONS], [0, -1], [0], [0, 0.7], [0, np.nan], [[0, 1]], 0):
        with pytest.raises(ValueError, match="each from 0 to 2"):
            dreams.step(np.array(wrong))
    dreams = WorldModelVectorEnv(model, starts, 2, 5, continuous=True)
    dreams.reset(seed=0)
    zeros = [0.0] * ACTIONS
    for value in (9.0, -1.01, np.nan, np.inf):
        with pytest.raises(ValueError, match="each value from -1 to 1"):
            dreams.step(np.array([zeros, [*zeros[1:], value]]))
    for shape in ((ACTIONS,), (1, ACTIONS), (2, ACTIONS - 1), (2, 1, ACTIONS)):
        with pytest.raises(ValueError, match="want 2 vectors of 3"):
            dreams.step(np.zeros(shape))


def test_observations_are_no_views_of_a_state():
    """Those of new episodes are written over those of the old, in place."""
    feature = torch.zeros(2, 1, 4)
    flat(feature)[:] = 1
    assert not feature.any()
