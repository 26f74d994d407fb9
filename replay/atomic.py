"""Files that are either whole or not there, whatever happens to the process that writes them."""

import fcntl
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Call `write` on a temporary file beside `path`, then put it in the place of `path` in one step.

    A process killed at any moment leaves the old file, the new file, or no file, and perhaps a temporary one
    (dot-prefixed) that `remove_leftovers` deletes. On an error, such as a full disk, the temporary file is
    removed and the error goes on unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    outside = sys.exception()  # that is being handled: after an interrupt, what was learnt is saved
    try:
        with open(temporary, "wb") as file:
            # The lock says that the writer lives: the kernel drops it with the process. Where a file
            # system has no locks, a reader opening the folder may take a living writer's file for a leftover.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        cause = error.__context__
        if isinstance(cause, KeyboardInterrupt) and cause is not outside:  # a zip left half-way raises another error
            raise cause from None
        raise


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of writers that are gone; those still being written stay."""
    for temporary in folder.glob(".*.tmp"):
        try:
            with open(temporary, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                temporary.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError as error:
            warnings.warn(f"cannot remove the leftover {temporary}: {error}", stacklevel=2)
