"""The images of `envs.recall`, and their classification.

An image has three by three places for coloured squares on a dark ground, a border that turns white as a cue, and a
distractor: a light-gray square that moves at random and is pushed by the action. It is drawn over everything else, and
too small to hide a square.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

SIZES = range(32, 65, 4)  # of an image's side, in pixels
PLACES = 9  # three by three, row by row from top left

# Red, green, blue, lime, rose, cyan, orange, violet; environments of n colours use the first n. They are about equally
# far from the background, so that `classify_frame` is right for a square faded to nearly a half.
PALETTE = np.array(
    [
        (255, 20, 20),
        (0, 220, 60),
        (30, 60, 255),
        (190, 235, 0),
        (240, 0, 160),
        (0, 190, 230),
        (240, 140, 0),
        (140, 0, 220),
    ],
    np.uint8,
)
COLOURS = len(PALETTE)
FLOORS = np.array([(52, 22, 22), (20, 46, 22), (22, 26, 60), (46, 42, 14)], np.uint8)  # of the rooms of SceneCut
BACKGROUND = np.array((20, 20, 20), np.uint8)
GRAY = 200
WHITE = 255

Spot = tuple[slice, slice]  # rows and columns of an image


def squares(size: int) -> list[Spot]:
    """The square at each of the `PLACES`, in an image of `size` pixels a side."""
    side, gap = size // 4, size // 16
    first = (size - 3 * side - 2 * gap) // 2
    spans = [slice(start, start + side) for start in range(first, first + 3 * (side + gap), side + gap)]
    return [(rows, columns) for rows in spans for columns in spans]


def patches(size: int, choices: int) -> list[Spot]:
    """The patch that stands where each of the K actions points, in `ObjectRecallChoice`."""
    side = size // 5
    corners = np.rint(size / 2 + size * 3 / 8 * directions(choices) - side / 2).astype(int)  # (K, 2) x and y
    return [(slice(y, y + side), slice(x, x + side)) for x, y in corners]


def directions(actions: int) -> np.ndarray:
    """(A, 2) unit vectors, x to the right and y down: right, then counter-clockwise (up, left, down)."""
    angles = 2 * np.pi * np.arange(actions) / actions
    return np.stack([np.cos(angles), -np.sin(angles)], axis=-1)


def classify_frame(frames: np.ndarray, colours: int = COLOURS) -> tuple[np.ndarray, np.ndarray]:
    """The colour and place of the object in frames of `ObjectRecall`, real or decoded, by least squares.

    Returns the colour and place with the least squared error over the pixels of all nine squares, where the other eight
    are background. But for a constant, that error is |mean - colour|^2 - |mean - background|^2, of the mean over the
    object's square. For an image without an object the answer is arbitrary.

    Args:
        frames: (..., H, W, 3) floats in 0..1, H = W in `SIZES`.
        colours: how many colours of the palette the environment uses.

    Returns:
        colour and place, each (...) int64.

    Raises:
        ValueError: frames of another shape or not of floats, or colours outside 1..8.
    """
    check_count("colours", colours, 1, COLOURS)
    size = frames.shape[-2] if frames.ndim >= 3 else 0
    if frames.shape[-3:] != (size, size, 3) or not np.issubdtype(frames.dtype, np.floating):
        raise ValueError(f"frames must be (..., H, H, 3) floats, not {frames.shape} {frames.dtype}")
    check_size(size)
    means = np.stack([frames[..., y, x, :].mean((-3, -2), np.float64) for y, x in squares(size)], -2)  # (..., 9, 3)
    to_background = ((means - BACKGROUND / 255) ** 2).sum(-1)  # (..., 9)
    to_colour = np.stack([((means - colour) ** 2).sum(-1) for colour in PALETTE[:colours] / 255])  # (C, ..., 9)
    errors = np.moveaxis(to_colour - to_background, 0, -2)  # (..., C, 9)
    best = errors.reshape(*errors.shape[:-2], -1).argmin(-1)
    return best // PLACES, best % PLACES


class Distractor:
    """A light-gray square of 1/8 of the image's side; moves, turns at random, stays inside the border."""

    TURN = 0.1  # the chance of a new heading at each step

    def __init__(self, size: int, actions: int) -> None:
        """`actions`: A; action i pushes in direction i of `directions(A)`."""
        self._side = size // 8
        self._low, self._high = _border(size), size - _border(size) - self._side
        self._speed = size / 32
        self._pushes = [(float(x), float(y)) for x, y in self._speed * directions(actions)]
        self._x = self._y = self._dx = self._dy = 0.0

    def reset(self, rng: np.random.Generator) -> None:
        """Draws a position and a heading."""
        self._x, self._y = rng.uniform(self._low, self._high), rng.uniform(self._low, self._high)
        self._turn(rng)

    def move(self, action: int, rng: np.random.Generator) -> None:
        """One step of its own, plus the push, reflected at the border."""
        if rng.random() < self.TURN:
            self._turn(rng)
        push_x, push_y = self._pushes[action]
        self._x, self._dx = self._bounce(self._x + self._dx + push_x, self._dx)
        self._y, self._dy = self._bounce(self._y + self._dy + push_y, self._dy)

    def draw(self, image: np.ndarray) -> None:
        """Onto (size, size, 3) uint8, in place."""
        x, y = round(self._x), round(self._y)
        image[y : y + self._side, x : x + self._side] = GRAY

    def _turn(self, rng: np.random.Generator) -> None:
        angle = rng.uniform(0, 2 * math.pi)
        self._dx, self._dy = self._speed * math.cos(angle), self._speed * math.sin(angle)

    def _bounce(self, position: float, heading: float) -> tuple[float, float]:
        if position < self._low:
            return 2 * self._low - position, abs(heading)
        if position > self._high:
            return 2 * self._high - position, -abs(heading)
        return position, heading


def ground(size: int, colour: np.ndarray) -> np.ndarray:
    """(size, size, 3) uint8 of one colour."""
    return np.full((size, size, 3), colour, np.uint8)


def painted(image: np.ndarray, spots: Sequence[Spot], colours: Sequence[int] | np.ndarray) -> np.ndarray:
    """A copy of the image with these spots in these colours of the palette."""
    image = image.copy()
    for spot, colour in zip(spots, colours, strict=True):
        image[spot] = PALETTE[colour]
    return image


def with_cue(image: np.ndarray) -> np.ndarray:
    """A copy of the image with a white border."""
    border = _border(len(image))
    framed = np.full_like(image, WHITE)
    framed[border:-border, border:-border] = image[border:-border, border:-border]
    return framed


def _border(size: int) -> int:
    """Pixels along each edge that only the cue uses."""
    return size // 32


def check_size(size: Any) -> None:
    """Raise ValueError unless `size` is one of `SIZES`."""
    if not is_whole(size) or size not in SIZES:
        raise ValueError(f"size must be a multiple of 4 from {SIZES[0]} to {SIZES[-1]}, not {size!r}")


def is_whole(value: Any) -> bool:
    """An integer, and not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_count(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raise ValueError unless `value` is a whole number in low..high."""
    if not is_whole(value) or value < low or (high is not None and value > high):
        bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {bounds}, not {value!r}")
