"""POPGym: observations as flat vectors against the package's own, and what is refused."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import MultiDiscrete

import envs
from envs.popgym_env import members


def one_hot(*choices):
    """(value, out of) pairs, one after the other."""
    return np.concatenate([np.eye(out_of, dtype=np.float32)[value] for value, out_of in choices])


@pytest.mark.parametrize(
    ("name", "flat"),
    [
        ("RepeatPreviousEasy", lambda suit: one_hot((suit, 4))),  # Discrete
        ("CountRecallEasy", lambda cards: one_hot(*((card, 2) for card in cards))),  # MultiDiscrete
        ("AutoencodeEasy", lambda pair: one_hot((pair[0], 2), (pair[1], 4))),  # Tuple
        ("PositionOnlyCartPoleEasy", lambda numbers: numbers),  # Box
    ],
)
def test_observations_are_flat_vectors(name, flat):
    env, package = envs.make(f"POPGym/{name}"), gymnasium.make(f"popgym-{name}-v0", disable_env_checker=True)
    got, wanted = env.reset(seed=2)[0], package.reset(seed=2)[0]
    env.action_space.seed(2)
    over = False
    for _ in range(30):
        assert got.dtype == np.float32 and got in env.observation_space
        np.testing.assert_array_equal(got, flat(wanted))
        if over:
            break
        action = env.action_space.sample()
        (got, *ours, _), (wanted, *theirs, _) = env.step(action), package.step(action)
        assert ours == theirs
        over = ours[1] or ours[2]


def test_a_policy_that_remembers_is_rewarded():
    env = envs.make("POPGym/RepeatPreviousEasy")
    seen, total, over = [int(env.reset(seed=0)[0].argmax())], 0.0, False
    while not over:
        # k is 4: the suit of three cards before the one in sight.
        observation, reward, over, _, _ = env.step(seen[-4] if len(seen) >= 4 else 0)
        seen.append(int(observation.argmax()))
        total += reward
    assert total == pytest.approx(1.0)


def test_every_name_works_or_is_refused_in_a_line():
    refused = set()
    for name in members():
        try:
            env = envs.make(f"POPGym/{name}")
        except ValueError as error:
            assert "\n" not in str(error) and f"POPGym/{name} has actions" in str(error)
            assert isinstance(gymnasium.make(f"popgym-{name}-v0").action_space, MultiDiscrete)
            refused.add(name.removesuffix("Easy").removesuffix("Medium").removesuffix("Hard"))
            continue
        assert env.reset(seed=0)[0] in env.observation_space
    assert refused == {"Battleship", "MineSweeper"}
