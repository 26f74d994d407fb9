"""What a replay can take on disk at worst."""

import shutil
import warnings
from math import ceil, prod
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

FILE_OVERHEAD = 6144  # bytes: the headers of four arrays and of the archive, under 2 KiB, and the last 4 KiB block


def estimate(
    observation_shape: tuple[int, ...],
    dtype: DTypeLike,
    capacity: int,
    actions: int = 18,
    episode_steps: int = 100,
) -> int:
    """Bytes on disk of `capacity` steps at worst.

    Assumes no compression, and one more episode, which is there until the oldest is evicted. Does not count labels.

    `episode_steps`: the mean length of an episode; shorter ones have more overhead.
    """
    episodes = ceil(capacity / episode_steps) + 1
    row = prod(observation_shape) * np.dtype(dtype).itemsize + 4 * actions + 4 + 1
    return episodes * ((episode_steps + 1) * row + FILE_OVERHEAD)


def describe(folder: Path, capacity: int, worst: int, held: int) -> str:
    """One line for the start of a run; warns where the disk has too little space.

    `worst`: bytes at worst; `held`: bytes of it that the folder holds already.
    """
    free = shutil.disk_usage(folder).free
    if worst - held > free:
        warnings.warn(
            f"replay: {folder} may grow by {size(worst - held)}, but only {size(free)} are free",
            stacklevel=3,
        )
    return f"replay: up to {capacity:,} steps, at most {size(worst)} on disk (free: {size(free)})"


def size(count: float) -> str:
    """Bytes as `4.1 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
