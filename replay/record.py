"""Whole episodes of a scripted policy, recorded in the processes of `replay.recorders`."""

from __future__ import annotations

import dataclasses
import signal
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import SyncVectorEnv

import envs
from envs.policies import make_policy
from replay.env_loop import Ended, EnvLoop
from replay.episode import Episode, save_episode


class RecordingError(ValueError):
    """A recording is impossible, or cannot be finished; the message is one line."""


@dataclass(frozen=True)
class Recording:
    """The settings of a set of episodes. Episode i depends on these and i alone."""

    env: str
    policy: str
    seed: int
    steps: int | None  # of each episode; None: until the environment ends it
    noise: float | None  # of the policy; None: it has none


@dataclass(frozen=True)
class Recorded:
    """An episode that a process has written."""

    steps: int
    size: int  # bytes of its file
    seconds: float  # that it took


class Recorder:
    """Records episodes in one environment, with what its `info` holds as labels where it takes `labels=True`.

    A policy with a `phase` adds the label `phase`, () int64: of the action that led to the row.

    Raises RecordingError where the environment cannot be made or its actions are not discrete.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._labels = takes_labels(recording.env)
        options = {"labels": True} if self._labels else {}
        try:
            self._environments = SyncVectorEnv([lambda: envs.make(recording.env, **options)])
        except (ValueError, RuntimeError) as error:
            raise RecordingError(str(error)) from error
        space = self._environments.single_action_space
        if not isinstance(space, Discrete):
            self.close()
            raise RecordingError(f"{recording.env} has actions {space}: want discrete ones")
        self._actions = int(space.n)

    def episode(self, index: int) -> Episode:
        """Episode `index`. Raises RecordingError where it ends before a policy of fixed length does."""
        recording = self.recording
        sequence = np.random.SeedSequence(recording.seed, spawn_key=(index,))
        of_environment, of_policy = (int(seed) for seed in sequence.generate_state(2))
        policy = make_policy(recording.policy, self._actions, of_policy, recording.steps, recording.noise)
        phases = [getattr(policy, "phase", None)]
        loop = EnvLoop(self._environments, self._actions, of_environment, record=True, labels=self._labels)
        ended: list[Ended] = []
        steps = 0
        while not ended:
            ended, steps = loop.step(policy)[1], steps + 1
            phases.append(getattr(policy, "phase", None))
            if steps == recording.steps:
                ended = ended or loop.cut()
        episode = ended[0].episode
        assert episode is not None
        if phases[0] is None:
            return episode
        if steps != recording.steps and recording.steps is not None:
            raise RecordingError(
                f"{recording.env} ends after {steps} of the {recording.steps} steps of {recording.policy}"
            )
        return dataclasses.replace(episode, labels=episode.labels | {"phase": np.array(phases, np.int64)})

    def close(self) -> None:
        """Closes the environment."""
        self._environments.close()


def takes_labels(env: str) -> bool:
    """Whether an environment of this name can be made with `labels=True`."""
    try:
        envs.check_name(f"{env.partition(':')[0]}:labels=true")
    except envs.UnknownEnvironment:
        return False
    return True


def serve(pipe: Connection, recording: Recording, folder: Path) -> None:
    """Records the episodes whose indices come through the pipe into `folder`, until it closes.

    Answers each with ("episode", its Recorded). The process ends after ("refused", message) for a RecordingError or an
    OSError, and after ("error", traceback) for anything else.
    """
    # Ctrl-C reaches the whole process group; the parent handles it and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        recorder = Recorder(recording)
        try:
            while True:
                index = pipe.recv()
                began = time.monotonic()
                episode = recorder.episode(index)
                path = save_episode(folder, episode, f"{index:08d}-{len(episode)}.npz")
                pipe.send(("episode", Recorded(episode.steps, path.stat().st_size, time.monotonic() - began)))
        finally:
            recorder.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # The parent is gone.
    except (RecordingError, OSError) as error:
        pipe.send(("refused", str(error)))
    except Exception:
        pipe.send(("error", traceback.format_exc()))
