"""A run's folder: where it lies, what is in it, and whether a command may go on with it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.runs import machine
from agent.runs.config import Config, load_config, save_config, validate
from agent.runs.fields import ConfigError, Field, fields, format_blocks
from agent.runs.lock import run_lock

FOLDERS = ("episodes", "checkpoints", "plots", "videos")

RESUME_MUTABLE = {"run_dir", "steps", "wandb", "tensorboard", "worldmodel.remat_frames"} | {
    f"train.{name}" for name in ("log_every", "eval_every", "save_every", "video_every", "keep", "threads", "device")
}
"""What a resumed run may change: how long, how often and where.

Of these `steps` alone tells on what is learnt: the learning rate falls, and windows grow, by shares of all steps.
"""


def run_folder(env: str, name: str, seed: int | str, run_dir: str = "") -> Path:
    """`run_dir`, or where it is empty runs/<env>-<worldmodel>-s<seed>, in letters any file system takes."""
    return Path(run_dir) if run_dir else Path("runs") / file_name(f"{env}-{name}-s{seed}")


def named_after(model: str, agent: str) -> str:
    """What stands in a folder's name: the world model, or the agent where it has none."""
    return model if agent == "dreamer" else agent


def folder_of(config: Config) -> Path:
    """`run_folder` of a configuration."""
    name = named_after(config.worldmodel.name, config.agent.name)
    return run_folder(config.env, name, config.seed, config.run_dir)


def file_name(text: str) -> str:
    """`text` in letters that any file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def stored_config(folder: Path) -> Config | None:
    """The configuration that a run folder was made with; None where no run is."""
    path = folder / "config.yaml"
    return load_config(path) if path.exists() else None


def open_run(config: Config) -> Path:
    """The run's folder, made or, where the same run is already there, taken up again.

    Contents: config.yaml, metrics.jsonl (by RunLog), episodes/, checkpoints/, plots/, videos/. A ConfigError
    where the folder holds another run, or something that is not a run, where another process trains in it, and where
    the machine lacks what is newly asked of it.
    """
    with training(config) as folder:
        return folder


@contextmanager
def training(config: Config) -> Iterator[Path]:
    """The folder of `open_run`, in which no other process trains as long as this lasts."""
    validate(config)
    folder = folder_of(config)
    stored = stored_config(folder)
    if stored is not None:
        _refuse_another(folder, stored, config)
    elif folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no run (no config.yaml): use another --run-dir")
    if stored is None or machine.asked(stored) != machine.asked(config):
        machine.check(config)
    with _one_line(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with run_lock(folder):
        with _one_line(folder):
            save_config(config, folder / "config.yaml")
            make_folders(folder)
        yield folder


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"run folder {folder} cannot be made: {error.strerror}") from None


def make_folders(folder: Path) -> None:
    """What a run writes into."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)


def _refuse_another(folder: Path, stored: Config, config: Config) -> None:
    then, now = fields(stored), fields(config)
    for name in ["agent.name", *now]:
        # Fields that only one of the two has come with another world model or agent, whose name is refused first.
        if name in RESUME_MUTABLE or name not in then or then[name].value == now[name].value:
            continue
        raise ConfigError(
            f"run folder {folder} was made with {option(name)} {_spelt(then[name])}, "
            f"this command says {option(name)} {_spelt(now[name])}: use another --run-dir"
        )


def option(name: str) -> str:
    """How a field is spelt on the command line: `run_dir` -> `--run-dir`."""
    short = {"worldmodel.name": "worldmodel", "agent.name": "agent"}
    return "--" + short.get(name, name).replace("_", "-")


def _spelt(field: Field) -> str:
    return format_blocks(field.value) if isinstance(field.value, tuple) else str(field.value)
