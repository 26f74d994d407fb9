"""Environments that measure memory: something is seen, gone for a known number of frames, and seen again.

A picture has three by three places for coloured squares on a dark ground, a border that is white in the last
frame before the return (so that what returns is the question, not when), and a distractor: a light-gray square
that wanders about in the frame by itself and is pushed by the action. The distractor is drawn over all else; it
is too small to hide a square.

What an episode shows, frame by frame (the frame of the reset is the first):

    ObjectRecall        shown x object | delay x nothing, the last with the cue |                   back x object
    ObjectRecallChoice  shown x object | delay x nothing, the last with the cue | 1 x K patches  |  back x object
    SceneCut            shown x room A | delay x room B,  the last with the cue |                   back x room A
    label `phase`       SHOWN            GONE                                     CHOICE            BACK
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

SHOWN, GONE, CHOICE, BACK = range(4)  # the label `phase`
SIZES = range(32, 65, 4)  # of a picture's side, in pixels
PLACES = 9  # three by three, row by row from top left

# Red, green, blue, lime, rose, cyan, orange, violet; the first n are used where n are asked for. They are about
# equally far from the background, so that `judge` reads the right one off a square faded to nearly a half.
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

Delay = int | tuple[int, int]
Spot = tuple[slice, slice]  # rows and columns of a picture


def squares(size: int) -> list[Spot]:
    """The square at each of the `PLACES`, in a picture of `size` pixels a side."""
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
    """(A, 2) unit vectors, x to the right and y down: right, then on counter-clockwise (up, left, down)."""
    angles = 2 * np.pi * np.arange(actions) / actions
    return np.stack([np.cos(angles), -np.sin(angles)], axis=-1)


def judge(frames: np.ndarray, colours: int = COLOURS) -> tuple[np.ndarray, np.ndarray]:
    """What object a picture of `ObjectRecall` shows, by least squares; for decoded pictures too.

    A hypothesis is a colour and a place: a square of this colour there, background in the other eight squares.
    The one with the least squared error, summed over the pixels of all nine squares, wins. The error depends on
    the pixels by the mean of each square only: but for a constant, it is |mean - colour|^2 - |mean - background|^2
    of the square where the object would stand. A picture without an object gives some answer.

    Args:
        frames: (..., H, W, 3) floats in 0..1, H = W in `SIZES`.
        colours: how many colours of the palette the environment uses; chance is 1 in these, and 1 in `PLACES`.

    Returns:
        colour and place, each (...) int64.

    Raises:
        ValueError: frames of another shape or not of floats, or colours outside 1..8.
    """
    _check_count("colours", colours, 1, COLOURS)
    size = frames.shape[-2] if frames.ndim >= 3 else 0
    if frames.shape[-3:] != (size, size, 3) or not np.issubdtype(frames.dtype, np.floating):
        raise ValueError(f"frames must be (..., H, H, 3) floats, not {frames.shape} {frames.dtype}")
    _check_size(size)
    means = np.stack([frames[..., y, x, :].mean((-3, -2), np.float64) for y, x in squares(size)], -2)  # (..., 9, 3)
    to_background = ((means - BACKGROUND / 255) ** 2).sum(-1)  # (..., 9)
    to_colour = np.stack([((means - colour) ** 2).sum(-1) for colour in PALETTE[:colours] / 255])  # (C, ..., 9)
    errors = np.moveaxis(to_colour - to_background, 0, -2)  # (..., C, 9)
    best = errors.reshape(*errors.shape[:-2], -1).argmin(-1)
    return best // PLACES, best % PLACES


class Distractor:
    """A light-gray square of 1/8 of the picture's side; wanders, turns at random, stays inside the border."""

    TURN = 0.1  # the chance of a new heading at each step

    def __init__(self, size: int, actions: int) -> None:
        """`actions`: A; action i pushes in direction i of `directions(A)`."""
        self._side = size // 8
        self._low, self._high = _border(size), size - _border(size) - self._side
        self._speed = size / 32
        self._pushes = [(float(x), float(y)) for x, y in self._speed * directions(actions)]
        self._x = self._y = self._dx = self._dy = 0.0

    def reset(self, rng: np.random.Generator) -> None:
        """Stand somewhere and head somewhere."""
        self._x, self._y = rng.uniform(self._low, self._high), rng.uniform(self._low, self._high)
        self._turn(rng)

    def move(self, action: int, rng: np.random.Generator) -> None:
        """One step: by itself, by the push, and back from the border."""
        if rng.random() < self.TURN:
            self._turn(rng)
        push_x, push_y = self._pushes[action]
        self._x, self._dx = self._bounce(self._x + self._dx + push_x, self._dx)
        self._y, self._dy = self._bounce(self._y + self._dy + push_y, self._dy)

    def draw(self, picture: np.ndarray) -> None:
        """Onto (size, size, 3) uint8, in place."""
        x, y = round(self._x), round(self._y)
        picture[y : y + self._side, x : x + self._side] = GRAY

    def _turn(self, rng: np.random.Generator) -> None:
        angle = rng.uniform(0, 2 * math.pi)
        self._dx, self._dy = self._speed * math.cos(angle), self._speed * math.sin(angle)

    def _bounce(self, position: float, heading: float) -> tuple[float, float]:
        if position < self._low:
            return 2 * self._low - position, abs(heading)
        if position > self._high:
            return 2 * self._high - position, -abs(heading)
        return position, heading


