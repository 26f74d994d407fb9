"""What an environment must keep to, whatever its family.

Another one is checked by its name: `python -m pytest tests/envs/test_conformance.py --environment NAME`.
"""

import warnings

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env

import envs

NAMES = [
    "Atari/Breakout",
    "Atari/Pong:protocol=200m,flicker=0.5,blackout=8..32,mask=top,gray=true",
    "MiniGrid/MemoryS7",
    "MiniGrid/KeyCorridorS3R1",
    "ObjectRecall-Choice:size=64",
    "POPGym/AutoencodeEasy",
    "POPGym/PositionOnlyPendulumEasy",
    "POPGym/RepeatPreviousEasy",
    "gym:CartPole-v1",
]
STEPS = 40


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", metafunc.config.getoption("--environment") or NAMES)


@pytest.fixture
def environment(name):
    environment = envs.make(name)
    yield environment
    environment.close()


def actions(environment, seed=0):
    environment.action_space.seed(seed)
    return [environment.action_space.sample() for _ in range(STEPS)]


def rows(environment, seed):
    """The observation of a seeded reset, and then of each step all that it gives; episodes follow each other."""
    listed = [(environment.reset(seed=seed)[0], 0.0, False, False)]
    for action in actions(environment):
        if listed[-1][2] or listed[-1][3]:
            listed.append((environment.reset()[0], 0.0, False, False))
        else:
            listed.append(environment.step(action)[:4])
    return listed


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1:] == other[1:]


def test_spaces_are_those_of_the_world_model(environment, name):
    space = environment.observation_space
    assert isinstance(space, Box)
    if envs.obs_type(name) == "image":
        height, width, colours = space.shape
        assert space.dtype == np.uint8 and colours == 3
        assert height % 4 == width % 4 == 0 and min(height, width) >= 8
        assert (space.low == 0).all() and (space.high == 255).all()
    else:
        assert space.dtype == np.float32 and len(space.shape) == 1
    if isinstance(environment.action_space, Discrete):
        assert environment.action_space.start == 0
    else:
        assert environment.action_space == Box(-1, 1, environment.action_space.shape, np.float32)


def test_passes_gymnasiums_checker(environment):
    with warnings.catch_warnings():
        # It warns of wrappers, and of infinite bounds.
        warnings.simplefilter("ignore", UserWarning)
        check_env(environment, skip_render_check=True)


def test_rows_are_of_their_types(environment):
    for observation, reward, terminated, truncated in rows(environment, 0):
        assert observation.dtype == environment.observation_space.dtype
        assert environment.observation_space.contains(observation)
        assert np.isfinite(observation).all() and np.isfinite(float(reward))
        assert isinstance(terminated, bool | np.bool_) and isinstance(truncated, bool | np.bool_)


def test_observations_are_not_written_over(environment):
    observation, _ = environment.reset(seed=0)
    kept = observation.copy()
    for action in actions(environment):
        *_, terminated, truncated, _ = environment.step(action)
        np.testing.assert_array_equal(observation, kept)
        if terminated or truncated:
            break


def test_the_seed_decides_all(environment, name):
    first = rows(environment, 7)
    assert_same(rows(environment, 7), first)
    other = envs.make(name)
    assert_same(rows(other, 7), first)
    other.close()


def test_worker_processes_give_the_same(environment, name):
    vector = envs.make_vector(name, 2)
    try:
        observations, _ = vector.reset(seed=[3, 4])
        listed = [(observations[1].copy(), 0.0, False, False)]
        for action in actions(environment):
            observation, reward, terminated, truncated, _ = vector.step(np.stack([action, action]))
            listed.append((observation[1].copy(), reward[1], terminated[1], truncated[1]))
    finally:
        vector.close()
    assert_same(listed, rows(environment, 4))
