"""Atari games over the Arcade Learning Environment: `Atari/Pong`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import ale_py
import gymnasium
import numpy as np
from ale_py import roms
from gymnasium.error import ResetNeeded

from envs.images import IMAGE_SHAPE, to_image
from envs.occlusion import Occlusion

REPEAT = 4  # frames that an action lasts
EPISODE_FRAMES = 108_000  # half an hour of play; 27,000 steps
TWO_PLAYER_ROMS = ("combat", "joust", "maze_craze", "warlords")  # nobody to play against


@dataclass(frozen=True)
class Protocol:
    """What differs between the protocols of published scores.

    Args:
        sticky: the probability, at each frame, that the last frame's action is repeated.
        full_actions: all 18 actions of the joystick, or the game's minimal set.
        no_ops: an episode starts with 0 to `no_ops` frames of no action, drawn uniformly.
    """

    sticky: float
    full_actions: bool
    no_ops: int


PROTOCOLS = {
    # Kaiser et al., arXiv 1903.00374: 400k frames, 100k steps.
    "100k": Protocol(sticky=0.0, full_actions=False, no_ops=30),
    # Machado et al., arXiv 1709.06009: 200M frames.
    "200m": Protocol(sticky=0.25, full_actions=True, no_ops=0),
}


@functools.cache
def _roms() -> dict[str, str]:
    """Game -> ROM: "MsPacman" -> "ms_pacman"."""
    ids = sorted(set(roms.get_all_rom_ids()).difference(TWO_PLAYER_ROMS))
    return {id.title().replace("_", ""): id for id in ids}


def members() -> list[str]:
    """The games, in ale-py's own spelling."""
    return list(_roms())


class Atari(gymnasium.Env[np.ndarray, np.int64]):
    """One game; an action lasts 4 frames, and the image is the maximum of the last two, pixel by pixel.

    Observation: (64, 64, 3) uint8, not stacked. Actions: the game's own, or all 18. The reward is the change of the
    score over the 4 frames, not clipped. A lost life does not end an episode; it is truncated at 108,000 frames.
    The same seed and actions give the same frames. `info` is empty.

    Args:
        game: one of `members()`.
        protocol: a key of `PROTOCOLS`: "100k" has no sticky actions, the minimal action set and up to 30 no-op
            frames at the start; "200m" has sticky actions (0.25) and all 18 actions. The length of training,
            100,000 or 50 million steps, is the trainer's option.
        flicker, blackout, mask: what is hidden, see `envs.occlusion.Occlusion`.
        gray: the console's luminance in place of colours.

    Raises:
        ValueError: an argument outside its range.
    """

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 15}

    def __init__(
        self,
        game: str,
        protocol: str = "100k",
        flicker: float = 0.0,
        blackout: tuple[int, int] | None = None,
        mask: str | None = None,
        gray: bool = False,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise ValueError(f"unknown Atari protocol {protocol!r}: one of {', '.join(PROTOCOLS)}")
        if not isinstance(gray, bool):
            raise ValueError(f"gray must be true or false, not {gray!r}")
        self._game, self._protocol = game, PROTOCOLS[protocol]
        self._occlusion = Occlusion(flicker, blackout, mask)
        self._ale = _console(self._protocol)
        self._load(0)
        self._actions = self._action_set()
        self._grab = self._ale.getScreenGrayscale if gray else self._ale.getScreenRGB
        height, width = self._ale.getScreenDims()
        # The last frame of an action and the one before; a game blinks what it cannot draw in one.
        self._screens = np.zeros((2, height, width) if gray else (2, height, width, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Box(0, 255, IMAGE_SHAPE, np.uint8)
        self.action_space = gymnasium.spaces.Discrete(len(self._actions))
        self._is_seeded = False
        self._index: int | None = None  # of the episode's latest observation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None or not self._is_seeded:
            self._load(int(self.np_random.integers(2**31 - 1)))
            self._is_seeded = True
        self._ale.reset_game()
        for _ in range(int(self.np_random.integers(self._protocol.no_ops + 1))):
            self._ale.act(ale_py.Action.NOOP)
            if self._ale.game_over():
                self._ale.reset_game()
        self._grab(self._screens[1])
        self._index = 0
        return self._observe(self._screens[1]), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._index is None:
            raise ResetNeeded("call reset() before step(): no episode is running")
        if not self.action_space.contains(action):
            raise ValueError(f"Atari/{self._game} has {self.action_space}, not action {action!r}")
        reward, screen = self._repeat(self._actions[int(action)])
        self._index += 1
        observation = self._observe(screen)
        terminated = self._ale.game_over(with_truncation=False)
        truncated = self._ale.game_truncated() and not terminated
        if terminated or truncated:
            self._index = None
        return observation, reward, terminated, truncated, {}

    def _repeat(self, action: ale_py.Action) -> tuple[float, np.ndarray]:
        """Plays an action: the reward, and the maximum of the last two screens or, at a game's end, the last."""
        reward, last = 0.0, REPEAT - 1
        for frame in range(REPEAT):
            reward += self._ale.act(action)
            if self._ale.game_over():
                last = frame
                break
            if frame == REPEAT - 2:
                self._grab(self._screens[0])
        self._grab(self._screens[1])
        if last == REPEAT - 1:
            np.maximum(self._screens[0], self._screens[1], out=self._screens[1])
        return reward, self._screens[1]

    def _observe(self, screen: np.ndarray) -> np.ndarray:
        assert self._index is not None
        if self._occlusion.hides(self._index, self.np_random):
            return np.zeros(IMAGE_SHAPE, np.uint8)
        image = to_image(screen)
        self._occlusion.cover(image)
        return image

    def _load(self, seed: int) -> None:
        """Load the ROM; the console takes a seed only then."""
        rom = roms.get_rom_path(_roms()[self._game])
        assert rom is not None
        self._ale.setInt("random_seed", seed)
        self._ale.loadROM(rom)

    def get_action_meanings(self) -> list[str]:
        """What each action does, as ale-py names it: NOOP, FIRE, UPRIGHT, ..."""
        return [action.name for action in self._actions]

    def _action_set(self) -> list[ale_py.Action]:
        full = self._protocol.full_actions
        return list(self._ale.getLegalActionSet() if full else self._ale.getMinimalActionSet())


def _console(protocol: Protocol) -> ale_py.ALEInterface:
    # Before the first console, which would print a banner.
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", protocol.sticky)
    ale.setInt("max_num_frames_per_episode", EPISODE_FRAMES)
    return ale
