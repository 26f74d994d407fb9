"""Returns of a policy on whole episodes, apart from training."""

import numpy as np
from gymnasium.vector import VectorEnv

import envs
from agent.actor import Actor
from agent.collector import Finished
from agent.learner import Learner

SEEDS = 1_000_000
"""Evaluation seeds start here; training's stay below."""


def evaluate(learner: Learner, env: str, episodes: int, greedy: bool = False, side_by_side: int = 8) -> list[Finished]:
    """`episodes` whole episodes of `env`, on the seeds from SEEDS on: the same ones every time.

    Every environment plays an equal number, or one more: taking the first to end would favour short ones.
    """
    n = min(episodes, side_by_side)
    environments = envs.make_vector(env, n)
    try:
        return _play(learner, environments, episodes, greedy)
    finally:
        environments.close()


def _play(learner: Learner, environments: VectorEnv, episodes: int, greedy: bool) -> list[Finished]:
    n = environments.num_envs
    left = np.array([episodes // n + (i < episodes % n) for i in range(n)])
    actor = Actor(learner, n, greedy)
    observation, _ = environments.reset(seed=SEEDS)
    is_first, returns, lengths = np.ones(n, bool), np.zeros(n), np.zeros(n, int)
    ended = np.zeros(n, bool)
    done: list[Finished] = []
    while left.any():
        observation, reward, terminated, truncated, _ = environments.step(actor(observation, is_first))
        is_first, ended = ended, (terminated | truncated) & ~ended
        returns, lengths = np.where(is_first, 0, returns + reward), np.where(is_first, 0, lengths + 1)
        for i in np.flatnonzero(ended & (left > 0)):
            done.append(Finished(float(returns[i]), int(lengths[i])))
            left[i] -= 1
    return done
