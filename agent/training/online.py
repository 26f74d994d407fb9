"""Online training: act, update, evaluate, save. Dreamer's loop."""

import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import envs
from agent.logging.video import openloop_video
from agent.runs import checkpoint, machine
from agent.runs.config import Config
from agent.runs.fields import ConfigError
from agent.training import distributed
from agent.training.curriculum import LengthCurriculum
from agent.training.evaluation import SEEDS
from agent.training.learner import Learner, spaces
from agent.training.loop import TrainingLoop, parameters
from envs.policies import Policy, RandomPolicy
from replay import Replay
from replay.env_loop import EnvLoop

STICKY_REWARDS = 100
"""Rewards other than zero after which no action is repeated any more (`train.sticky`)."""


class OnlineTraining(TrainingLoop):
    """An agent that acts in environments, and learns in a world model trained on what it meets."""

    def __init__(self, config: Config, folder: Path):
        train = config.train
        periods = {"evaluate": train.eval_every, "video": train.video_every, "save": train.save_every}
        super().__init__(config, folder, periods, config.steps)
        machine.configure_threads(train.threads)
        torch.manual_seed(config.seed)
        self.environments = envs.make_vector(config.env, config.envs)
        shape, actions, continuous = spaces(
            self.environments.single_observation_space, self.environments.single_action_space
        )
        self.learner = Learner(config, shape, actions, continuous)
        self.replay = Replay(folder / "episodes", config.replay.capacity)
        own_seed = distributed.own_seed(config.seed)
        self.sampler = LengthCurriculum(self.replay, config.replay, own_seed, self.learner.model.initial)
        self.since = (train.prefill, 0)
        """Step and updates from which `train.replay_ratio` counts: others where processes have come or gone."""
        self.rewards_met = 0
        if not self.first:
            torch.manual_seed(own_seed)
        self.resume(self.learner.init_weights)
        self.learner.broadcast()
        # a run that was killed meets other episodes than those it has collected since its last checkpoint
        entropy = [own_seed, self.step, self.replay.episodes]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0]) % (SEEDS // 2)
        self.loop = EnvLoop(self.environments, actions, seed, record=True)
        self.random = RandomPolicy(actions, seed, continuous=continuous)
        self.actor = self.learner.policy(config.envs)
        self.episodes = self.replay.episodes
        self._greet(shape, actions)

    def advance(self) -> None:
        """One step of every environment, and meanwhile the updates that are due."""
        config, learner = self.config, self.learner
        ready = distributed.all_min(len(self.replay)) > 0
        with self.timed("act"):
            self.actor.hold = config.train.sticky if self.rewards_met < STICKY_REWARDS else 0.0
            self.loop.begin(self.random if self.step < config.train.prefill or not ready else self.actor)
        with self.timed("learn"):
            while ready and learner.updates < self._due(self.step):
                if not learner.updates:
                    with self.progress.paused():
                        learner.pretrain(self.replay, self.progress.note)
                    learner.broadcast()
                progress = self.step / config.steps
                learner.anneal(progress)
                metrics, state = learner.update(*self.sampler.next(progress))
                self.sampler.carry(state)
                self.updated(metrics, updates=learner.updates, nonfinite_updates=learner.nonfinite_updates)
                self.show()
        with self.timed("wait"):
            steps, ended = self.loop.finish()
        self.step += distributed.all_sum(steps)
        for one in ended:
            assert one.episode is not None
            self.replay.add(one.episode)
            self.rewards_met += int((one.episode.reward != 0).sum())
            self.ended(one.stats)
        self.show()

    def policy(self, n: int) -> Policy:
        """See `TrainingLoop`."""
        return self.learner.policy(n)

    def log_video(self) -> None:
        """The open-loop video of the newest episode, for environments that have frames."""
        if len(self.environments.single_observation_space.shape or ()) != 3 or not len(self.replay):
            return
        path = self.folder / "videos" / "openloop.mp4"
        try:
            openloop_video(self.learner, self.replay.get(self.replay.names()[-1]), path)
        except (ValueError, KeyError) as error:
            self.progress.note(f"no video at {self.step} steps: {error}")
            return
        self.log.video(self.step, "videos/openloop", path)

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `TrainingLoop`."""
        tensors, meta = self.learner.snapshot()
        carried, meta["sampler"] = self.sampler.snapshot()
        meta |= {"processes": distributed.processes(), "since": self.since, "rewards_met": self.rewards_met}
        return tensors | carried, meta | {"worldmodel": self.config.worldmodel.name}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """See `TrainingLoop`."""
        if meta["unit"] != self.unit:
            raise ConfigError(f"{self.folder} was trained from episodes on disk, in updates: give another --run-dir")
        self.learner.restore(tensors, meta)
        self.sampler.restore(tensors, meta["sampler"])
        self.rewards_met = meta["rewards_met"]
        if meta["processes"] == distributed.processes():
            step, updates = meta["since"]
            self.since = (step, updates)
        else:
            self.since = (max(self.step, self.config.train.prefill), self.learner.updates)

    def load(self) -> checkpoint.Checkpoint | None:
        """The newest checkpoint of a step that all processes have one of; None where none of them has any."""
        found = super().load()
        step = found[0] if found else -1
        newest = step
        while not distributed.all_equal(step):  # some were stopped between two saves
            found = checkpoint.load_latest(self.folder / "checkpoints", distributed.all_min(step))
            step = found[0] if found else -1
        if found is None and not distributed.all_equal(newest):
            raise ConfigError(f"{self.folder}: {distributed.processes()} processes have no checkpoint in common")
        return found

    def show(self, *more: str, **counts: float) -> None:
        """See `TrainingLoop`; the time left goes by updates."""
        frames = self.config.replay.batch_size * self.config.replay.batch_length
        counts = {"last": self._due(self.config.steps) * frames, "frames": self.learner.updates * frames}
        super().show(f"updates {self.learner.updates}", *more, **counts)

    def close(self) -> None:
        """Ends the environments' processes and the log."""
        self.environments.close()
        super().close()

    def _due(self, step: int) -> float:
        """Updates that `train.replay_ratio` asks for by this step."""
        train, replay = self.config.train, self.config.replay
        begun, updates = self.since
        frames = (step - begun) * train.replay_ratio / distributed.processes()
        return updates + frames / (replay.batch_size * replay.batch_length)

    def _greet(self, shape: tuple[int, ...], actions: int) -> None:
        config, learner, note = self.config, self.learner, self.progress.note
        note(
            f"{config.worldmodel.name}: {parameters(learner.model)} parameters, agent {parameters(learner.agent)}, on "
            f"{learner.device.type} in {config.train.precision}, {torch.get_num_threads()} threads"
        )
        note(self.replay.describe(shape, np.dtype(np.uint8 if len(shape) == 3 else np.float32), actions=actions))


def train(config: Config, folder: Path) -> None:
    """The whole run."""
    warnings.showwarning = lambda message, *_: print(message)  # one line, without the place in the source
    with closing(OnlineTraining(config, folder)) as training:
        training.run()
        distributed.barrier()
