"""From an environment's steps to an episode."""

from collections.abc import Mapping

import numpy as np

from replay.episode import Episode


class EpisodeBuilder:
    """Collects the rows of one environment: `first` at the reset, `add` after each step, then `finish`."""

    def __init__(self, actions: int) -> None:
        """`actions`: A, the number of discrete actions, or of the values of a continuous one."""
        self._actions = actions
        self._clear()

    def _clear(self) -> None:
        self._observations: list[np.ndarray] = []
        self._chosen: list[np.ndarray] = []
        self._rewards: list[float] = []
        self._terminated: list[bool] = []
        self._labels: dict[str, list[np.ndarray]] = {}

    def first(self, observation: np.ndarray, labels: Mapping[str, np.ndarray] | None = None) -> None:
        """Row 0: the observation of the reset, (H, W, C) uint8 or (V,). Drops an unfinished episode."""
        self._clear()
        self._labels = {key: [] for key in labels or {}}
        self._row(observation, 0.0, False, labels)

    def add(
        self,
        action: int | np.ndarray,
        observation: np.ndarray,
        reward: float,
        terminated: bool,
        labels: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """The next row: an action and what followed it, with the labels of the first row.

        A discrete action is stored one-hot, a continuous one, (A,), as it is. Raises ValueError before `first`, for an
        action outside 0..A-1 or of another shape, and for other labels than the first row's.
        """
        if not self._observations:
            raise ValueError("add before first")
        vector = self._vector(action)
        if (labels or {}).keys() != self._labels.keys():
            raise ValueError(f"labels {sorted(labels or {})}, but the first row has {sorted(self._labels)}")
        self._row(observation, reward, terminated, labels)
        self._chosen.append(vector)

    def _vector(self, action: int | np.ndarray) -> np.ndarray:
        """(A,) float32"""
        if np.ndim(action) == 0 and 0 <= action < self._actions:
            vector = np.zeros(self._actions, np.float32)
            vector[int(action)] = 1
            return vector
        if np.shape(action) == (self._actions,):
            return np.array(action, np.float32)
        raise ValueError(f"action {action} of {self._actions}")

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
        action = np.stack([np.zeros(self._actions, np.float32), *self._chosen])  # (L, A)
        episode = Episode(
            observation=np.stack(self._observations),
            action=action,
            reward=np.array(self._rewards, np.float32),
            terminated=np.array(self._terminated, np.bool_),
            labels={key: np.stack(values) for key, values in self._labels.items()},
        )
        self._clear()
        return episode
