"""Hides frames, whole or in part, so that what was seen before must be remembered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# The part of a (64, 64, 3) image that a mask covers: a half, or the middle quarter.
_ALL, _FIRST, _LAST, _MIDDLE = slice(0, 64), slice(0, 32), slice(32, 64), slice(16, 48)
REGIONS: dict[str, tuple[slice, slice]] = {  # rows and columns
    "top": (_FIRST, _ALL),
    "bottom": (_LAST, _ALL),
    "left": (_ALL, _FIRST),
    "right": (_ALL, _LAST),
    "middle": (_MIDDLE, _MIDDLE),
}


@dataclass(frozen=True)
class Occlusion:
    """What of an episode's images, (64, 64, 3) uint8, is black.

    Args:
        flicker: the probability that a frame is hidden, each independently (Hausknecht and Stone, arXiv 1507.06527,
            use 0.5).
        blackout: (n, m) hides the last n frames of every m, counted from the reset's. Unlike flicker, it needs memory
            over more than a few frames.
        mask: a key of `REGIONS`, hidden in every frame.

    Raises:
        ValueError: a probability outside 0..1, not 0 < n < m, or an unknown region.
    """

    flicker: float = 0.0
    blackout: tuple[int, int] | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.flicker, int | float) and 0 <= self.flicker <= 1):
            raise ValueError(f"flicker must be a probability from 0 to 1, not {self.flicker!r}")
        if self.blackout is not None and not _is_blackout(self.blackout):
            raise ValueError(f"blackout must be n..m with 0 < n < m: n frames hidden in every m, not {self.blackout!r}")
        if self.mask is not None and self.mask not in REGIONS:
            raise ValueError(f"mask must be one of {', '.join(REGIONS)}, not {self.mask!r}")

    def hides(self, index: int, random: np.random.Generator) -> bool:
        """Whether frame `index` of the episode (the reset's is 0) is hidden whole; may draw from `random`."""
        if self.blackout is not None:
            hidden, period = self.blackout
            if index % period >= period - hidden:
                return True
        return self.flicker > 0 and random.random() < self.flicker

    def cover(self, image: np.ndarray) -> None:
        """Black out the masked region, in place."""
        if self.mask is not None:
            image[REGIONS[self.mask]] = 0


def _is_blackout(value: Any) -> bool:
    pair = isinstance(value, tuple) and len(value) == 2 and all(isinstance(number, int) for number in value)
    return pair and 0 < value[0] < value[1]
