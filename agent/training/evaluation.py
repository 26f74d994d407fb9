"""Returns of a policy on whole episodes, apart from training."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from gymnasium.vector import VectorEnv

import envs
from agent.actor import Actor
from agent.training.collector import EpisodeStats, Policy
from agent.training.learner import Learner

SEEDS = 1_000_000
"""Evaluation seeds start here; training's stay below."""


def evaluate(
    learner: Learner,
    env: str,
    episodes: int,
    greedy: bool = False,
    side_by_side: int = 8,
    report: Callable[[int], object] = lambda done: None,
) -> list[EpisodeStats]:
    """`episodes` whole episodes of `env`, on the seeds from SEEDS on: the same ones every time.

    Every environment plays an equal number, or one more: taking the first to end would favour short ones. `report`
    hears, after each, how many have ended.
    """
    return evaluate_policy(lambda n: Actor(learner, n, greedy), env, episodes, side_by_side, report)


def evaluate_policy(
    make: Callable[[int], Policy],
    env: str,
    episodes: int,
    side_by_side: int = 8,
    report: Callable[[int], object] = lambda done: None,
) -> list[EpisodeStats]:
    """`evaluate` for any policy: `make` gives it for as many environments."""
    n = min(episodes, side_by_side)
    environments = envs.make_vector(env, n)
    done: list[EpisodeStats] = []
    try:
        for episode in play(make(n), environments, episodes):
            done.append(episode)
            report(len(done))
    finally:
        environments.close()
    return done


def play(
    policy: Policy, environments: VectorEnv, episodes: int, forget: int | None = None, seed: int = SEEDS
) -> Iterator[EpisodeStats]:
    """Episodes of a policy as they end, each environment's share of them; environments are reset from `seed` on.

    At frame `forget` of each episode (the reset's is frame 0) the policy is told that an episode begins: what it kept
    of the frames before is gone, a control for what memory is worth. An episode that is not so long is left as it is.
    """
    n = environments.num_envs
    left = np.array([episodes // n + (i < episodes % n) for i in range(n)])
    observation, _ = environments.reset(seed=seed)
    is_first, returns, lengths = np.ones(n, bool), np.zeros(n), np.zeros(n, int)
    ended = np.zeros(n, bool)
    while left.any():
        wiped = is_first if forget is None else is_first | (lengths == forget)
        observation, reward, terminated, truncated, _ = environments.step(policy(observation, wiped))
        is_first, ended = ended, (terminated | truncated) & ~ended
        returns, lengths = np.where(is_first, 0, returns + reward), np.where(is_first, 0, lengths + 1)
        for i in np.flatnonzero(ended & (left > 0)):
            left[i] -= 1
            yield EpisodeStats(float(returns[i]), int(lengths[i]))


def summary(done: Sequence[EpisodeStats]) -> dict[str, float]:
    """What a run's log says of an evaluation."""
    returns = np.array([episode.ret for episode in done])
    return {
        "eval/return": float(returns.mean()),
        "eval/return_std": float(returns.std()),
        "eval/length": float(np.mean([episode.length for episode in done])),
        "eval/episodes": len(done),
    }
