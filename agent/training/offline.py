"""Teaches a world model from episodes on disk, game replays and logs: no agent acts, none is taught.

The run folder is the one that `train_agent.py` leaves, so that everything which looks at a run looks at this too;
`step` in its metrics and checkpoints counts updates.
"""

from pathlib import Path
from typing import TextIO

import torch

from agent.logging.log import RunLog
from agent.logging.means import Means
from agent.runs import checkpoint, machine
from agent.runs.config import Config
from agent.runs.fields import ConfigError
from agent.runs.flatten import restore_rng, rng_state
from agent.training.curriculum import Windows
from agent.training.learner import Learner
from agent.training.schedule import Schedule, uninterrupted
from replay import Replay, SequenceSampler
from replay.progress import Progress
from worldmodel import total

EVERYTHING = 1 << 62
"""Capacity of a replay that deletes nothing: the episodes are not ours."""


def train_offline(
    config: Config,
    folder: Path,
    data: Path,
    updates: int,
    held_out: Path | None = None,
    held_out_frames: int = 256,
    stream: TextIO | None = None,
) -> Learner:
    """The world model of `config` after `updates` on the episodes in `data`; taken up from its last checkpoint.

    Every tenth of the way, the losses on windows of `held_out_frames` of the episodes in `held_out` are logged as
    `val/...`: longer than training's windows, since memory is asked to reach further than it was taught. An
    interrupt saves first and says how to go on. The progress goes to `stream`, by default standard error.

    Raises ConfigError where `data` holds no episodes, where the folder is an agent's run, and as `Learner.begin`,
    Diverged as `Learner.update`.
    """
    replay = Replay(data, EVERYTHING)
    if not len(replay):
        raise ConfigError(f"{data} holds no episodes")
    machine.configure_threads(config.train.threads)
    torch.manual_seed(config.seed)
    example = replay.get(replay.names()[0])
    learner = Learner(config, example.observation.shape[1:], example.action.shape[1])
    windows = Windows(replay, config.replay, config.seed)
    schedule = Schedule({"check": max(1, updates // 10)}, updates)
    begun = _resume(learner, windows, schedule, folder)
    if learner.updates >= updates and not schedule.any_due(learner.updates):
        return learner
    means = Means()
    with RunLog(folder, config) as log, Progress(updates, "updates", name=folder.name, stream=stream) as progress:
        if begun:
            progress.note(begun)
        log.truncate_after(learner.updates)

        def check() -> None:
            if schedule.due("check", learner.updates):
                if held_out is not None:
                    log.log(learner.updates, validate(learner, Replay(held_out, EVERYTHING), held_out_frames))
                schedule.done("check", learner.updates)
                _save(learner, windows, schedule, folder, config)

        try:
            check()
            while learner.updates < updates:
                done_share = learner.updates / updates
                learner.anneal(done_share)
                with uninterrupted():  # the memory of walkers is of the rows before those that they stand at
                    figures = learner.update(windows.next(done_share), agent=False)
                means.add(figures)
                done = learner.updates
                progress.update(done, frames=done * config.replay.batch_size * config.replay.batch_length)
                if means.updates == config.train.log_every or done == updates:
                    log.log(done, means.take())
                check()
        except KeyboardInterrupt:
            _save(learner, windows, schedule, folder, config)
            progress.note(f"interrupted at update {learner.updates} and saved: the same command goes on from here")
            raise
    return learner


@torch.no_grad()
def validate(learner: Learner, replay: Replay, frames: int, rows: int = 2048) -> dict[str, float]:
    """The losses, as `val/loss/...`, on windows of so many frames, about `rows` rows; the same at every call."""
    batch = max(1, rows // frames)
    learner.model.eval()
    with torch.random.fork_rng(), learner.autocast():
        torch.manual_seed(0)
        window = learner.rows(SequenceSampler(replay, batch, seed=0).next(frames))
        losses, _, figures = learner.model.loss(window, learner.model.initial(batch))
    learner.model.train()
    named = {f"val/loss/{name}": float(value) for name, value in losses.items()}
    whole = float(total(losses, learner.model.loss_scales()))
    return named | {"val/loss": whole, "val/kl": float(figures["kl"])}


def _save(learner: Learner, windows: Windows, schedule: Schedule, folder: Path, config: Config) -> None:
    tensors, meta = learner.snapshot()
    meta |= {"last": schedule.last, "walkers": windows.state_dict()}
    meta |= {"env": config.env, "worldmodel": config.worldmodel.name}
    checkpoint.save(
        folder / "checkpoints", learner.updates, tensors | rng_state("rng"), meta, config.train.max_checkpoints
    )


def _resume(learner: Learner, windows: Windows, schedule: Schedule, folder: Path) -> str | None:
    """Takes up the last checkpoint, or begins; what `Learner.begin` says."""
    found = checkpoint.load_latest(folder / "checkpoints")
    if found is None:
        return learner.begin()
    updates, tensors, meta = found
    if "steps" in meta:
        raise ConfigError(f"{folder} is a run that an agent acts in, in steps: give another folder")
    learner.restore(tensors, meta)
    windows.load_state_dict(meta["walkers"])
    restore_rng("rng", tensors)
    schedule.restore(meta.get("last"), updates)
    return None
