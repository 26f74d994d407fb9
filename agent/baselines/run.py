"""Model-free baselines: PPO learns in the real environments, in a run folder like any other's."""

import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecMonitor

import envs
from agent.baselines.ppo import PPOConfig
from agent.baselines.same_step import SameStepEnvs
from agent.baselines.sb3_env import Sb3Envs
from agent.baselines.sb3_policy import Player, algorithm, restore
from agent.logging.log import RunLog
from agent.logging.plots import plot_returns
from agent.runs import checkpoint, machine
from agent.runs.config import Config
from agent.runs.fields import ConfigError, refusals
from agent.runs.flatten import flatten, optimizer_tensors, restore_optimizer
from agent.training.evaluation import SEEDS, evaluate_policy, summary
from agent.training.learner import choose_device, spaces
from agent.training.schedule import Schedule
from replay.progress import Progress

FIGURES = {
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
"""Rollouts between two reports of its own: it is `updated` that reports."""


class Baseline:
    """A run in its folder, new or taken up again from its last checkpoint.

    Taken up, it goes on with other random numbers than it would have had: environments begin anew in any case.
    """

    def __init__(self, config: Config, folder: Path):
        assert isinstance(config.agent, PPOConfig)
        self.config, self.folder, self.agent = config, folder, config.agent
        machine.configure_threads(config.train.threads)
        found = checkpoint.load_latest(folder / "checkpoints")
        begun = found[0] if found else 0
        seed = int(np.random.SeedSequence([config.seed, begun]).generate_state(1)[0]) % (SEEDS // 2)
        self.environments = VecMonitor(Sb3Envs(SameStepEnvs(config.env, config.envs)))
        self.algorithm = algorithm(self.agent, self.environments, seed, _device(config, self.environments))
        self.algorithm.set_logger(Logger(folder=None, output_formats=[]))
        self.log = RunLog(folder, config)
        periods = {"evaluate": config.train.eval_every, "save": config.train.save_every}
        self.schedule = Schedule(periods, config.steps)
        if found is not None:
            self._restore(*found)
        self.log.truncate_after(begun if found else -1)
        self.progress = Progress(config.steps)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.last_return: float | None = None
        self.episodes = 0
        self._say_hello()

    @property
    def steps(self) -> int:
        """Environment steps made."""
        return self.algorithm.num_timesteps

    def run(self) -> None:
        """Trains until `config.steps`, then evaluates, saves and draws once more."""
        left = self.config.steps - self.steps
        if left <= 0 and not self.schedule.any_due(self.steps):
            self.progress.note(f"{self.folder} has its {self.steps} steps already: nothing to do (--steps for more)")
            return
        if left > 0:
            self.algorithm.learn(left, callback=_Between(self), log_interval=NEVER, reset_num_timesteps=False)
        self.run_scheduled()
        self.progress.close()

    def run_scheduled(self) -> None:
        """Evaluates, draws and saves where that is due; what an interrupt cuts off stays due."""
        for name, act in (("evaluate", self.evaluate), ("save", self.draw)):
            if self.schedule.due(name, self.steps):
                act()
                self.schedule.done(name, self.steps)
                if name == "save":
                    self.save()

    def heard(self, infos: list[dict[str, Any]]) -> None:
        """Reports the episodes that ended in the last step."""
        for ended in [info["episode"] for info in infos if "episode" in info]:
            self.last_return = float(ended["r"])
            self.episodes += 1
            self.log.log(self.steps, {"episode/return": self.last_return, "episode/length": int(ended["l"])})
        self.show()

    def updated(self) -> None:
        """Reports what the last update measured."""
        measured = self.algorithm.logger.name_to_value
        figures = {to: sign * measured[name] for name, (to, sign) in FIGURES.items() if name in measured}
        if figures:
            self.log.log(self.steps, figures | {f"time/{name}": seconds for name, seconds in self.seconds.items()})

    def evaluate(self) -> None:
        """Whole episodes on the evaluation's own seeds."""
        started = time.perf_counter()
        wanted = self.config.train.eval_episodes
        done = evaluate_policy(
            lambda n: Player(self.algorithm.policy, self.agent),
            self.config.env,
            wanted,
            side_by_side=min(self.config.envs, wanted),
            report=lambda ended: self.show(f"evaluation {ended}/{wanted}"),
        )
        figures = summary(done)
        self.log.log(self.steps, figures)
        self.progress.note(
            f"evaluation at {self.steps} steps: return {figures['eval/return']:.2f} over {len(done)} episodes"
        )
        self.seconds["evaluate"] += time.perf_counter() - started

    def save(self) -> None:
        """A checkpoint from which the same command goes on."""
        policy = self.algorithm.policy
        tensors, groups = optimizer_tensors("optimizer", policy.optimizer)
        tensors |= flatten("policy", policy.state_dict())
        meta = {
            "updates": self.algorithm._n_updates,
            "last": self.schedule.last,
            "optimizer": groups,
            "env": self.config.env,
            "agent": self.agent.name,
        }
        checkpoint.save(self.folder / "checkpoints", self.steps, tensors, meta, self.config.train.max_checkpoints)

    def draw(self) -> None:
        """The figure of returns so far."""
        path = self.folder / "plots" / "returns.png"
        plot_returns([self.folder], path)
        self.log.picture(self.steps, "plots/returns", path)

    def show(self, *more: str) -> None:
        """The line that says how far it is."""
        shown = [f"episodes {self.episodes}"]
        if self.last_return is not None:
            shown.append(f"return {self.last_return:.1f}")
        self.progress.update(self.steps, *shown, *more)

    def close(self) -> None:
        """Ends the environments' processes and the log."""
        self.environments.close()
        self.log.close()

    def _restore(self, step: int, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        policy = self.algorithm.policy
        restore(policy, tensors)
        restore_optimizer("optimizer", policy.optimizer, tensors, meta["optimizer"])
        self.algorithm.num_timesteps, self.algorithm._n_updates = step, meta["updates"]
        self.schedule.restore(meta.get("last"), step)

    def _say_hello(self) -> None:
        parameters = sum(p.numel() for p in self.algorithm.policy.parameters())
        self.progress.note(f"run folder {self.folder}" + (f", taken up at step {self.steps}" if self.steps else ""))
        self.progress.note(
            f"{self.agent.name}: {parameters / 1e6:.2f}M parameters, on {self.algorithm.device.type}, "
            f"{torch.get_num_threads()} threads"
        )


class _Between(BaseCallback):
    """What happens between rollouts and at each step. Stable-Baselines3 learns after a rollout, before the next."""

    def __init__(self, run: Baseline):
        super().__init__()
        self.run = run
        self._spent_on: str | None = None

    def _on_training_start(self) -> None:
        self._since = time.perf_counter()

    def _on_rollout_start(self) -> None:
        self._spend("act")
        self.run.updated()
        self.run.run_scheduled()
        self._since = time.perf_counter()  # evaluations count themselves

    def _on_step(self) -> bool:
        self.run.heard(self.locals["infos"])
        return True

    def _on_rollout_end(self) -> None:
        self._spend("learn")

    def _on_training_end(self) -> None:
        self._spend(None)
        self.run.updated()

    def _spend(self, then: str | None) -> None:
        """Books the time up to now; what comes is to be booked as `then`."""
        now = time.perf_counter()
        if self._spent_on:
            self.run.seconds[self._spent_on] += now - self._since
        self._since, self._spent_on = now, then


def check(config: Config) -> None:
    """Refuses, with a ConfigError of one line, a baseline that cannot be trained here."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"--agent {config.agent.name} trains in one process: leave out torchrun")
    with refusals():
        environment = envs.make(config.env)
        spaces(environment.observation_space, environment.action_space)
        environment.close()


def train(config: Config, folder: Path) -> None:
    """The whole run; an interrupt saves first and says how to go on."""
    run = Baseline(config, folder)
    try:
        run.run()
    except KeyboardInterrupt:
        run.save()
        run.progress.note(f"interrupted at step {run.steps} and saved: the same command goes on from here")
        raise
    finally:
        run.close()


def _device(config: Config, environments: VecMonitor) -> torch.device:
    """As chosen; `auto` keeps policies of vectors on the CPU, where they are quicker."""
    vectors = len(environments.observation_space.shape or ()) != 3
    return torch.device("cpu") if vectors and config.train.device == "auto" else choose_device(config.train.device)
