"""Batches of consecutive windows, and the State that is carried from one window of each sequence to the next."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from replay.buffer import Replay
from replay.episode import Episode

Place = tuple[str, int] | None
"""An episode's name and the next row to read; None: begin at a random row."""


class SequenceSampler:
    """B sequences, each of which goes through one episode after another by T rows at a call.

    A sequence begins at a random row of a random episode, so that a batch is mixed; after an episode's end it goes on
    with the beginning of another, drawn uniformly from all that are held. `next` gives a batch with the State before
    it, `carry` takes the State after it and moves on: until then `next` gives the same rows again.

    Args:
        initial: the State of `batch` sequences before any row, e.g. `WorldModel.initial`.
        random_start_prob: the chance at each call that a sequence leaves its episode for another random row, and its
            memory with it. More of it reaches new episodes sooner where one lasts many windows.
    """

    def __init__(
        self, replay: Replay, batch: int, seed: int, initial: Callable[[int], Any], random_start_prob: float = 0.0
    ) -> None:
        self._replay, self._random_start_prob = replay, random_start_prob
        self._random = np.random.default_rng(seed)
        self._places: list[Place] = [None] * batch
        self._moved = (self._places, self._random)
        self.state = initial(batch)

    def next(self, frames: int) -> tuple[dict[str, np.ndarray], Any]:
        """The next T = `frames` rows of each sequence, and the State before them.

        observation (B, T, ...), action (B, T, A) float32, reward (B, T) float32, is_first (B, T) bool and
        terminated (B, T) bool. `is_first` is True where memory must begin: at an episode's row 0 and at a
        random start, whose action is zero. Raises LookupError if the replay is empty, ValueError if
        `frames` < 1 or if episodes of different shapes are mixed.
        """
        if frames < 1:
            raise ValueError(f"a window has at least one frame, not {frames}")
        places, random = list(self._places), copy.deepcopy(self._random)
        rows: dict[str, np.ndarray] = {}
        for b in range(len(places)):
            if self._random_start_prob and random.random() < self._random_start_prob:
                places[b] = None
            filled = 0
            while filled < frames:
                name, start, fresh, episode = self._locate(places[b], random)
                rows = rows or _empty(episode, len(places), frames)
                _check(name, episode, rows)
                count = min(frames - filled, len(episode) - start)
                here, there = np.s_[b, filled : filled + count], np.s_[start : start + count]
                for key in ("observation", "action", "reward", "terminated"):
                    rows[key][here] = getattr(episode, key)[there]
                if fresh:
                    rows["is_first"][b, filled] = True
                    rows["action"][b, filled] = 0
                filled += count
                ended = start + count == len(episode)
                places[b] = (self._draw(random), 0) if ended else (name, start + count)
        self._moved = (places, random)
        return rows, self.state

    def carry(self, state: Any) -> None:
        """Moves on behind the rows that `next` gave, with the State after them."""
        self._places, self._random = self._moved
        self.state = state

    def _locate(self, place: Place, random: np.random.Generator) -> tuple[str, int, bool, Episode]:
        """A sequence's episode, the next row to read, and whether memory begins there."""
        if place is not None:
            name, row = place
            episode = self._find(name)
            if episode is not None and row < len(episode):
                return name, row, row == 0, episode
        while (episode := self._find(name := self._draw(random))) is None:
            pass  # a corrupt one: it has dropped out of the replay
        return name, int(random.integers(len(episode))), True, episode

    def _find(self, name: str) -> Episode | None:
        try:
            return self._replay.get(name)
        except KeyError:
            return None

    def _draw(self, random: np.random.Generator) -> str:
        """The name of an episode, each held with the same chance."""
        names = self._replay.names()
        if not names:
            raise LookupError(f"no episodes in {self._replay.folder}")
        return names[random.integers(len(names))]

    def state_dict(self) -> dict[str, Any]:
        """Where every sequence stands, and the random state: plain JSON. The State is apart: `state`."""
        places = [None if place is None else list(place) for place in self._places]
        return {"places": places, "random": self._random.bit_generator.state}

    def load_state_dict(self, saved: dict[str, Any], state: Any) -> None:
        """Goes on as the sampler that gave `saved` and `state`. A sequence whose episode is gone begins at random.

        Raises ValueError if `saved` is of another batch size.
        """
        if len(saved["places"]) != len(self._places):
            raise ValueError(f"a state of {len(saved['places'])} sequences for {len(self._places)}")
        self._places = [None if place is None else (str(place[0]), int(place[1])) for place in saved["places"]]
        self._random.bit_generator.state = saved["random"]
        self._moved = (self._places, self._random)
        self.state = state


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
    """Refuses an episode of another environment: numpy would broadcast or cast it."""
    for key, array in (("observation", episode.observation), ("action", episode.action)):
        if array.shape[1:] != rows[key].shape[2:] or array.dtype != rows[key].dtype:
            raise ValueError(
                f"{name}: {key} {array.shape[1:]} {array.dtype}, where others have "
                f"{rows[key].shape[2:]} {rows[key].dtype}: one replay holds one environment"
            )
