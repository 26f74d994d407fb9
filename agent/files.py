"""Files that are whole or not there: written aside, flushed to the disk, then moved into place."""

import os
from collections.abc import Callable
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_atomically(path: Path, fill: Callable[[Path], object]) -> None:
    """Make `path` by `fill(temporary)`: whoever reads `path` sees the old file or the whole new one.

    The temporary file keeps the suffix of `path` (writers such as matplotlib's choose the format by it) and
    is removed when `fill` or the move fails.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        fill(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """Replace the UTF-8 text of `path` in one step."""
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
