"""From environments to episodes on disk."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from envs.vector import ForkserverVectorEnv
from replay import EpisodeBuilder, Replay

Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(observation (n, ...), is_first (n,)) -> actions (n,), or (n, A) where they are continuous."""


@dataclass(frozen=True)
class EpisodeStats:
    """An episode that has just ended."""

    ret: float  # sum of rewards
    length: int  # steps


class Collector:
    """Steps n environments under a policy; writes each episode as it ends.

    `begin` chooses actions and lets the environments go, `finish` waits for them: what the caller does between the
    two costs no time. Environments reset themselves in the step after an episode's end (NEXT_STEP).
    """

    def __init__(self, environments: ForkserverVectorEnv, replay: Replay, actions: int, seed: int):
        self.environments, self.replay = environments, replay
        n = environments.num_envs
        self._builders = [EpisodeBuilder(actions) for _ in range(n)]
        self._returns = np.zeros(n)
        self._lengths = np.zeros(n, int)
        self._is_first = np.ones(n, bool)
        self._ended = np.zeros(n, bool)
        self._observation, _ = environments.reset(seed=seed)
        for builder, frame in zip(self._builders, self._observation, strict=True):
            builder.first(frame)

    def begin(self, policy: Policy) -> None:
        """Chooses actions for what was last seen and sends them."""
        self._actions = policy(self._observation, self._is_first)
        self.environments.step_async(self._actions)

    def finish(self) -> tuple[int, list[EpisodeStats]]:
        """Waits for the step. -> (steps made, episodes ended); resets are not steps."""
        self._observation, reward, terminated, truncated, _ = self.environments.step_wait()
        self._is_first = self._ended
        done = []
        for i, builder in enumerate(self._builders):
            if self._is_first[i]:
                builder.first(self._observation[i])
                self._returns[i], self._lengths[i] = 0.0, 0
                continue
            builder.add(self._actions[i], self._observation[i], float(reward[i]), bool(terminated[i]))
            self._returns[i] += reward[i]
            self._lengths[i] += 1
            if terminated[i] or truncated[i]:
                self.replay.add(builder.finish())
                done.append(EpisodeStats(float(self._returns[i]), int(self._lengths[i])))
        self._ended = (terminated | truncated) & ~self._is_first
        return int((~self._is_first).sum()), done
