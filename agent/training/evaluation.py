"""Returns of a policy on whole episodes, apart from training."""

from collections.abc import Callable, Sequence

import numpy as np

import envs
from envs.policies import Policy
from envs.vector import TRAINING_SEEDS
from replay.env_loop import EnvLoop, EpisodeStats

SEEDS = TRAINING_SEEDS
"""Evaluation's seeds start here; training's stay below."""


def evaluate(
    make: Callable[[int], Policy],
    env: str,
    episodes: int,
    side_by_side: int = 8,
    reset_memory_at: int | None = None,
    report: Callable[[int], object] = lambda ended: None,
    seed: int = SEEDS,
) -> list[EpisodeStats]:
    """`episodes` whole episodes of `env`, on the seeds from `seed` on: the same ones at every call.

    Args:
        make: gives the policy for so many environments.
        side_by_side: environments at once, at most.
        reset_memory_at: see `EnvLoop`.
        report: called after each episode with the number that have ended.
    """
    n = min(episodes, side_by_side)
    environments = envs.make_vector(env, n)
    try:
        loop = EnvLoop(environments, seed=seed, reset_memory_at=reset_memory_at)
        done: list[EpisodeStats] = []
        for ended in loop.episodes(make(n), episodes):
            done.append(ended.stats)
            report(len(done))
        return done
    finally:
        environments.close()


def summary(done: Sequence[EpisodeStats]) -> dict[str, float]:
    """The metrics of an evaluation."""
    returns = np.array([episode.ret for episode in done])
    return {
        "eval/return": float(returns.mean()),
        "eval/return_std": float(returns.std()),
        "eval/length": float(np.mean([episode.length for episode in done])),
        "eval/episodes": len(done),
    }
