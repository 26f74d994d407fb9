"""What a model observes before it imagines: the first frames of an episode, recorded or played now."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.runs.fields import ConfigError
from agent.training.learner import Learner
from replay import load_episode
from worldmodel import SequenceBatch


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

    def batch(self, learner: Learner) -> SequenceBatch:
        """(1, T) on the learner's device."""
        first = np.zeros((1, len(self)), bool)
        first[0, 0] = True
        arrays = {name: getattr(self, name)[None] for name in ("observation", "action", "reward", "terminated")}
        return learner.batch(arrays | {"is_first": first})


def recorded(folder: Path, frames: int) -> Past:
    """The first `frames` rows, or all of a shorter one, of an episode drawn from a folder, which is only read.

    Raises ConfigError where there is none; OSError and CorruptEpisode where it cannot be read.
    """
    names = sorted(path.name for path in folder.glob("*.npz") if not path.name.startswith("."))
    if not names:
        raise ConfigError(f"{folder} holds no recorded episodes (.npz): name another folder by --episodes")
    name = random.choice(names)
    episode = load_episode(folder / name)
    rows = slice(min(frames, len(episode)))
    arrays = episode.observation[rows], episode.action[rows], episode.reward[rows], episode.terminated[rows]
    return Past(*arrays, f"recorded episode {name} of {len(episode)} frames", None)
