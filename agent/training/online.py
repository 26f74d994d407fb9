"""The loop: act, learn, evaluate, save."""

import os
import time
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import envs
from agent.actor import Actor, RandomPolicy
from agent.logging.log import RunLog
from agent.logging.means import Means
from agent.logging.plots import plot_returns
from agent.logging.video import openloop_video
from agent.runs import checkpoint, machine
from agent.runs.config import Config
from agent.runs.fields import ConfigError
from agent.runs.flatten import restore_rng, rng_state
from agent.training import distributed
from agent.training.collector import Collector, EpisodeStats
from agent.training.curriculum import Windows
from agent.training.evaluation import SEEDS, evaluate, summary
from agent.training.learner import Learner, spaces
from agent.training.schedule import Schedule, uninterrupted
from replay import Replay
from replay.progress import Progress


class Trainer:
    """A run in its folder, new or taken up again from its last checkpoint."""

    def __init__(self, config: Config, folder: Path):
        self.config, self.folder, self.first = config, folder, distributed.rank() == 0
        machine.configure_threads(config.train.threads)
        torch.manual_seed(config.seed)
        self.environments = envs.make_vector(config.env, config.envs)
        environments = self.environments
        shape, actions, continuous = spaces(environments.single_observation_space, environments.single_action_space)
        self.learner = Learner(config, shape, actions, continuous)
        self.replay = Replay(folder / "episodes", config.replay.capacity)
        own_seed = distributed.own_seed(config.seed)
        self.windows = Windows(self.replay, config.replay, own_seed)
        self.steps = 0
        train = config.train
        periods = {"evaluate": train.eval_every, "video": train.video_every, "save": train.save_every}
        self.schedule = Schedule(periods, config.steps)
        self.since = (train.prefill, 0)
        """Steps and updates from which on `train.replay_ratio` counts: other numbers where processes have come or gone."""
        self.last_return: float | None = None
        self.log = RunLog(folder, config if self.first else replace(config, wandb="disabled", tensorboard=False))
        if not self.first:
            torch.manual_seed(own_seed)
        begun = self._resume()
        self.learner.broadcast()
        # a run that was killed meets other episodes than those it has collected since its last checkpoint
        entropy = [own_seed, self.steps, self.replay.episodes]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0]) % (SEEDS // 2)
        self.collector = Collector(self.environments, self.replay, actions, seed)
        self.actor = Actor(self.learner, config.envs)
        self.explorer = RandomPolicy(actions, seed, continuous=continuous)
        self.progress = Progress(config.steps, stream=None if self.first else open(os.devnull, "w"))
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.means = Means()
        self._say_hello(shape, actions)
        if begun:
            self.progress.note(begun)

    def run(self) -> None:
        """Trains until `config.steps`, then evaluates, films, draws and saves once more."""
        if self.steps >= self.config.steps and not self.schedule.any_due(self.steps):
            self.progress.note(f"{self.folder} has its {self.steps} steps already: nothing to do (--steps for more)")
            return
        self.run_scheduled()
        while self.steps < self.config.steps:
            self.collect_and_learn()
            self.run_scheduled()
        self.progress.close()
        distributed.barrier()

    def run_scheduled(self) -> None:
        """Evaluates, films and saves where that is due; what an interrupt cuts off stays due."""
        for name, act in (("evaluate", self.evaluate), ("video", self.log_video), ("save", self.draw)):
            if self.schedule.due(name, self.steps):
                if self.first:
                    act()
                self.schedule.done(name, self.steps)
                if name == "save":
                    self.save()

    def collect_and_learn(self) -> None:
        """One step of every environment, and meanwhile the updates that are due."""
        config = self.config
        started = time.perf_counter()
        ready = distributed.all_min(len(self.replay)) > 0
        random = self.steps < config.train.prefill or not ready
        self.collector.begin(self.explorer if random else self.actor)
        acted = self._spent("act", started)
        due = self._due(self.steps)
        while ready and self.learner.updates < due:
            progress = self.steps / config.steps
            self.learner.anneal(progress)
            with uninterrupted():  # the memory of walkers is of the rows before those that they stand at
                figures = self.learner.update(self.windows.next(progress))
            self._add(figures)
            self._show()
        learned = self._spent("learn", acted)
        steps, episodes = self.collector.finish()
        self._spent("wait", learned)
        self.steps += distributed.all_sum(steps)
        for episode in episodes:
            self._report(episode)
        self._show()

    def evaluate(self) -> None:
        """Whole episodes on the evaluation's own seeds."""
        started = time.perf_counter()
        # few at once: each environment has a process and, a maze, half a gigabyte of its own
        side_by_side = min(self.config.envs, self.config.train.eval_episodes)
        wanted = self.config.train.eval_episodes
        done = evaluate(
            self.learner,
            self.config.env,
            wanted,
            side_by_side=side_by_side,
            report=lambda ended: self._show(f"evaluation {ended}/{wanted}"),
        )
        figures = summary(done)
        self.log.log(self.steps, figures)
        self._show()
        self.progress.note(
            f"evaluation at {self.steps} steps: return {figures['eval/return']:.2f} over {len(done)} episodes"
        )
        self._spent("evaluate", started)

    def log_video(self) -> None:
        """The open-loop video of the newest episode, for environments that have frames."""
        if len(self.environments.single_observation_space.shape or ()) != 3 or not len(self.replay):
            return
        path = self.folder / "videos" / "openloop.mp4"
        try:
            episode = self.replay.get(self.replay.names()[-1])
            openloop_video(self.learner, episode, path)
        except (ValueError, KeyError) as error:
            self.progress.note(f"no video at {self.steps} steps: {error}")
            return
        self.log.video(self.steps, "videos/openloop", path)

    def draw(self) -> None:
        """The figure of returns so far."""
        path = self.folder / "plots" / "returns.png"
        plot_returns([self.folder], path)
        self.log.picture(self.steps, "plots/returns", path)

    def save(self) -> None:
        """A checkpoint from which the same command goes on."""
        tensors, meta = self.learner.snapshot()
        meta |= {
            "steps": self.steps,
            "processes": distributed.processes(),
            "since": self.since,
            "last": self.schedule.last,
            "walkers": self.windows.state_dict(),
            "env": self.config.env,
            "worldmodel": self.config.worldmodel.name,
        }
        checkpoint.save(
            self.folder / "checkpoints", self.steps, tensors | rng_state("rng"), meta, self.config.train.max_checkpoints
        )

    def close(self) -> None:
        """Ends the environments' processes and the log."""
        self.environments.close()
        self.log.close()

    def _resume(self) -> str | None:
        """Takes up the last checkpoint, or begins; what `Learner.begin` says."""
        found = self._found()
        if found is None:
            self.log.truncate_after(-1)
            return self.learner.begin()
        self.steps, tensors, meta = found
        if "steps" not in meta:
            raise ConfigError(f"{self.folder} was taught from episodes on disk, in updates: give another --run-dir")
        self.learner.restore(tensors, meta)
        self.windows.load_state_dict(meta["walkers"])
        restore_rng("rng", tensors)
        self.schedule.restore(meta.get("last"), self.steps)
        processes = distributed.processes()
        if meta.get("processes", processes) == processes:
            begun, updates = meta.get("since", self.since)
            self.since = (begun, updates)
        else:
            self.since = (max(self.steps, self.config.train.prefill), self.learner.updates)
        self.log.truncate_after(self.steps)
        return None

    def _found(self) -> checkpoint.Checkpoint | None:
        """The newest checkpoint of a step that all processes have one of; None where none of them has any."""
        found = checkpoint.load_latest(self.folder / "checkpoints")
        step = found[0] if found else -1
        begun = step
        while not distributed.all_equal(step):  # some were stopped between two saves
            found = checkpoint.load_latest(self.folder / "checkpoints", distributed.all_min(step))
            step = found[0] if found else -1
        if found is None and not distributed.all_equal(begun):
            raise ConfigError(f"{self.folder}: {distributed.processes()} processes have no checkpoint in common")
        return found

    def _say_hello(self, shape: tuple[int, ...], actions: int) -> None:
        learner, note = self.learner, self.progress.note
        counts = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (learner.model, learner.agent)]
        note(f"run folder {self.folder}" + (f", taken up at step {self.steps}" if self.steps else ""))
        note(
            f"{self.config.worldmodel.name}: {counts[0] / 1e6:.2f}M parameters, agent {counts[1] / 1e6:.2f}M, on "
            f"{learner.device.type} in {self.config.train.precision}, {torch.get_num_threads()} threads"
        )
        kind = np.dtype(np.uint8 if len(shape) == 3 else np.float32)
        note(self.replay.describe(shape, kind, actions=actions))

    def _report(self, episode: EpisodeStats) -> None:
        self.last_return = episode.ret
        self.log.log(self.steps, {"episode/return": episode.ret, "episode/length": episode.length})

    def _add(self, figures: Mapping[str, torch.Tensor]) -> None:
        """Takes figures of updates; every so often their means go to the log."""
        self.means.add(figures)
        if self.means.updates >= self.config.train.log_every:
            means = self.means.take() | {f"time/{name}": seconds for name, seconds in self.seconds.items()}
            self.log.log(
                self.steps,
                means | {"updates": self.learner.updates, "nonfinite_updates": self.learner.nonfinite_updates},
            )

    def _show(self, *more: str) -> None:
        shown = [f"episodes {self.replay.episodes}"]
        if self.last_return is not None:
            shown.append(f"return {self.last_return:.1f}")
        shown.append(f"updates {self.learner.updates}")
        frames = self.config.replay.batch_size * self.config.replay.batch_length
        last = self._due(self.config.steps) * frames
        self.progress.update(self.steps, *shown, *more, last=last, frames=self.learner.updates * frames)

    def _due(self, steps: int) -> float:
        """Updates that `train.replay_ratio` asks for by so many steps."""
        train, replay = self.config.train, self.config.replay
        begun, updates = self.since
        return (
            updates
            + (steps - begun) * train.replay_ratio / (replay.batch_size * replay.batch_length) / distributed.processes()
        )

    def _spent(self, name: str, since: float) -> float:
        now = time.perf_counter()
        self.seconds[name] += now - since
        return now


def train(config: Config, folder: Path) -> None:
    """The whole run; an interrupt saves first and says how to go on."""
    warnings.showwarning = lambda message, *_: print(message)  # one line, without the place in the source
    trainer = Trainer(config, folder)
    try:
        trainer.run()
    except KeyboardInterrupt:
        if distributed.processes() > 1:  # they are at different steps, and go on from one that all have
            trainer.progress.note("interrupted: the same command goes on from the last checkpoint")
        else:
            trainer.save()
            trainer.progress.note(f"interrupted at step {trainer.steps} and saved: the same command goes on from here")
        raise
    finally:
        trainer.close()
