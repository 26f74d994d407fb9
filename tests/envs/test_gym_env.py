"""`gym:<id>`: what observations and actions become, and what is refused."""

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete, MultiDiscrete

import envs
from envs.errors import MakeError


class Fixed(gymnasium.Env):
    """Always gives the same observation."""

    def __init__(self, observation, action_space=None):
        self._observation = observation
        self.observation_space = Box(0, 255, observation.shape, observation.dtype)
        self.action_space = action_space or Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observation, {}

    def step(self, action):
        return self._observation, 0.0, False, False, {}


@pytest.fixture
def register():
    """Registers environments for one test; returns their `gym:` names."""
    ids = []

    def _register(*args):
        ids.append(f"Fixed{len(ids)}-v0")
        gymnasium.register(ids[-1], entry_point=lambda **_: Fixed(*args))
        return f"gym:{ids[-1]}"

    yield _register
    for id in ids:
        del gymnasium.registry[id]


@pytest.mark.parametrize("shape", [(64, 64, 3), (32, 32, 3), (210, 160, 3), (84, 84), (84, 84, 1)])
def test_images_become_64x64x3(register, shape):
    image = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    env = envs.make(register(image))
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert observation.shape == (64, 64, 3)
    assert abs(observation.mean() - image.mean()) < 2
    if shape == (64, 64, 3):
        np.testing.assert_array_equal(observation, image)


def test_float64_vectors_become_float32(register):
    env = envs.make(register(np.array([0.1, 0.2], np.float64)))
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    np.testing.assert_array_equal(observation, np.array([0.1, 0.2], np.float32))


def test_continuous_actions_go_from_minus_one_to_one():
    scaled, plain = envs.make("gym:Pendulum-v1"), gymnasium.make("Pendulum-v1")
    assert scaled.action_space == Box(-1, 1, (1,), np.float32)
    scaled.reset(seed=3)
    plain.reset(seed=3)
    for action in (-1.0, 0.25, 1.0):
        got, wanted = scaled.step(np.array([action], np.float32)), plain.step(np.array([2 * action], np.float32))
        np.testing.assert_allclose(got[0], wanted[0], rtol=1e-6)
        assert got[1] == pytest.approx(wanted[1])


def test_time_limits_are_kept():
    env = envs.make("gym:CartPole-v1", max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(step % 2)[3] for step in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((np.zeros(2, np.float32), Box(-1, np.inf, (1,))), "only vectors of bounded floats"),
        ((np.zeros(2, np.float32), Box(-1, 1, (1, 2))), "only vectors of bounded floats"),
        ((np.zeros(2, np.float32), MultiDiscrete([2, 2])), "only discrete actions and vectors"),
        ((np.zeros(2, np.float32), Discrete(3, start=1)), "start at 1"),
        ((np.zeros((64, 64, 3), np.float32),), "only uint8 images"),
        ((np.zeros((64, 64, 4), np.uint8),), "only uint8 images"),
        ((), "only images and flat vectors"),
    ],
)
def test_refusals_are_one_line_and_name_the_environment(register, args, says):
    name = register(*args) if args else "gym:Blackjack-v1"
    with pytest.raises(ValueError, match=says) as raised:
        envs.make(name)
    assert name in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("error", [gymnasium.error.DependencyNotInstalled, ModuleNotFoundError])
def test_failures_of_gymnasium_are_one_line(monkeypatch, error):
    def lacking(**_):
        raise error("a box is not installed,\nyou can install it")

    spec = EnvSpec("Lacking-v0", entry_point=lacking)
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    with pytest.raises(MakeError) as raised:
        envs.make("gym:Lacking-v0")
    assert str(raised.value) == "gym:Lacking-v0 cannot be made: a box is not installed, you can install it"
