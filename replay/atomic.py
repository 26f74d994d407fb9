"""Files that are whole or absent whenever the process that writes them dies; and locks."""

import glob
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a temporary file beside `path`, then renames it to `path`.

    A process killed at any moment leaves the old file, the new file, or none, and perhaps a temporary one
    (dot-prefixed), which the next write of `path` or `remove_leftovers` deletes. On an error, such as a full disk, the
    temporary file is removed and the error propagates. One process at a time may write a path.
    """

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            write(file)

    _put(path.with_name(f".{path.name}.tmp"), path, fill)


def replace_atomically(path: Path, fill: Callable[[Path], object]) -> None:
    """As `write_atomically`, by `fill(temporary path)`; several processes may write a path.

    The temporary file has the suffix of `path`, by which writers such as matplotlib's choose the format.
    """
    remove_leftovers(path.parent, f".{glob.escape(path.stem)}.*.tmp{glob.escape(path.suffix)}")
    _put(path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}"), path, fill)


def write_text_atomically(path: Path, text: str) -> None:
    """Replaces `path` by a UTF-8 text."""
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def remove_leftovers(folder: Path, pattern: str = ".*.tmp") -> None:
    """Deletes the temporary files of dead writers; those of living ones stay."""
    for temporary in folder.glob(pattern):
        try:
            with temporary.open("rb") as file:
                if lock(file):
                    temporary.unlink(missing_ok=True)
        except FileNotFoundError:
            continue
        except OSError as error:
            warnings.warn(f"cannot remove the leftover {temporary}: {error}", stacklevel=2)


def lock(file: BinaryIO | int, wait: bool = False) -> bool:
    """Takes the lock of an open file or folder, or waits for it; False where another process holds it.

    Closing the file or the end of the process releases it. Raises OSError where there are no locks: on Windows, and on
    some network file systems.
    """
    if sys.platform == "win32":
        raise OSError("no locks on Windows")
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def wait_for_lock(folder: Path) -> Iterator[None]:
    """Holds a folder's lock in the block, after waiting for it; without effect where there are no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(temporary: Path, path: Path, fill: Callable[[Path], object]) -> None:
    outside = sys.exception()  # already being handled by the caller, e.g. an interrupt after which a run is saved
    try:
        with temporary.open("wb") as file:
            with suppress(OSError):
                lock(file, wait=True)  # shows `remove_leftovers` that the writer lives
            fill(temporary)
            with temporary.open("rb") as filled:  # perhaps another file by now
                os.fsync(filled.fileno())
            os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        cause = error.__context__
        if isinstance(cause, KeyboardInterrupt) and cause is not outside:  # a zip left half-way raises another error
            raise cause from None
        raise
    sync_folder(path.parent)
