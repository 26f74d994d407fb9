"""From an environment's steps to an episode."""

from collections.abc import Mapping

import numpy as np

from replay.episode import Episode


class EpisodeBuilder:
    """Collects the rows of one environment: `first` at the reset, `add` after each step, then `finish`."""

    def __init__(self, actions: int) -> None:
        """`actions`: A, the number of discrete actions."""
        self._actions = actions
        self._clear()

    def _clear(self) -> None:
        self._observations: list[np.ndarray] = []
        self._chosen: list[int] = []
        self._rewards: list[float] = []
        self._terminated: list[bool] = []
        self._labels: dict[str, list[np.ndarray]] = {}

    def first(self, observation: np.ndarray, labels: Mapping[str, np.ndarray] | None = None) -> None:
        """Row 0: the observation after the reset, (H, W, C) uint8 or (V,). Drops an episode under way."""
        self._clear()
        self._labels = {key: [] for key in labels or {}}
        self._row(observation, 0.0, False, labels)

    def add(
        self,
        action: int,
        observation: np.ndarray,
        reward: float,
        terminated: bool,
        labels: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """The next row: the action taken and what came of it, with the same labels as the first row.

        Raises ValueError before `first`, for an action outside 0..A-1, and for labels unlike the first row's.
        """
        if not self._observations:
            raise ValueError("add before first")
        if not 0 <= action < self._actions:
            raise ValueError(f"action {action} of {self._actions}")
        if (labels or {}).keys() != self._labels.keys():
            raise ValueError(f"labels {sorted(labels or {})}, but the first row has {sorted(self._labels)}")
        self._row(observation, reward, terminated, labels)
        self._chosen.append(int(action))

    def _row(
        self,
        observation: np.ndarray,
        reward: float,
        terminated: bool,
        labels: Mapping[str, np.ndarray] | None,
    ) -> None:
        # Copies, because environments may hand out the same buffer at every step.
        image = np.ndim(observation) == 3
        self._observations.append(np.array(observation, dtype=None if image else np.float32))
        self._rewards.append(float(reward))
        self._terminated.append(bool(terminated))
        for key, value in (labels or {}).items():
            self._labels[key].append(np.array(value))

    def finish(self) -> Episode:
        """The episode so far; the builder is then empty. Raises ValueError for less than one step."""
        if not self._chosen:
            raise ValueError("an episode has at least one step")
        action = np.zeros((len(self._observations), self._actions), np.float32)  # (L, A)
        action[np.arange(1, len(action)), self._chosen] = 1
        episode = Episode(
            observation=np.stack(self._observations),
            action=action,
            reward=np.array(self._rewards, np.float32),
            terminated=np.array(self._terminated, np.bool_),
            labels={key: np.stack(values) for key, values in self._labels.items()},
        )
        self._clear()
        return episode
