"""What a model sees before it dreams: the first frames of a recorded episode, or of one played now."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.runs.fields import ConfigError
from agent.training.learner import Learner
from replay import load_episode
from worldmodel import SequenceBatch

Row = tuple[np.ndarray, np.ndarray, float, bool]
"""observation, action (A,), reward, terminated"""


@dataclass(frozen=True, eq=False)
class Past:
    """T rows from an episode's first on, and where they come from."""

    observation: np.ndarray  # (T, H, W, C) uint8, or (T, V) float32
    action: np.ndarray  # (T, A) float32, row 0 zero
    reward: np.ndarray  # (T,) float32
    terminated: np.ndarray  # (T,) bool
    words: str
    seed: int | None
    """What the real environment was reset to; None for a recording."""

    def __len__(self) -> int:
        return len(self.reward)

    def rows(self, learner: Learner) -> SequenceBatch:
        """(1, T) on the learner's device."""
        first = np.zeros(len(self), bool)
        first[0] = True
        arrays = {name: getattr(self, name)[None] for name in ("observation", "action", "reward", "terminated")}
        return learner.rows(arrays | {"is_first": first[None]})


def played(rows: Sequence[Row], seed: int) -> Past:
    """What a real environment gave since its reset to this seed."""
    observation, action, reward, terminated = zip(*rows, strict=True)
    walked = "" if len(rows) == 1 else f", then {len(rows) - 1} random actions"
    return Past(
        np.stack(observation),
        np.stack(action),
        np.array(reward, np.float32),
        np.array(terminated),
        f"a real environment reset to seed {seed}{walked}",
        seed,
    )


def recorded(folder: Path, frames: int) -> Past:
    """The first `frames` rows, fewer of a shorter one, of an episode drawn from a folder, which is read alone.

    Raises ConfigError where there is none; OSError and CorruptEpisode where it cannot be read.
    """
    names = sorted(path.name for path in folder.glob("*.npz") if not path.name.startswith("."))
    if not names:
        raise ConfigError(f"{folder} holds no recorded episodes (.npz): name another folder by --episodes")
    name = random.choice(names)
    episode = load_episode(folder / name)
    end = min(frames, len(episode))
    return Past(
        episode.observation[:end],
        episode.action[:end],
        episode.reward[:end],
        episode.terminated[:end],
        f"recorded episode {name} of {len(episode)} frames",
        None,
    )
