"""The run loop: train, evaluate, log and save on schedule, and resume. What is trained is a subclass.

while step < end:
    advance()            # act and update, or update, or collect and fit: the subclass's
    run_scheduled()      # evaluate, log_video, log_plots and save where they are due
"""

import os
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TextIO

import torch
from torch import Tensor

from agent.logging.log import RunLog
from agent.logging.means import Means
from agent.logging.plots import plot_returns
from agent.runs import checkpoint
from agent.runs.config import Config
from agent.runs.flatten import restore_rng, rng_state
from agent.training import distributed
from agent.training.evaluation import evaluate, summary
from agent.training.schedule import Schedule
from envs.policies import Policy
from replay.env_loop import EpisodeStats
from replay.progress import Progress


class TrainingLoop(ABC):
    """A run in its folder, new or resumed from its last checkpoint.

    A subclass sets up what it trains, then calls `resume`. `step` counts what `unit` says, up to `end`. With several
    processes the first alone evaluates and shows; all save.
    """

    unit = "steps"
    name = ""  # before the progress line

    def __init__(
        self, config: Config, folder: Path, periods: Mapping[str, int], end: int, stream: TextIO | None = None
    ):
        self.first = distributed.rank() == 0
        if not self.first:
            config, stream = replace(config, wandb="disabled", tensorboard=False), open(os.devnull, "w")
        self.config, self.folder, self.end = config, folder, end
        self.step, self.episodes = 0, 0
        self.last_return: float | None = None
        self.schedule = Schedule(periods, end)
        self.log = RunLog(folder, config)
        self.progress = Progress(end, self.unit, name=self.name, stream=stream)
        self.means = Means()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @abstractmethod
    def advance(self) -> None:
        """Trains for a while and moves `step` on."""

    @abstractmethod
    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that a checkpoint needs beside the schedule and torch's random state: tensors by name, and JSON."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Puts back what `snapshot` gave; `step` is set."""

    def policy(self, n: int) -> Policy:
        """The agent in n environments, for evaluation."""
        raise TypeError(f"{type(self).__name__} trains no agent")

    def log_video(self) -> None:
        """Writes what the run looks like; nothing by default."""
        return

    def resume(self, begin: Callable[[], str | None] = lambda: None) -> None:
        """Goes on from the newest checkpoint; a new run calls `begin`, and notes what it returns."""
        found = self.load()
        self.log.truncate_after(found[0] if found else -1)
        if found is not None:
            self.step, tensors, meta = found
            self.restore(tensors, meta)
            restore_rng("rng", tensors)
            self.schedule.restore(meta["last"], self.step)
        elif (said := begin()) is not None:
            self.progress.note(said)
        resumed = f", resumed at {self.unit[:-1]} {self.step}" if found else ""
        self.progress.note(f"run folder {self.folder}{resumed}")

    def load(self) -> checkpoint.Checkpoint | None:
        """The checkpoint to resume from."""
        return checkpoint.load_latest(self.folder / "checkpoints")

    def run(self) -> Self:
        """Trains to the end, then does what is scheduled once more. An interrupt saves first, and says how to go on."""
        if self.step >= self.end and not self.schedule.any_due(self.step):
            self.progress.note(
                f"{self.folder} has its {self.step} {self.unit} already: nothing to do (--{self.unit} for more)"
            )
            return self
        try:
            self.run_scheduled()
            while self.step < self.end:
                self.advance()
                self.run_scheduled()
        except KeyboardInterrupt:
            if distributed.processes() == 1:  # several are at different steps, and resume from one that all have
                self.save()
                self.progress.note(f"interrupted and saved at {self.unit[:-1]} {self.step}: the same command resumes")
            raise
        self.progress.close()
        return self

    def run_scheduled(self) -> None:
        """Evaluates, makes videos and saves where that is due; what an interrupt cuts off stays due."""
        actions = {"evaluate": self.evaluate, "video": self.log_video, "save": self.log_plots}
        for name in self.schedule.periods:
            if self.schedule.due(name, self.step):
                if self.first:
                    actions[name]()
                self.schedule.done(name, self.step)
                if name == "save":
                    self.save()

    def save(self) -> None:
        """Writes a checkpoint from which the same command resumes."""
        tensors, meta = self.snapshot()
        meta |= {"last": self.schedule.last, "env": self.config.env, "unit": self.unit}
        folder, kept = self.folder / "checkpoints", self.config.train.max_checkpoints
        checkpoint.save(folder, self.step, tensors | rng_state("rng"), meta, kept)

    def evaluate(self) -> None:
        """Plays whole episodes on evaluation's own seeds, and logs their return."""
        wanted = self.config.train.eval_episodes
        started = time.perf_counter()
        with self.progress.paused():
            done = evaluate(
                self.policy,
                self.config.env,
                wanted,
                side_by_side=min(self.config.envs, wanted),  # an environment has a process, and a maze half a gigabyte
                report=lambda ended: self.show(f"evaluating {ended}/{wanted}"),
            )
        self.show()
        metrics = summary(done)
        self.log.log(self.step, metrics)
        self.seconds["evaluate"] += time.perf_counter() - started
        share = self.seconds["evaluate"] / max(1e-9, sum(self.seconds.values()))
        self.progress.note(
            f"evaluation at {self.step} {self.unit}: return {metrics['eval/return']:.2f} over {len(done)} episodes, "
            f"{time.perf_counter() - started:.0f} s; evaluations take {share:.0%} of the time"
        )

    def log_plots(self) -> None:
        """Draws the returns so far."""
        path = self.folder / "plots" / "returns.png"
        plot_returns([self.folder], path)
        self.log.image(self.step, "plots/returns", path)

    def ended(self, episode: EpisodeStats) -> None:
        """Logs an episode of training."""
        self.last_return = episode.ret
        self.episodes += 1
        self.log.log(self.step, {"episode/return": episode.ret, "episode/length": episode.length})

    def updated(self, metrics: Mapping[str, Tensor], **counts: float) -> None:
        """Takes the metrics of an update; every so often their means are logged, with `counts`."""
        self.means.add(metrics)
        if self.means.updates >= self.config.train.log_every:
            seconds = {f"time/{name}": value for name, value in self.seconds.items()}
            self.log.log(self.step, self.means.take() | seconds | counts)

    def show(self, *more: str, **counts: float) -> None:
        """Updates the progress line; `counts` as `Progress.update`."""
        shown = [f"episodes {self.episodes}"]
        if self.last_return is not None:
            shown.append(f"return {self.last_return:.1f}")
        self.progress.update(self.step, *shown, *more, **counts)

    @contextmanager
    def timed(self, activity: str) -> Iterator[None]:
        """Adds the time of the block to `time/<activity>`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] += time.perf_counter() - started

    def close(self) -> None:
        """Ends the log, and in subclasses environments."""
        self.log.close()


def parameters(module: torch.nn.Module) -> str:
    """The trained parameters of a network, in millions."""
    return f"{sum(p.numel() for p in module.parameters() if p.requires_grad) / 1e6:.2f}M"
