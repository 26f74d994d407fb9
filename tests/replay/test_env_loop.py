"""The environment loop: rows of episodes across automatic resets, whole episodes, memory resets, labels."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest

import envs
from envs.policies import RandomPolicy
from replay.env_loop import EnvLoop


def test_episodes_replayed_in_the_environment_give_the_same_rows():
    vector = envs.make_vector("gym:CartPole-v1", 2)
    try:
        loop = EnvLoop(vector, actions=2, seed=5, record=True)
        policy, steps, ended = RandomPolicy(2, seed=0), 0, []
        while len(ended) < 6:
            made, done = loop.step(policy)
            steps += made
            ended += done
    finally:
        vector.close()
    episodes = [one.episode for one in ended]
    assert all(e is not None for e in episodes)
    assert [(e.ret, e.steps) for e in episodes] == [(one.stats.ret, one.stats.length) for one in ended]
    assert sum(e.steps for e in episodes) <= steps
    # the first episode of each environment, played again from its seed under the recorded actions
    again, found = envs.make("gym:CartPole-v1"), 0
    for seed in (5, 6):
        first, _ = again.reset(seed=seed)
        episode = next(e for e in episodes if np.array_equal(e.observation[0], first))
        assert not episode.action[0].any()
        for row in range(1, len(episode.reward)):
            frame, reward, terminated, _, _ = again.step(int(episode.action[row].argmax()))
            np.testing.assert_array_equal(frame, episode.observation[row])
            assert (reward, terminated) == (episode.reward[row], episode.terminated[row])
        found += 1
    assert found == 2


class Counting(gymnasium.Env):
    """Observes the frame's number; ends after `length` steps; reward 1 at each."""

    observation_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length: int):
        self.length = length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.frame = 0
        return self._observed()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.frame += 1
        observation, info = self._observed()
        return observation, 1.0, False, self.frame == self.length, info

    def _observed(self) -> tuple[np.ndarray, dict]:
        return np.array([self.frame], np.float32), {"place": np.array([self.frame, -self.frame], np.float32)}


class Recorder:
    """Chooses 0 and keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, observation: np.ndarray, is_first: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
        self.given.append((observation[:, 0].copy(), is_first.copy()))
        return np.zeros(len(is_first), int)


def counting(*lengths: int) -> gymnasium.vector.VectorEnv:
    return gymnasium.vector.SyncVectorEnv([lambda length=length: Counting(length) for length in lengths])


def test_every_environment_plays_its_share():
    loop = EnvLoop(counting(2, 7))
    ended = [(one.index, one.stats.length, one.stats.ret) for one in loop.episodes(Recorder(), 5)]
    assert sorted(ended) == [(0, 2, 2.0)] * 3 + [(1, 7, 7.0)] * 2


@pytest.mark.parametrize("at", [None, 0, 3, 50])
def test_memory_is_reset_at_that_frame_of_each_episode(at: int | None):
    policy = Recorder()
    loop = EnvLoop(counting(5), reset_memory_at=at)
    list(loop.episodes(policy, 2))
    firsts = [frame[0] for frame, first in policy.given if first[0]]
    assert firsts == ([0, 3, 0, 3] if at == 3 else [0, 0])


def test_labels_are_recorded_row_by_row_and_a_recording_can_be_cut():
    loop = EnvLoop(counting(3), actions=2, record=True, labels=True)
    (whole,) = loop.episodes(Recorder(), 1)
    loop.step(Recorder())  # the reset
    loop.step(Recorder())
    (cut,) = loop.cut()
    for one, length in ((whole, 3), (cut, 1)):
        assert one.episode is not None and one.stats.length == one.episode.steps == length
        np.testing.assert_array_equal(one.episode.labels["place"][:, 0], np.arange(length + 1))
        assert set(one.episode.labels) == {"place"} and not one.episode.terminated.any()


def test_random_actions_hold_but_not_over_an_episodes_start():
    policy, nothing = RandomPolicy(6, seed=0, hold=1.0), np.zeros((50, 1))
    first = policy(nothing, np.ones(50, bool), {})
    np.testing.assert_array_equal(policy(nothing, np.zeros(50, bool), {}), first)
    assert (policy(nothing, np.ones(50, bool), {}) != first).any()
