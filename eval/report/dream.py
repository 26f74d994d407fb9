"""The imagination that `eval.report` shows: from a run's newest checkpoint, which is only read."""

from pathlib import Path

import numpy as np
import torch

import envs
from agent.logging.video import dream_video
from agent.runs.checkpoint import CheckpointError
from agent.runs.fields import ConfigError
from agent.training.evaluation import SEEDS
from agent.training.learner import Learner
from agent.training.load import load_run
from eval.report.reported_run import ReportedRun
from replay import CorruptEpisode, load_episode
from worldmodel import SequenceBatch

OBSERVED = 48
"""Frames of the recorded episode that the model observes first, a third of it at most."""


class NoDream(RuntimeError):
    """Says in a line why there is none."""


def imagined(run: ReportedRun, path: Path) -> Path:
    """Writes an mp4 of rollouts from a recorded episode's beginning, or, without one, from an environment's reset.

    Raises NoDream where the run has no checkpoint that can be read, or no frames.
    """
    try:
        _, learner, _ = load_run(run.folder)
        past = _recorded(learner, run)
        past = _reset(learner, run.config.env) if past is None else past
    except (ConfigError, CheckpointError, envs.UnknownEnvironment, ValueError, OSError) as error:
        raise NoDream(error.args[0] if error.args else error) from None
    if past.observation.ndim != 5:
        raise NoDream(f"{run.config.env} has no frames to show")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same report each time
        dream_video(learner, past, path)
    return path


def _recorded(learner: Learner, run: ReportedRun) -> SequenceBatch | None:
    """The first rows (1, T) of the newest episode that can be read; None without one. Changes nothing."""
    for path in reversed(run.recorded):
        try:
            batch = learner.episodes([load_episode(path)])
        except (CorruptEpisode, OSError):  # damaged, or deleted by a run that goes on
            continue
        return batch[:, : max(1, min(OBSERVED, batch.shape[1] // 3))]
    return None


def _reset(learner: Learner, env: str) -> SequenceBatch:
    """The first frame (1, 1) of an episode on the evaluation's seeds."""
    environment = envs.make(env)
    frame, _ = environment.reset(seed=SEEDS)
    environment.close()
    arrays = {
        "observation": np.asarray(frame)[None, None],
        "action": np.zeros((1, 1, learner.model.actions), np.float32),
        "reward": np.zeros((1, 1), np.float32),
        "is_first": np.ones((1, 1), bool),
        "terminated": np.zeros((1, 1), bool),
    }
    return learner.batch(arrays)
