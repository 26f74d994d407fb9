"""What a run measures: one JSON line for each report in metrics.jsonl, and the same to Weights & Biases."""

import json
import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.config import Config
from agent.fields import ConfigError, plain
from agent.files import write_text_atomically

Row = dict[str, Any]
"""`step`, and figures by name: a number, or None where it was not finite."""


def read_metrics(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl, in order; [] where there is none. Lines torn by a kill are passed over."""
    if not path.exists():
        return []
    rows: list[Row] = []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
    return rows


class RunLog:
    """The log of one run, appended to where the run is taken up again."""

    def __init__(self, folder: Path, wandb_mode: str, config: Config):
        """`wandb_mode`: disabled, offline or online. ConfigError where W&B is wanted and cannot be used."""
        self._path = folder / "metrics.jsonl"
        self._wandb = None if wandb_mode == "disabled" else _start_wandb(folder, wandb_mode, config)
        self._open()

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Report figures, numbers or tensors of one element, at an environment step."""
        numbers = {name: float(value) for name, value in figures.items()}
        row = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        if self._wandb is not None:
            self._wandb.log({"step": step, **numbers})

    def truncate_after(self, step: int) -> None:
        """Drop what was reported after a step: a run taken up from its checkpoint reports that again."""
        rows = [row for row in read_metrics(self._path) if row["step"] <= step]
        self._file.close()
        write_text_atomically(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self._open()

    def close(self) -> None:
        """Flush and end both logs."""
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        """Open for appending, each line flushed; after a line torn by a kill, begin on a fresh one."""
        torn = self._path.exists() and self._path.read_bytes()[-1:] not in (b"", b"\n")
        self._file = self._path.open("a", buffering=1, encoding="utf-8")
        if torn:
            self._file.write("\n")


def _start_wandb(folder: Path, mode: str, config: Config) -> Any:
    """A Weights & Biases run, the same one each time for a folder: its id is kept in `wandb-id`."""
    try:
        import wandb
    except ImportError:
        raise ConfigError(f"--wandb {mode} needs a package: pip install 'lssvwm[wandb]'") from None
    stored = folder / "wandb-id"
    if not stored.exists():
        write_text_atomically(stored, uuid.uuid4().hex[:12] + "\n")
    try:
        run = wandb.init(
            project="lssvwm",
            name=folder.name,
            id=stored.read_text(encoding="utf-8").strip(),
            # Offline nobody can say whether the run exists; the same id joins the parts at `wandb sync`.
            resume="allow" if mode == "online" else None,
            mode="online" if mode == "online" else "offline",
            dir=folder,
            config=plain(config),
            settings=wandb.Settings(console="off"),
        )
    except wandb.errors.Error as error:
        raise ConfigError(f"--wandb {mode}: {' '.join(str(error).split())}") from None
    # W&B's own counter only grows; a run taken up from a checkpoint goes back in environment steps.
    run.define_metric("*", step_metric="step")
    return run
