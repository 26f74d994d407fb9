"""A run's folder: where it lies, what is in it, and whether a command may go on with it."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.runs import machine
from agent.runs.checkpoint import DiskFull
from agent.runs.config import Config, load_config, save_config
from agent.runs.fields import ConfigError, Field, fields, format_blocks, option
from agent.runs.lock import run_lock
from agent.training import distributed

FOLDERS = ("episodes", "checkpoints", "plots", "videos")

RESUME_MUTABLE = {"run_dir", "steps", "wandb", "tensorboard", "worldmodel.remat_frames"} | {
    f"train.{name}"
    for name in ("log_every", "eval_every", "save_every", "video_every", "max_checkpoints", "threads", "device")
}
"""Fields that a resumed run may change: how long, how often and where.

Of these only `steps` affects training: learning rate and curriculum follow the fraction of all steps done.
"""


def run_folder(env: str, name: str, seed: int | str, run_dir: str = "") -> Path:
    """`run_dir`, or where it is empty runs/<env>-<name>-s<seed>, in letters that any file system takes."""
    return Path(run_dir) if run_dir else Path("runs") / file_name(f"{env}-{name}-s{seed}")


def run_label(model: str, agent: str) -> str:
    """The name in a run's folder: the world model's, or that of an agent without one."""
    return model if agent == "dreamer" else agent


def folder_of(config: Config) -> Path:
    """`run_folder` of a configuration."""
    name = run_label(config.worldmodel.name, config.agent.name)
    return run_folder(config.env, name, config.seed, config.run_dir)


def file_name(text: str) -> str:
    """`text` in letters that any file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def stored_config(folder: Path) -> Config | None:
    """The configuration of the run in a folder; None where there is no run."""
    path = folder / "config.yaml"
    return load_config(path) if path.exists() else None


def open_run(config: Config) -> Path:
    """The run's folder, new or, where it holds the same run, as it is.

    Contents: config.yaml, metrics.jsonl (by RunLog), episodes/, checkpoints/, plots/, videos/. Raises ConfigError
    where the folder holds another run or anything else, where another process trains in it, and where this machine
    lacks a device or package that the stored run did not ask for.
    """
    with training(config) as folder:
        return folder


@contextmanager
def training(config: Config) -> Iterator[Path]:
    """The folder of `open_run`, locked: no other process trains in it meanwhile. Raises DiskFull."""
    folder = folder_of(config)
    stored = stored_config(folder)
    if stored is not None:
        _refuse_another(folder, stored, config)
    elif folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no run (no config.yaml): use another --run-dir")
    if stored is None or machine.requirements(stored) != machine.requirements(config):
        machine.check(config)
    with _one_line(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with run_lock(folder):
        with _one_line(folder):
            save_config(config, folder / "config.yaml")
            _make_folders(folder)
        with _full_disk(folder):
            yield folder


@contextmanager
def process_folder(config: Config) -> Iterator[Path]:
    """The folder of this process, one of torchrun's: the first opens the run as `training`, the others wait for it."""
    with training(config) if distributed.rank() == 0 else _full_disk(folder_of(config)):
        distributed.barrier()
        own = distributed.own_folder(folder_of(config))
        _make_folders(own)
        yield own


def refuse_prefill_alone(config: Config) -> None:
    """Raises ConfigError for a run that would end before it trains; one that has a checkpoint may end where it is."""
    steps, prefill = config.steps, config.train.prefill
    if steps <= prefill and not any((folder_of(config) / "checkpoints").glob("step-*")):
        raise ConfigError(f"steps ({steps}) must be more than train.prefill ({prefill}), after which training begins")


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"run folder {folder} cannot be made: {error.strerror}") from None


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(f"stopped: disk full in {folder}; the last checkpoint is whole") from None


def _make_folders(folder: Path) -> None:
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)


def _refuse_another(folder: Path, stored: Config, config: Config) -> None:
    then, now = fields(stored), fields(config)
    for name in ["agent.name", *now]:
        # Fields that one of the two lacks belong to another world model or agent, whose name is refused first.
        if name in RESUME_MUTABLE or name not in then or then[name].value == now[name].value:
            continue
        raise ConfigError(
            f"run folder {folder} was made with {option(name)} {_spelt(then[name])}, "
            f"this command says {option(name)} {_spelt(now[name])}: use another --run-dir"
        )


def _spelt(field: Field) -> str:
    return format_blocks(field.value) if isinstance(field.value, tuple) else str(field.value)
