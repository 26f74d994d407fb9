"""Model-free baselines: PPO trains in the real environments, in a run folder like any other's."""

import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor

import envs
from agent.baselines.ppo import PPOConfig
from agent.baselines.same_step import SameStepEnvs
from agent.baselines.sb3_env import Sb3Envs
from agent.baselines.sb3_policy import Player, algorithm, restore
from agent.runs import machine
from agent.runs.config import Config
from agent.runs.fields import ConfigError, refusals
from agent.runs.flatten import flatten, optimizer_tensors, restore_optimizer
from agent.training.evaluation import SEEDS
from agent.training.learner import choose_device, spaces
from agent.training.loop import TrainingLoop, parameters
from envs.policies import Policy
from replay.env_loop import EpisodeStats

METRICS = {
    "train/loss": ("agent/loss", 1),
    "train/policy_gradient_loss": ("agent/loss/policy", 1),
    "train/value_loss": ("agent/loss/value", 1),
    "train/entropy_loss": ("agent/entropy", -1),
    "train/approx_kl": ("agent/kl", 1),
    "train/clip_fraction": ("agent/clip_fraction", 1),
    "train/explained_variance": ("agent/explained_variance", 1),
    "train/std": ("agent/std", 1),
}
"""What Stable-Baselines3 measures: its name in the log, and a factor."""


NEVER = 1 << 62
"""Rollouts between two reports of Stable-Baselines3's own."""


class BaselineTraining(TrainingLoop):
    """PPO or RecurrentPPO, a rollout and its updates at a time.

    A resumed run continues with other random numbers than it would have had: environments begin anew in any case.
    """

    def __init__(self, config: Config, folder: Path):
        assert isinstance(config.agent, PPOConfig)
        periods = {"evaluate": config.train.eval_every, "save": config.train.save_every}
        super().__init__(config, folder, periods, config.steps)
        self.agent = config.agent
        machine.configure_threads(config.train.threads)
        found = self.load()
        entropy = [config.seed, found[0] if found else 0]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0]) % (SEEDS // 2)
        self.environments = VecMonitor(Sb3Envs(SameStepEnvs(config.env, config.envs)))
        self.algorithm = algorithm(self.agent, self.environments, seed, _device(config, self.environments))
        self.algorithm.set_logger(Logger(folder=None, output_formats=[]))
        self.resume()
        self.progress.note(
            f"{self.agent.name}: {parameters(self.algorithm.policy)} parameters, on {self.algorithm.device.type}, "
            f"{torch.get_num_threads()} threads"
        )

    def advance(self) -> None:
        """One rollout and the updates on it, by Stable-Baselines3."""
        started, acted = time.perf_counter(), self.seconds["act"]
        steps = min(self.agent.n_steps * self.config.envs, self.end - self.step)
        self.algorithm.learn(steps, callback=_Reports(self), log_interval=NEVER, reset_num_timesteps=False)
        self.seconds["learn"] += time.perf_counter() - started - (self.seconds["act"] - acted)
        self.step = self.algorithm.num_timesteps
        measured = self.algorithm.logger.name_to_value
        metrics = {to: sign * measured[name] for name, (to, sign) in METRICS.items() if name in measured}
        self.log.log(self.step, metrics | {f"time/{name}": seconds for name, seconds in self.seconds.items()})

    def policy(self, n: int) -> Policy:
        """See `TrainingLoop`."""
        return Player(self.algorithm.policy, self.agent)

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `TrainingLoop`."""
        policy = self.algorithm.policy
        tensors, groups = optimizer_tensors("optimizer", policy.optimizer)
        meta = {"updates": self.algorithm._n_updates, "optimizer": groups, "agent": self.agent.name}
        return tensors | flatten("policy", policy.state_dict()), meta

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """See `TrainingLoop`."""
        policy = self.algorithm.policy
        restore(policy, tensors)
        restore_optimizer("optimizer", policy.optimizer, tensors, meta["optimizer"])
        self.algorithm.num_timesteps, self.algorithm._n_updates = self.step, meta["updates"]

    def close(self) -> None:
        """Ends the environments' processes and the log."""
        self.environments.close()
        super().close()


class _Reports(BaseCallback):
    """Reports the episodes that end within a rollout, and the time that acting takes."""

    def __init__(self, training: BaselineTraining):
        super().__init__()
        self.training = training

    def _on_rollout_start(self) -> None:
        self._started = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.training.seconds["act"] += time.perf_counter() - self._started

    def _on_step(self) -> bool:
        self.training.step = self.num_timesteps
        for info in self.locals["infos"]:
            if "episode" in info:
                self.training.ended(EpisodeStats(float(info["episode"]["r"]), int(info["episode"]["l"])))
        self.training.show()
        return True


def check(config: Config) -> None:
    """Refuses, with a ConfigError of one line, a baseline that cannot be trained here."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"--agent {config.agent.name} trains in one process: leave out torchrun")
    with refusals():
        environment = envs.make(config.env)
        spaces(environment.observation_space, environment.action_space)
        environment.close()


def train(config: Config, folder: Path) -> None:
    """The whole run."""
    with closing(BaselineTraining(config, folder)) as training:
        training.run()


def _device(config: Config, environments: VecMonitor) -> torch.device:
    """As chosen; `auto` keeps policies of vectors on the CPU, where they are quicker."""
    vectors = len(environments.observation_space.shape or ()) != 3
    return torch.device("cpu") if vectors and config.train.device == "auto" else choose_device(config.train.device)
