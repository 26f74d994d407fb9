"""Where a run's log goes: the contract of a sink, and the one that is always written, metrics.jsonl."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from replay.atomic import write_text_atomically

Row = dict[str, Any]
"""`step`, and metrics by name: a number, or None where it is not finite."""


class Sink(ABC):
    """A destination of a run's log. Steps are environment steps, or updates where no agent acts."""

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics by name, which may be infinite or NaN."""

    @abstractmethod
    def image(self, step: int, name: str, path: Path) -> None:
        """Logs an image file, which the run replaces later."""

    @abstractmethod
    def video(self, step: int, name: str, path: Path) -> None:
        """Logs an mp4 file, which the run replaces later."""

    @abstractmethod
    def truncate_after(self, step: int) -> None:
        """Drops what was logged after this step (-1: all), which the run logs again. Called once, before any other."""

    @abstractmethod
    def close(self) -> None:
        """Flushes and closes."""


class JsonLines(Sink):
    """metrics.jsonl, a JSON object a line. Images and videos are in the run's folder already."""

    def __init__(self, folder: Path):
        self._path = folder / "metrics.jsonl"
        self._open()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Sink`; what is not finite is written as null, which every reader of JSON accepts."""
        row = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **row}) + "\n")

    def image(self, step: int, name: str, path: Path) -> None:
        """Nothing to do."""

    def video(self, step: int, name: str, path: Path) -> None:
        """Nothing to do."""

    def truncate_after(self, step: int) -> None:
        """See `Sink`."""
        rows = [row for row in read_metrics(self._path) if row["step"] <= step]
        self._file.close()
        write_text_atomically(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self._open()

    def close(self) -> None:
        """See `Sink`."""
        self._file.close()

    def _open(self) -> None:
        """Opens for appending, each line flushed; a line that a kill cut short is ended first."""
        torn = self._path.exists() and self._path.read_bytes()[-1:] not in (b"", b"\n")
        self._file = self._path.open("a", buffering=1, encoding="utf-8")
        if torn:
            self._file.write("\n")


def read_metrics(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl, in order; [] where there is none. Lines that a kill cut short are left out."""
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
