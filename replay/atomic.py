"""Files that are either whole or not there, whatever happens to the process that writes them; and locks."""

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
    """Call `write` on a temporary file beside `path`, then put it in the place of `path` in one step.

    A process killed at any moment leaves the old file, the new file, or no file, and perhaps a temporary one
    (dot-prefixed), which the next writing of `path` or `remove_leftovers` deletes. On an error, such as a full disk,
    the temporary file is removed and the error goes on unchanged. One process at a time writes a path.
    """

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            write(file)

    _put(path.with_name(f".{path.name}.tmp"), path, fill)


def replace_atomically(path: Path, fill: Callable[[Path], object]) -> None:
    """As `write_atomically`, by `fill(temporary)`, for writers that want a name; several processes may write a path.

    The temporary file keeps the suffix of `path`: writers such as matplotlib's choose the format by it.
    """
    remove_leftovers(path.parent, f".{glob.escape(path.stem)}.*.tmp{glob.escape(path.suffix)}")
    _put(path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}"), path, fill)


def write_text_atomically(path: Path, text: str) -> None:
    """Replace the UTF-8 text of `path` in one step."""
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def remove_leftovers(folder: Path, pattern: str = ".*.tmp") -> None:
    """Delete the temporary files of writers that are gone; those still being written stay."""
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
    """Take the lock of an open file or folder, or `wait` for it; False where another holds it.

    Closing it frees it, and so does the end of the process. Raises OSError where there are no locks: on Windows, and on
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
    """Hold a folder's lock, when whoever holds it is done; where a file system has no locks, do without."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(temporary: Path, path: Path, fill: Callable[[Path], object]) -> None:
    outside = sys.exception()  # that is being handled: after an interrupt, what was learnt is saved
    try:
        with temporary.open("wb") as file:
            with suppress(OSError):
                lock(file, wait=True)  # says that the writer lives; whoever has it is looking whether one does
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
