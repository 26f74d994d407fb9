"""The one environment loop: a policy acts in a vector environment, and episodes come out.

Prefill, training, evaluation, collecting and recording all run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from envs.policies import Policy
from replay.builder import EpisodeBuilder
from replay.episode import Episode


@dataclass(frozen=True)
class EpisodeStats:
    """An episode's return and length."""

    ret: float  # sum of rewards
    length: int  # steps


@dataclass(frozen=True)
class Ended:
    """An episode that has just ended in environment `index`."""

    index: int
    stats: EpisodeStats
    episode: Episode | None  # where the loop records


class EnvLoop:
    """Steps n environments of NEXT_STEP autoreset under a policy.

    `begin` chooses actions and sends them, `finish` waits for the environments: what happens between the two costs no
    time in a vector environment with worker processes.

    Args:
        environments: reset here, with `seed`.
        actions: width of an action as replay stores it; needed to record.
        record: give each episode that ends, as well as its statistics.
        labels: record what the environments' info holds as labels of episodes.
        reset_memory_at: at this frame of each episode (the reset's is frame 0) the policy gets `is_first`, so that
            it forgets the frames before: a control for what memory is worth.
    """

    def __init__(
        self,
        environments: VectorEnv,
        actions: int = 0,
        seed: int | None = None,
        record: bool = False,
        labels: bool = False,
        reset_memory_at: int | None = None,
    ):
        n = environments.num_envs
        self.environments, self.labels, self.reset_memory_at = environments, labels, reset_memory_at
        self._builders = [EpisodeBuilder(actions) for _ in range(n if record else 0)]
        self._returns, self._lengths = np.zeros(n), np.zeros(n, int)
        self._is_first, self._ended = np.ones(n, bool), np.zeros(n, bool)
        self._observation, self._info = environments.reset(seed=seed)
        for i in range(n):
            self._first(i)

    def begin(self, policy: Policy) -> None:
        """Chooses actions for what was last observed, and sends them."""
        is_first = self._is_first
        if self.reset_memory_at is not None:
            is_first = is_first | (self._lengths == self.reset_memory_at)
        self._actions = policy(self._observation, is_first, self._info)
        if hasattr(self.environments, "step_async"):
            self.environments.step_async(self._actions)

    def finish(self) -> tuple[int, list[Ended]]:
        """Waits for the step. Returns the steps made, of which resets are none, and the episodes that ended."""
        wait = getattr(self.environments, "step_wait", None)
        answer = wait() if wait is not None else self.environments.step(self._actions)
        self._observation, reward, terminated, truncated, self._info = answer
        self._is_first = self._ended
        self._ended = (terminated | truncated) & ~self._is_first
        ended = []
        for i in range(len(reward)):
            if self._is_first[i]:
                self._first(i)
                continue
            self._returns[i] += reward[i]
            self._lengths[i] += 1
            if self._builders:
                row = self._observation[i], float(reward[i]), bool(terminated[i])
                self._builders[i].add(self._actions[i], *row, self._labels(i))
            if self._ended[i]:
                ended.append(self._end(i))
        return int((~self._is_first).sum()), ended

    def step(self, policy: Policy) -> tuple[int, list[Ended]]:
        """`begin`, then `finish`."""
        self.begin(policy)
        return self.finish()

    def cut(self) -> list[Ended]:
        """Ends the episodes under way that have steps, as if truncated here; for the end of a recording."""
        return [self._end(i) for i in range(len(self._lengths)) if self._lengths[i] and not self._ended[i]]

    def episodes(self, policy: Policy, count: int) -> Iterator[Ended]:
        """`count` whole episodes as they end.

        Every environment plays an equal number, or one more: to take the first to end would favour short ones.
        """
        n = self.environments.num_envs
        left = [count // n + (i < count % n) for i in range(n)]
        while any(left):
            for ended in self.step(policy)[1]:
                if left[ended.index]:
                    left[ended.index] -= 1
                    yield ended

    def _first(self, i: int) -> None:
        self._returns[i], self._lengths[i] = 0.0, 0
        if self._builders:
            self._builders[i].first(self._observation[i], self._labels(i))

    def _end(self, i: int) -> Ended:
        stats = EpisodeStats(float(self._returns[i]), int(self._lengths[i]))
        return Ended(i, stats, self._builders[i].finish() if self._builders else None)

    def _labels(self, i: int) -> dict[str, Any]:
        """What the info of environment i holds, without Gymnasium's masks `_name`."""
        names = [name for name in self._info if not name.startswith("_")] if self.labels else []
        return {name: self._info[name][i] for name in names if self._info[f"_{name}"][i]}
