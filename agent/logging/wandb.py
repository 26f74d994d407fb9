"""A run's log to Weights & Biases, offline unless asked: `wandb sync` sends what an offline run left."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.logging.sinks import Sink
from agent.runs.config import Config
from agent.runs.fields import ConfigError, to_dict
from replay.atomic import write_text_atomically


class WeightsAndBiases(Sink):
    """One W&B run for a folder, however often it is taken up: `wandb-id` holds its id, `wandb-step` how far it is.

    W&B only appends. So that nothing stands there twice, a run that went back to its checkpoint reports again only
    from the step at which it had stopped.
    """

    def __init__(self, folder: Path, config: Config):
        """Raises ConfigError where the package is missing or W&B refuses."""
        wandb = package(config.wandb)
        self._wandb = wandb
        self._reached = folder / "wandb-step"
        self._told = _read_step(self._reached)
        try:
            self._run: Any = wandb.init(
                project="lssvwm",
                name=folder.name,
                id=_id(folder),
                # Offline nobody can say whether the run exists; the same id joins the parts at `wandb sync`.
                resume="allow" if config.wandb == "online" else None,
                mode=config.wandb,
                dir=folder,
                config=to_dict(config),
                settings=wandb.Settings(console="off"),
            )
        except wandb.errors.Error as error:
            raise ConfigError(f"--wandb {config.wandb}: {' '.join(str(error).split())}") from None
        # W&B's own counter only grows; a run taken up from a checkpoint goes back in environment steps.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Sink`."""
        self._tell(step, dict(figures))

    def picture(self, step: int, name: str, path: Path) -> None:
        """See `Sink`."""
        self._tell(step, {name: self._wandb.Image(str(path))})

    def video(self, step: int, name: str, path: Path) -> None:
        """See `Sink`."""
        self._tell(step, {name: self._wandb.Video(str(path), format="mp4")})

    def truncate_after(self, step: int) -> None:
        """Nothing to do: `log` passes over what was reported before."""

    def close(self) -> None:
        """See `Sink`."""
        self._run.finish()

    def _tell(self, step: int, values: dict[str, Any]) -> None:
        if step <= self._told:
            return
        self._run.log({"step": step, **values})
        # Not flushed to the disk: torn by a power cut, it costs no more than some rows told twice.
        self._reached.write_text(f"{step}\n", encoding="utf-8")


def package(mode: str) -> Any:
    """The module `wandb`, which `--wandb mode` needs; a ConfigError where it is missing."""
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
    """The last step told; -1 where none was."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return -1
