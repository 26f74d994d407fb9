"""A run's log to Weights & Biases; `wandb sync` sends that of an offline run."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.logging.sinks import Sink
from agent.runs.config import Config
from agent.runs.fields import ConfigError, to_dict
from replay.atomic import write_text_atomically


class WeightsAndBiases(Sink):
    """One W&B run for a folder, however often it resumes: `wandb-id` holds its id, `wandb-step` its last step.

    W&B only appends. A run that resumes from its checkpoint logs from the step on at which it stopped, lest
    anything stand there twice.
    """

    def __init__(self, folder: Path, config: Config):
        """Raises ConfigError where the package is missing or W&B refuses."""
        wandb = package(config.wandb)
        self._wandb = wandb
        self._step_file = folder / "wandb-step"
        self._logged = _read_step(self._step_file)
        try:
            self._run: Any = wandb.init(
                project="lssvwm",
                name=folder.name,
                id=_id(folder),
                # offline it is unknown whether the run exists; the same id joins the parts at `wandb sync`
                resume="allow" if config.wandb == "online" else None,
                mode=config.wandb,
                dir=folder,
                config=to_dict(config),
                settings=wandb.Settings(console="off"),
            )
        except wandb.errors.Error as error:
            raise ConfigError(f"--wandb {config.wandb}: {' '.join(str(error).split())}") from None
        # W&B's own counter only grows; a resumed run goes back in environment steps
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Sink`."""
        self._append(step, dict(metrics))

    def image(self, step: int, name: str, path: Path) -> None:
        """See `Sink`."""
        self._append(step, {name: self._wandb.Image(str(path))})

    def video(self, step: int, name: str, path: Path) -> None:
        """See `Sink`."""
        self._append(step, {name: self._wandb.Video(str(path), format="mp4")})

    def truncate_after(self, step: int) -> None:
        """Nothing to do: steps that were logged before are left out."""

    def close(self) -> None:
        """See `Sink`."""
        self._run.finish()

    def _append(self, step: int, values: dict[str, Any]) -> None:
        if step <= self._logged:
            return
        self._run.log({"step": step, **values})
        # not flushed to the disk: after a power cut some rows may be logged twice
        self._step_file.write_text(f"{step}\n", encoding="utf-8")


def package(mode: str) -> Any:
    """The module `wandb`, which `--wandb mode` needs. Raises ConfigError where it is missing."""
    try:
        import wandb
    except ImportError:
        raise ConfigError(f"--wandb {mode} needs a package: pip install 'lssvwm[wandb]'") from None
    return wandb


def _id(folder: Path) -> str:
    """The folder's W&B id, made the first time."""
    stored = folder / "wandb-id"
    if not stored.exists():
        write_text_atomically(stored, uuid.uuid4().hex[:12] + "\n")
    return stored.read_text(encoding="utf-8").strip()


def _read_step(path: Path) -> int:
    """The last step logged; -1 where none was."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return -1