@dataclass(frozen=True)
class Shot:
    """A picture without the distractor, (size, size, 3) uint8, that stands for some frames."""

    phase: int
    picture: np.ndarray
    frames: int


class _Recall(gymnasium.Env[np.ndarray, np.int64]):
    """What the environments have in common: shots that follow each other, and the distractor over them.

    A child gives `_script`: an episode's shots and its labels, which are the same in all its frames.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, size: int, delay: Delay, shown: int, back: int, labels: bool) -> None:
        _check_size(size)
        _check_count("shown", shown, 1)
        _check_count("back", back, 1)
        self._delay = _delay_range(delay)
        self._size, self._shown, self._back, self._labels = size, shown, back, labels
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self._set_actions(4)
        self._frames: list[Shot] = []  # the shot of each frame of the episode, (L,)
        self._now = 0
        self._constants: dict[str, Any] = {}

    def _set_actions(self, actions: int) -> None:
        self.action_space = gymnasium.spaces.Discrete(actions)
        self._distractor = Distractor(self._size, actions)

    def _script(self) -> tuple[list[Shot], dict[str, Any]]:
        """Draws an episode: its shots, and its labels but for `phase`."""
        raise NotImplementedError

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        shots, self._constants = self._script()
        self._frames = [shot for shot in shots for _ in range(shot.frames)]
        self._now = 0
        self._distractor.reset(self.np_random)
        return self._observe()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._now >= len(self._frames) - 1:
            raise ResetNeeded("call reset() before step(): no episode is running")
        if not self.action_space.contains(action):
            raise ValueError(f"{type(self).__name__} has {self.action_space}, not action {action!r}")
        reward = self._reward(self._frames[self._now].phase, int(action))
        self._distractor.move(int(action), self.np_random)
        self._now += 1
        image, info = self._observe()
        return image, reward, self._now == len(self._frames) - 1, False, info

    def _reward(self, phase: int, action: int) -> float:
        """Of an action taken upon a frame of this phase."""
        return 0.0

    def _observe(self) -> tuple[np.ndarray, dict[str, Any]]:
        shot = self._frames[self._now]
        image = shot.picture.copy()
        self._distractor.draw(image)
        if not self._labels:
            return image, {}
        labels = {"phase": shot.phase, **self._constants}
        return image, {name: np.array(value, np.int64) for name, value in labels.items()}

    def _draw_delay(self) -> int:
        """As many from 5 to 10 frames as from 10 to 20: memory is learnt from short gaps to long ones."""
        low, high = self._delay
        return int(math.exp(self.np_random.uniform(math.log(low), math.log(high + 1))))


class ObjectRecall(_Recall):
    """An object is shown, gone, and back at the same place in the same colour; reward is always 0.

    Observation: (size, size, 3) uint8. Actions: push the distractor right, up, left, down. An episode is
    shown + delay + back frames, with the reset's, and terminates: nothing follows that could be worth anything.

    Args:
        size: pixels a side, a multiple of 4 from 32 to 64.
        delay: frames of the gap, at least 1; a pair (low, high) draws it anew at each reset, both included,
            evenly by its logarithm.
        shown, back: frames with the object before and after the gap, at least 1.
        colours: how many colours of the palette an object may have, 1 to 8.
        labels: put `phase` (SHOWN, GONE, CHOICE or BACK), `colour`, `place` and `delay` in `info`, each () int64;
            otherwise `info` is empty.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        size: int = 32,
        delay: Delay = 50,
        shown: int = 6,
        back: int = 6,
        colours: int = COLOURS,
        labels: bool = False,
    ) -> None:
        super().__init__(size, delay, shown, back, labels)
        _check_count("colours", colours, 1, COLOURS)
        self._colours = colours

    def judge(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colour and place of the object that these pictures show: `judge` over this environment's colours."""
        return judge(frames, self._colours)

    def _script(self) -> tuple[list[Shot], dict[str, Any]]:
        colour, place = int(self.np_random.integers(self._colours)), int(self.np_random.integers(PLACES))
        delay = self._draw_delay()
        empty = _ground(self._size, BACKGROUND)
        full = _painted(empty, [squares(self._size)[place]], [colour])
        shots = [Shot(SHOWN, full, self._shown), *_gap(empty, delay), Shot(BACK, full, self._back)]
        return shots, {"colour": colour, "place": place, "delay": delay}


class ObjectRecallChoice(ObjectRecall):
    """`ObjectRecall` with a question: between the gap and the return, one frame shows K patches of colour.

    One of them has the object's colour, the others K - 1 other colours, in shuffled order. Patch i stands where
    action i points: to the right, above, to the left and below for K = 4. The action taken upon that frame is
    rewarded with 1 if it picks the patch of the object's colour; a random policy has a mean return of 1/K.

    As `ObjectRecall` but for: episodes are one frame longer; actions are K, action i pushing the distractor in
    direction i of `directions(K)`; `info` has also `answer`, () int64, the right action.

    Args:
        choices: K, from 2 to `colours`, of which there are at least 2.
    """

    def __init__(
        self,
        size: int = 32,
        delay: Delay = 50,
        shown: int = 6,
        back: int = 6,
        colours: int = COLOURS,
        choices: int = 4,
        labels: bool = False,
    ) -> None:
        super().__init__(size, delay, shown, back, colours, labels)
        _check_count("colours", colours, 2, COLOURS)
        _check_count("choices", choices, 2, colours)
        self._set_actions(choices)
        self._choices = choices
        self._answer = 0

    def _script(self) -> tuple[list[Shot], dict[str, Any]]:
        (*before, back), labels = super()._script()
        others = [colour for colour in range(self._colours) if colour != labels["colour"]]
        offered = [int(colour) for colour in self.np_random.permutation(others)[: self._choices - 1]]
        self._answer = int(self.np_random.integers(self._choices))
        offered.insert(self._answer, labels["colour"])
        question = _painted(_ground(self._size, BACKGROUND), patches(self._size, self._choices), offered)
        return [*before, Shot(CHOICE, question, 1), back], {**labels, "answer": self._answer}

    def _reward(self, phase: int, action: int) -> float:
        return float(phase == CHOICE and action == self._answer)


class SceneCut(_Recall):
    """A room is shown, cut away to another room, and back as it was; reward is always 0.

    Each room has a dim floor colour, different in the two, and coloured squares at distinct places; their colours
    may repeat. The distractor moves on through the cuts. Observation, actions and length are `ObjectRecall`'s.

    Args:
        size: pixels a side, a multiple of 4 from 32 to 64.
        delay: frames of room B, at least 1; a pair (low, high) draws it anew at each reset, both included,
            evenly by its logarithm.
        shown, back: frames of room A before and after, at least 1.
        objects: squares in each room, 1 to 9.
        labels: put `phase` (SHOWN, GONE or BACK) and `delay`, each () int64, and room A's `colour` and `place`,
            each (objects,) int64, in `info`; otherwise `info` is empty.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        size: int = 32,
        delay: Delay = 50,
        shown: int = 10,
        back: int = 10,
        objects: int = 3,
        labels: bool = False,
    ) -> None:
        super().__init__(size, delay, shown, back, labels)
        _check_count("objects", objects, 1, PLACES)
        self._objects = objects

    def _script(self) -> tuple[list[Shot], dict[str, Any]]:
        floors = FLOORS[self.np_random.choice(len(FLOORS), 2, replace=False)]
        room_a, colour, place = self._room(floors[0])
        room_b, _, _ = self._room(floors[1])
        delay = self._draw_delay()
        shots = [Shot(SHOWN, room_a, self._shown), *_gap(room_b, delay), Shot(BACK, room_a, self._back)]
        return shots, {"colour": colour, "place": place, "delay": delay}

    def _room(self, floor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A room with this floor: its picture, and its objects' colours and places, each (objects,)."""
        colour = self.np_random.integers(COLOURS, size=self._objects)
        place = self.np_random.choice(PLACES, self._objects, replace=False)
        room = _painted(_ground(self._size, floor), [squares(self._size)[i] for i in place], colour)
        return room, colour, place


def _gap(picture: np.ndarray, delay: int) -> list[Shot]:
    """The time between, in front of this picture; the last frame has the cue."""
    return [Shot(GONE, picture, delay - 1), Shot(GONE, _with_cue(picture), 1)]


def _ground(size: int, colour: np.ndarray) -> np.ndarray:
    """(size, size, 3) uint8 of one colour."""
    return np.full((size, size, 3), colour, np.uint8)


def _painted(picture: np.ndarray, spots: Sequence[Spot], colours: Sequence[int] | np.ndarray) -> np.ndarray:
    """A copy of the picture with these spots in these colours of the palette."""
    picture = picture.copy()
    for spot, colour in zip(spots, colours, strict=True):
        picture[spot] = PALETTE[colour]
    return picture


def _with_cue(picture: np.ndarray) -> np.ndarray:
    """A copy of the picture with a white border."""
    border = _border(len(picture))
    framed = np.full_like(picture, WHITE)
    framed[border:-border, border:-border] = picture[border:-border, border:-border]
    return framed


def _border(size: int) -> int:
    """Pixels that are kept free for the cue along each edge."""
    return size // 32


def _check_size(size: Any) -> None:
    """Raise ValueError unless `size` is one of `SIZES`."""
    if not _is_whole(size) or size not in SIZES:
        raise ValueError(f"size must be a multiple of 4 from {SIZES[0]} to {SIZES[-1]}, not {size!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_count(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raise ValueError unless `value` is a whole number in low..high."""
    if not _is_whole(value) or value < low or (high is not None and value > high):
        bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {bounds}, not {value!r}")


def _delay_range(delay: Any) -> tuple[int, int]:
    """(low, high) of a delay that is a number or such a pair; raises ValueError."""
    low, high = delay if isinstance(delay, tuple | list) and len(delay) == 2 else (delay, delay)
    if not (_is_whole(low) and _is_whole(high) and 1 <= low <= high):
        raise ValueError(f"delay must be a whole number of at least 1, or a rising pair of such, not {delay!r}")
    return int(low), int(high)
