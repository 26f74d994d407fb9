"""Offline training: a world model from episodes on disk, such as game replays and logs. No agent acts, none is trained.

The run folder is the one that `train_agent.py` leaves, so that all that reads a run reads this too; `step` in its
metrics and checkpoints counts updates.
"""

from contextlib import closing
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from agent.runs import machine
from agent.runs.config import Config
from agent.runs.fields import ConfigError
from agent.training.curriculum import LengthCurriculum
from agent.training.learner import Learner
from agent.training.loop import TrainingLoop
from replay import Replay, SequenceSampler
from worldmodel import total

EVERYTHING = 1 << 62
"""Capacity of a replay that deletes nothing: the episodes are not ours."""


class OfflineTraining(TrainingLoop):
    """`updates` of a world model on the episodes in `data`, validated ten times on those in `val`."""

    unit = "updates"

    def __init__(
        self, config: Config, folder: Path, data: Path, updates: int, val: Path | None, val_frames: int, stream: Any
    ):
        self.name = folder.name
        self.replay = replay = Replay(data, EVERYTHING)
        if not len(replay):
            raise ConfigError(f"{data} holds no episodes")
        period = max(1, updates // 10)
        super().__init__(config, folder, {"evaluate": period, "save": period}, updates, stream)
        self.val, self.val_frames = val, val_frames
        machine.configure_threads(config.train.threads)
        torch.manual_seed(config.seed)
        example = replay.get(replay.names()[0])
        self.learner = Learner(config, example.observation.shape[1:], example.action.shape[1])
        self.sampler = LengthCurriculum(replay, config.replay, config.seed, self.learner.model.initial)
        self.resume(self.learner.init_weights)

    def advance(self) -> None:
        """One update."""
        done, learner = self.step / self.end, self.learner
        if not learner.updates:
            with self.progress.paused():
                learner.pretrain(self.replay, self.progress.note)
        learner.anneal(done)
        metrics, state = learner.update(*self.sampler.next(done), agent=False)
        self.sampler.carry(state)
        self.step = learner.updates
        self.updated(metrics)
        frames = self.step * self.config.replay.batch_size * self.config.replay.batch_length
        self.progress.update(self.step, frames=frames)

    def evaluate(self) -> None:
        """Logs the losses on validation windows."""
        if self.val is not None:
            metrics = validate(self.learner, Replay(self.val, EVERYTHING), self.val_frames)
            self.log.log(self.step, metrics)

    def log_plots(self) -> None:
        """No returns to draw."""

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `TrainingLoop`."""
        tensors, meta = self.learner.snapshot()
        carried, meta["sampler"] = self.sampler.snapshot()
        return tensors | carried, meta | {"worldmodel": self.config.worldmodel.name}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """See `TrainingLoop`."""
        if meta["unit"] != self.unit:
            raise ConfigError(f"{self.folder} is a run of an agent, in steps: give another folder")
        self.learner.restore(tensors, meta)
        self.sampler.restore(tensors, meta["sampler"])


def train_offline(
    config: Config,
    folder: Path,
    data: Path,
    updates: int,
    val: Path | None = None,
    val_frames: int = 256,
    stream: TextIO | None = None,
) -> Learner:
    """The world model of `config` after `updates` on the episodes in `data`; resumed from its last checkpoint.

    Every tenth of the way, the losses on windows of `val_frames` of the episodes in `val` are logged as `val/...`:
    longer than training's windows, to see how far memory generalises. Progress goes to `stream`, by default standard
    error.

    Raises ConfigError where `data` holds no episodes, where the folder is an agent's run, and as
    `Learner.init_weights`; Diverged as `Learner.update`.
    """
    with closing(OfflineTraining(config, folder, data, updates, val, val_frames, stream)) as training:
        if training.step < updates or training.schedule.any_due(training.step):
            training.run()
    return training.learner


@torch.no_grad()
def validate(learner: Learner, replay: Replay, frames: int, rows: int = 2048) -> dict[str, float]:
    """The losses, as `val/loss/...`, on windows of so many frames, about `rows` rows; the same at every call."""
    sequences = max(1, rows // frames)
    learner.model.eval()
    with torch.random.fork_rng(), learner.autocast():
        torch.manual_seed(0)
        arrays, state = SequenceSampler(replay, sequences, 0, learner.model.initial).next(frames)
        losses, _, metrics = learner.model.loss(learner.batch(arrays), state)
    learner.model.train()
    named = {f"val/loss/{name}": float(value) for name, value in losses.items()}
    whole = float(total(losses, learner.model.loss_scales()))
    return named | {"val/loss": whole, "val/kl": float(metrics["kl"])}
