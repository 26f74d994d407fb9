"""Batches of consecutive windows: B walkers, each going through one episode after another.

The caller carries each walker's State from window to window and begins it anew where `is_first` says so.
"""

from typing import Any

import numpy as np

from replay.buffer import Replay
from replay.episode import Episode


class SequenceSampler:
    """B readers that stand somewhere in an episode each and move on by T rows at a call.

    A walker's first start is a random row of a random episode, so that the walkers of a batch stand at
    different places; after an episode's end comes the beginning of another, drawn uniformly from all held at
    that moment.
    """

    def __init__(self, replay: Replay, batch: int, seed: int, restart: float = 0.0) -> None:
        """`restart`: the chance at each window that a walker leaves its episode for another random start.

        Zero leaves memory whole and the batch mixed by its first starts; more reaches new episodes sooner
        where one episode lasts many windows.
        """
        self._replay = replay
        self._restart = restart
        self._random = np.random.default_rng(seed)
        # The episode's name and the next row to read; None: to start at random.
        self._places: list[tuple[str, int] | None] = [None] * batch

    def next(self, frames: int) -> dict[str, np.ndarray]:
        """The next T = `frames` rows of each walker; T may differ from call to call.

        observation (B, T, ...), action (B, T, A) float32, reward (B, T) float32, is_first (B, T) bool and
        terminated (B, T) bool. `is_first` is True where memory must begin: at an episode's row 0 and at a
        random start, whose action is zero. Raises LookupError if the replay is empty, ValueError if
        `frames` < 1 or if episodes of different shapes are mixed.
        """
        if frames < 1:
            raise ValueError(f"a window has at least one frame, not {frames}")
        rows: dict[str, np.ndarray] = {}
        for walker in range(len(self._places)):
            if self._restart and self._random.random() < self._restart:
                self._places[walker] = None
            filled = 0
            while filled < frames:
                name, start, fresh, episode = self._stand(walker)
                rows = rows or _empty(episode, len(self._places), frames)
                _check(name, episode, rows)
                count = min(frames - filled, len(episode) - start)
                here, there = np.s_[walker, filled : filled + count], np.s_[start : start + count]
                rows["observation"][here] = episode.observation[there]
                rows["action"][here] = episode.action[there]
                rows["reward"][here] = episode.reward[there]
                rows["terminated"][here] = episode.terminated[there]
                if fresh:
                    rows["is_first"][walker, filled] = True
                    rows["action"][walker, filled] = 0
                filled += count
                ended = start + count == len(episode)
                self._places[walker] = (self._draw(), 0) if ended else (name, start + count)
        return rows

    def _stand(self, walker: int) -> tuple[str, int, bool, Episode]:
        """The walker's episode, the next row to read, and whether memory begins there."""
        place = self._places[walker]
        if place is not None:
            name, row = place
            episode = self._find(name)
            if episode is not None and row < len(episode):
                return name, row, row == 0, episode
        while (episode := self._find(name := self._draw())) is None:
            pass  # a corrupt one: it has dropped out of the replay
        return name, int(self._random.integers(len(episode))), True, episode

    def _find(self, name: str) -> Episode | None:
        try:
            return self._replay.get(name)
        except KeyError:
            return None

    def _draw(self) -> str:
        """The name of an episode, each held with the same chance."""
        names = self._replay.names()
        if not names:
            raise LookupError(f"no episodes in {self._replay.folder}")
        return names[self._random.integers(len(names))]

    def state_dict(self) -> dict[str, Any]:
        """Where every walker stands, and the random state: plain JSON."""
        places = [None if place is None else list(place) for place in self._places]
        return {"places": places, "random": self._random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as the walkers that gave `state`. A walker whose episode is gone starts at random.

        Raises ValueError if `state` is of another batch size.
        """
        if len(state["places"]) != len(self._places):
            raise ValueError(f"a state of {len(state['places'])} walkers for {len(self._places)}")
        self._places = [None if place is None else (str(place[0]), int(place[1])) for place in state["places"]]
        self._random.bit_generator.state = state["random"]


def _empty(episode: Episode, batch: int, frames: int) -> dict[str, np.ndarray]:
    """A batch to fill: every row is written, but `is_first` only where True."""
    size = (batch, frames)
    return {
        "observation": np.empty(size + episode.observation.shape[1:], episode.observation.dtype),
        "action": np.empty(size + episode.action.shape[1:], np.float32),
        "reward": np.empty(size, np.float32),
        "is_first": np.zeros(size, np.bool_),
        "terminated": np.empty(size, np.bool_),
    }


def _check(name: str, episode: Episode, rows: dict[str, np.ndarray]) -> None:
    """Numpy would broadcast or cast an episode of another environment into the batch without a word."""
    for key, array in (("observation", episode.observation), ("action", episode.action)):
        if array.shape[1:] != rows[key].shape[2:] or array.dtype != rows[key].dtype:
            raise ValueError(
                f"{name}: {key} {array.shape[1:]} {array.dtype}, where others have "
                f"{rows[key].shape[2:]} {rows[key].dtype}: one replay holds one environment"
            )
