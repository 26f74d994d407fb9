"""Episodes that mazes are measured on: held out and collected where they are missing, or recorded elsewhere."""

from pathlib import Path

import numpy as np

from agent.runs.fields import ConfigError
from agent.runs.folder import file_name
from agent.training.learner import Learner
from agent.training.offline import EVERYTHING
from replay import Episode, Replay
from replay.collect import collect
from replay.record import RecordingError

STEPS = 800
"""Steps of held-out episodes, as in LSSVWM (arXiv 2505.20171)."""
SEEDS = {"waypoints": 2, "out_and_back": 3, "loops": 4, "repeated_out_and_back": 5, "random": 6, "walks": 7}
"""Of held-out episodes, by policy; 0 and 1 are those of training and validation."""
SHORTEST = 16
"""Rows that a recorded episode has at least."""


def held_out(env: str, episodes: int, policy: str, folder: Path) -> list[Episode]:
    """So many episodes of a policy, of `STEPS` steps; `folder` holds those of all policies and environments."""
    folder = folder / file_name(f"{env}-{policy}-test")
    collected(env, episodes, policy, folder, SEEDS[policy], STEPS)
    replay = Replay(folder, EVERYTHING)
    return [replay.get(name) for name in replay.names()[:episodes]]


def recorded(folder: Path, episodes: int) -> list[Episode]:
    """So many episodes spread evenly over those in `folder`, from the oldest to the newest.

    All are cut to the length of the shortest, and to `STEPS` steps. Raises ConfigError where they are too few, or
    shorter than `SHORTEST` rows.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder of episodes")
    replay = Replay(folder, EVERYTHING)
    names = replay.names()
    if len(names) < episodes:
        raise ConfigError(f"{folder} holds {len(names)} episodes, not {episodes}: give another --episodes")
    found = [replay.get(names[i]) for i in np.linspace(0, len(names) - 1, episodes).astype(int)]
    rows = min(STEPS + 1, *(len(episode) for episode in found))
    if rows < SHORTEST:
        raise ConfigError(f"{folder} holds an episode of {rows} rows: want {SHORTEST} at least")
    return [episode.take(np.arange(rows)) for episode in found]


def collected(env: str, episodes: int, policy: str, folder: Path, seed: int, steps: int | None = None) -> None:
    """As `replay.collect.collect`; raises ConfigError in place of RecordingError."""
    try:
        collect(env, episodes, policy, folder, seed=seed, steps=steps)
    except RecordingError as error:
        raise ConfigError(str(error)) from None


def check_fit(learner: Learner, episode: Episode, origin: str) -> None:
    """Raises ConfigError for an episode with observations or actions of other shapes than the model's."""
    model = learner.model
    shape = tuple(model.decode(model.feature(model.initial(1))).shape[1:])
    if episode.observation.shape[1:] != shape:
        raise ConfigError(f"{origin} has observations {episode.observation.shape[1:]}, the run was trained on {shape}")
    if episode.action.shape[1] != model.actions:
        raise ConfigError(f"{origin} has {episode.action.shape[1]} actions, the run was trained on {model.actions}")
