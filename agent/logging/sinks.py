"""Where a run's log goes: the contract that every place fulfils, and the one that is always written, metrics.jsonl."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from replay.atomic import write_text_atomically

METRICS = "metrics.jsonl"

Row = dict[str, Any]
"""`step`, and figures by name: a number, or None where it was not finite."""


class Sink(ABC):
    """One place to which a run reports. Steps are environment steps (updates, where no agent acts)."""

    @abstractmethod
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take figures by name; they may be infinite or not a number."""

    @abstractmethod
    def picture(self, step: int, name: str, path: Path) -> None:
        """Take an image file, which the run goes on to replace."""

    @abstractmethod
    def video(self, step: int, name: str, path: Path) -> None:
        """Take an mp4 file, which the run goes on to replace."""

    @abstractmethod
    def truncate_after(self, step: int) -> None:
        """The run goes back to its checkpoint at this step (-1: to its beginning): what came later is reported again.

        Called once, before anything is reported.
        """

    @abstractmethod
    def close(self) -> None:
        """Flush and end."""


class JsonLines(Sink):
    """metrics.jsonl: a JSON object a line. Pictures and videos lie in the run's folder already."""

    def __init__(self, folder: Path):
        self._path = folder / METRICS
        self._open()

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Sink`; what is not finite is written as null, which any reader of JSON takes."""
        row = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        self._file.write(json.dumps({"step": step, **row}) + "\n")

    def picture(self, step: int, name: str, path: Path) -> None:
        """Nothing to do."""

    def video(self, step: int, name: str, path: Path) -> None:
        """Nothing to do."""

    def truncate_after(self, step: int) -> None:
        """See `Sink`; the later rows are dropped."""
        rows = [row for row in read_metrics(self._path) if row["step"] <= step]
        self._file.close()
        write_text_atomically(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self._open()

    def close(self) -> None:
        """See `Sink`."""
        self._file.close()

    def _open(self) -> None:
        """Open for appending, each line flushed; after a line torn by a kill, begin on a fresh one."""
        torn = self._path.exists() and self._path.read_bytes()[-1:] not in (b"", b"\n")
        self._file = self._path.open("a", buffering=1, encoding="utf-8")
        if torn:
            self._file.write("\n")


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
