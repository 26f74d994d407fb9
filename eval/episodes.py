"""Whole episodes of real environments, recorded in memory."""

from gymnasium.vector import VectorEnv

from envs.policies import Policy
from replay import Episode
from replay.env_loop import EnvLoop


def record(policy: Policy, environments: VectorEnv, actions: int, seed: int, labels: bool = False) -> list[Episode]:
    """The first episode of each environment; environment i is reset with `seed` + i. `actions`: an action's width."""
    loop = EnvLoop(environments, actions, seed, record=True, labels=labels)
    found = {ended.index: ended.episode for ended in loop.episodes(policy, environments.num_envs)}
    return [episode for _, episode in sorted(found.items()) if episode is not None]
