"""One process at a time trains in a run's folder: it holds a lock on the folder itself, which leaves no file behind."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.runs.fields import ConfigError
from replay.atomic import lock

Key = tuple[int, int]
"""A folder's device and inode: its path may be written in several ways."""

_held: dict[Key, int] = {}
"""The descriptors of what this process holds."""


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in an existing folder; the lock ends with the process, however that ends.

    It may be nested within one process, and does nothing on file systems without locks. Raises ConfigError where
    another process trains there.
    """
    own = _take(folder)
    try:
        yield
    finally:
        if own is not None:
            _release(own)


def _take(folder: Path) -> Key | None:
    """None where this process holds it already, or where there are no locks."""
    status = folder.stat()
    key = status.st_dev, status.st_ino
    if key in _held:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return None
    try:
        free = lock(descriptor)
    except OSError:
        os.close(descriptor)
        return None
    if not free:
        os.close(descriptor)
        raise ConfigError(
            f"{folder} is being trained by another process: wait until that ends, or use another --run-dir"
        )
    _held[key] = descriptor
    return key


def _release(key: Key) -> None:
    descriptor = _held.pop(key, None)
    if descriptor is not None:
        os.close(descriptor)


def _forget() -> None:
    """Releases locks in a forked child, which may outlive its parent and would keep them."""
    for key in list(_held):
        _release(key)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
