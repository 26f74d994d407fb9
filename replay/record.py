"""Whole episodes of a scripted policy: what runs in the processes of `replay.recorders`.

Episode i of a `Recording` depends on the recording and on i alone, whichever process makes it and whatever that
made before.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import envs
from envs.policies import Policy, make_policy
from replay.builder import EpisodeBuilder
from replay.episode import Episode, save_episode


class RecordingError(ValueError):
    """What was asked for cannot be recorded, or not to its end; the message is one line."""


@dataclass(frozen=True)
class Recording:
    """What a set of episodes is made with."""

    env: str
    policy: str
    seed: int
    steps: int | None  # of each episode; None: until the environment ends it
    noise: float | None  # of the policy; None: it has none


def record(environment: gymnasium.Env, recording: Recording, index: int, labelled: bool) -> Episode:
    """Episode `index`; `labelled`: what the environment's `info` holds becomes the episode's labels.

    A policy with a `phase` adds the label `phase`, () int64: of the action that led to the row. Raises RecordingError.
    """
    of_environment, of_policy = (
        int(seed) for seed in np.random.SeedSequence(recording.seed, spawn_key=(index,)).generate_state(2)
    )
    if not isinstance(environment.action_space, gymnasium.spaces.Discrete):
        raise RecordingError(f"{recording.env} has actions {environment.action_space}: want discrete ones")
    actions = int(environment.action_space.n)
    policy = make_policy(recording.policy, actions, of_policy, recording.steps, recording.noise)
    builder = EpisodeBuilder(actions)
    observation, info = environment.reset(seed=of_environment)
    builder.first(observation, _labels(info if labelled else {}, policy))
    steps, over = 0, False
    while not over:
        action = policy.act(info)
        observation, reward, terminated, truncated, info = environment.step(action)
        builder.add(action, observation, float(reward), terminated, _labels(info if labelled else {}, policy))
        steps += 1
        over = terminated or truncated or steps == recording.steps
    if hasattr(policy, "phase") and steps != recording.steps:
        raise RecordingError(f"{recording.env} ends after {steps} of the {recording.steps} steps of {recording.policy}")
    return builder.finish()


def _labels(info: Mapping[str, Any], policy: Policy) -> dict[str, np.ndarray]:
    phase = getattr(policy, "phase", None)
    return {**info} if phase is None else {**info, "phase": np.array(phase, np.int64)}


def takes_labels(env: str) -> bool:
    """Whether an environment of this name can be made with `labels=True`."""
    try:
        envs.check_name(f"{env.partition(':')[0]}:labels=true")
    except envs.UnknownEnvironment:
        return False
    return True


def serve(pipe: Connection, recording: Recording, folder: Path) -> None:
    """Record the episodes whose numbers come through the pipe into `folder`, until it closes.

    Each is answered by ("episode", its steps). The process ends after ("refused", a line) where the environment, the
    recording or the file cannot be had, and after ("error", traceback) for anything else.
    """
    # Ctrl-C reaches the whole process group; the parent handles it and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        environment, labelled = _make(recording.env)
        try:
            while True:
                index = pipe.recv()
                episode = record(environment, recording, index, labelled)
                save_episode(folder, episode, f"{index:08d}-{len(episode)}.npz")
                pipe.send(("episode", episode.steps))
        finally:
            environment.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # The parent is gone.
    except (RecordingError, OSError) as error:
        pipe.send(("refused", str(error)))
    except Exception:
        pipe.send(("error", traceback.format_exc()))


def _make(env: str) -> tuple[gymnasium.Env, bool]:
    """The environment, and whether it gives labels. Raises RecordingError in its own words."""
    labelled = takes_labels(env)
    try:
        environment = envs.make(env, **({"labels": True} if labelled else {}))
    except (ValueError, RuntimeError) as error:
        raise RecordingError(str(error)) from error
    return environment, labelled
