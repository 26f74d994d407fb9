"""Environments that measure memory: something is shown, gone for a known number of frames, and shown again.

A cue in the last frame of the gap announces the return, so that a model has to remember what returns, not when. An
episode's frames, the reset's first (see `envs.recall.drawing`):

    ObjectRecall        shown x object | delay x nothing, the last with the cue |                   back x object
    ObjectRecallChoice  shown x object | delay x nothing, the last with the cue | 1 x K patches  |  back x object
    SceneCut            shown x room A | delay x room B,  the last with the cue |                   back x room A
    label `phase`       SHOWN            GONE                                     CHOICE            BACK
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from envs.recall.drawing import (
    BACKGROUND,
    COLOURS,
    FLOORS,
    PLACES,
    Distractor,
    check_count,
    check_size,
    classify_frame,
    ground,
    is_whole,
    painted,
    patches,
    squares,
    with_cue,
)  # fmt: skip

SHOWN, GONE, CHOICE, BACK = range(4)  # the label `phase`

Delay = int | tuple[int, int]


@dataclass(frozen=True)
class Shot:
    """An image without the distractor, (size, size, 3) uint8, shown for some frames."""

    phase: int
    image: np.ndarray
    frames: int


class _Recall(gymnasium.Env[np.ndarray, np.int64]):
    """Shots that follow each other, and the distractor over them. A subclass gives `_script`."""

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, size: int, delay: Delay, shown: int, back: int, labels: bool) -> None:
        check_size(size)
        check_count("shown", shown, 1)
        check_count("back", back, 1)
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
        """Draws an episode: its shots, and its labels but `phase`, which are the same in all frames."""
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
        """Of an action taken at a frame of this phase."""
        return 0.0

    def _observe(self) -> tuple[np.ndarray, dict[str, Any]]:
        shot = self._frames[self._now]
        image = shot.image.copy()
        self._distractor.draw(image)
        if not self._labels:
            return image, {}
        labels = {"phase": shot.phase, **self._constants}
        return image, {name: np.array(value, np.int64) for name, value in labels.items()}

    def _draw_delay(self) -> int:
        """Log-uniform: as many from 5 to 10 frames as from 10 to 20, so that memory is trained from short gaps on."""
        low, high = self._delay
        return int(math.exp(self.np_random.uniform(math.log(low), math.log(high + 1))))


class ObjectRecall(_Recall):
    """An object is shown, gone, and back at the same place in the same colour; the reward is always 0.

    Observation: (size, size, 3) uint8. Actions: push the distractor right, up, left, down. An episode has
    shown + delay + back frames, the reset's included, and terminates.

    Args:
        size: pixels a side, a multiple of 4 from 32 to 64.
        delay: frames of the gap, at least 1; of a pair (low, high), both included, each reset draws one,
            log-uniformly.
        shown, back: frames with the object before and after the gap, at least 1.
        colours: the number of colours of the palette that an object may have, 1 to 8.
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
        check_count("colours", colours, 1, COLOURS)
        self._colours = colours

    def classify_frame(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`envs.recall.drawing.classify_frame` over this environment's colours."""
        return classify_frame(frames, self._colours)

    def _script(self) -> tuple[list[Shot], dict[str, Any]]:
        colour, place = int(self.np_random.integers(self._colours)), int(self.np_random.integers(PLACES))
        delay = self._draw_delay()
        empty = ground(self._size, BACKGROUND)
        full = painted(empty, [squares(self._size)[place]], [colour])
        shots = [Shot(SHOWN, full, self._shown), *_gap(empty, delay), Shot(BACK, full, self._back)]
        return shots, {"colour": colour, "place": place, "delay": delay}


class ObjectRecallChoice(ObjectRecall):
    """`ObjectRecall` with a question: between the gap and the return, one frame shows K patches of colour.

    One of them has the object's colour, the others K - 1 other colours, in random order. Patch i stands where
    action i points: right, up, left and down for K = 4. The action taken at that frame is rewarded with 1 if it picks
    the patch of the object's colour; the mean return of a random policy is 1/K.

    Differences from `ObjectRecall`: episodes are one frame longer; there are K actions, action i pushes the distractor
    in direction i of `directions(K)`; `info` also has `answer`, () int64, the right action.

    Args:
        choices: K, from 2 to `colours`, which is at least 2 here.
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
        check_count("colours", colours, 2, COLOURS)
        check_count("choices", choices, 2, colours)
        self._set_actions(choices)
        self._choices = choices
        self._answer = 0

    def _script(self) -> tuple[list[Shot], dict[str, Any]]:
        (*before, back), labels = super()._script()
        others = [colour for colour in range(self._colours) if colour != labels["colour"]]
        offered = [int(colour) for colour in self.np_random.permutation(others)[: self._choices - 1]]
        self._answer = int(self.np_random.integers(self._choices))
        offered.insert(self._answer, labels["colour"])
        question = painted(ground(self._size, BACKGROUND), patches(self._size, self._choices), offered)
        return [*before, Shot(CHOICE, question, 1), back], {**labels, "answer": self._answer}

    def _reward(self, phase: int, action: int) -> float:
        return float(phase == CHOICE and action == self._answer)


class SceneCut(_Recall):
    """A room is shown, then another room, then the first again as it was; the reward is always 0.

    Each room has a dim floor, of different colours in the two, and coloured squares at distinct places, whose colours
    may repeat. The distractor moves on through the cuts. Observation, actions and length are `ObjectRecall`'s.

    Args:
        size: pixels a side, a multiple of 4 from 32 to 64.
        delay: frames of room B, at least 1, or a pair as in `ObjectRecall`.
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
        check_count("objects", objects, 1, PLACES)
        self._objects = objects

    def _script(self) -> tuple[list[Shot], dict[str, Any]]:
        floors = FLOORS[self.np_random.choice(len(FLOORS), 2, replace=False)]
        room_a, colour, place = self._room(floors[0])
        room_b, _, _ = self._room(floors[1])
        delay = self._draw_delay()
        shots = [Shot(SHOWN, room_a, self._shown), *_gap(room_b, delay), Shot(BACK, room_a, self._back)]
        return shots, {"colour": colour, "place": place, "delay": delay}

    def _room(self, floor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A room with this floor: its image, and its objects' colours and places, each (objects,)."""
        colour = self.np_random.integers(COLOURS, size=self._objects)
        place = self.np_random.choice(PLACES, self._objects, replace=False)
        room = painted(ground(self._size, floor), [squares(self._size)[i] for i in place], colour)
        return room, colour, place


def _gap(image: np.ndarray, delay: int) -> list[Shot]:
    """`delay` frames of this image; the last has the cue."""
    return [Shot(GONE, image, delay - 1), Shot(GONE, with_cue(image), 1)]


def _delay_range(delay: Any) -> tuple[int, int]:
    """(low, high) of a number or a pair; raises ValueError."""
    low, high = delay if isinstance(delay, tuple | list) and len(delay) == 2 else (delay, delay)
    if not (is_whole(low) and is_whole(high) and 1 <= low <= high):
        raise ValueError(f"delay must be a whole number of at least 1, or a rising pair of such, not {delay!r}")
    return int(low), int(high)
