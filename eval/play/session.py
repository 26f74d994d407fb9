"""One visitor's walk: what the buttons and keys do, and what the page is sent after each."""

import io
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agent.runs.fields import ConfigError
from agent.training.evaluation import SEEDS
from eval.play.models import Models
from eval.play.past import Past, played, recorded
from eval.play.real import RealEnvironment
from eval.play.simulator import Simulator, View, number

MOST_SEEN = 2000
"""Frames of a past at most: some seconds of observing."""

WIPED = None
"""In a walk, the place of an action at which memory was wiped."""


class Session:
    """One visitor's State, real environment and walk; for one thread.

    `do` takes what the page sent and gives what it is to show. Its errors are the person's to read: ConfigError,
    CheckpointError, and what environments and files raise.
    """

    def __init__(self, models: Models, episodes: Path | None = None):
        self.models, self.episodes = models, episodes
        self.index = 0
        loaded = models.get(0)
        self.step, self.note = loaded.step, loaded.note
        self.simulator = Simulator(loaded.learner)
        self.real = RealEnvironment(models.environment)
        self.shows_real = False
        self.mode = False
        self.past: Past
        self.view: View
        self.walk: list[np.ndarray | None] = []
        """Actions since the past, and where memory was wiped."""
        self._wipes = 0
        self._followed = 0
        """How much of the walk the real environment has gone along."""
        self._commands: dict[str, Callable[[dict[str, Any]], None]] = {
            "look": lambda _: None,
            "act": self._act,
            "new": self._new,
            "recorded": self._recorded,
            "restart": lambda _: self._start(),
            "wipe": self._wipe,
            "real": self._toggle_real,
            "latents": self._latents,
            "model": lambda message: self._choose(_whole(message, "index", 0, len(models.names) - 1), again=False),
            "newest": lambda _: self._choose(self.index, again=True),
        }
        self._new({"frames": 1})

    def hello(self) -> dict[str, Any]:
        """What the page needs to know once: the environment, its actions, and the runs to choose from."""
        return {
            "environment": self.models.environment,
            "models": self.models.names,
            "actions": asdict(self.real.actions),
        }

    def do(self, message: dict[str, Any]) -> bytes:
        """Does what a message's `do` says; gives the frame to show, as `packed` writes it."""
        command = self._commands.get(str(message.get("do")))
        if command is None:
            raise ConfigError(f"unknown command {message.get('do')!r}: one of {', '.join(self._commands)}")
        start = time.perf_counter()
        command(message)
        pictures = [self.view.picture] + ([self._beside()] if self.shows_real else [])
        header = self._header()
        return packed(header, pictures, start)

    def close(self) -> None:
        """In the session's thread."""
        self.real.close()

    def _act(self, message: dict[str, Any]) -> None:
        action = self._action(message.get("action"))
        self.view = self.simulator.step_and_view(action, self.mode)
        self.walk.append(action)

    def _action(self, given: Any) -> np.ndarray:
        """(A,): one-hot, or values in -1..1. A ConfigError where it is none of the environment's."""
        actions, width = self.real.actions, self.real.width
        if actions.continuous:
            if not (isinstance(given, list) and len(given) == width and all(_is_share(value) for value in given)):
                raise ConfigError(f"an action here is {width} numbers from -1 to 1, not {given!r}")
            return np.array(given, np.float32)
        if type(given) is not int or not 0 <= given < width:
            raise ConfigError(f"an action here is a number from 0 to {width - 1}, not {given!r}")
        return np.eye(width, dtype=np.float32)[given]

    def _new(self, message: dict[str, Any]) -> None:
        """A new episode, on a seed that no training uses."""
        seed = SEEDS + random.randrange(1_000_000) if "seed" not in message else _whole(message, "seed", 0, 2**31 - 1)
        rows = self.real.begin(seed, _whole(message, "frames", 1, MOST_SEEN))
        self._start(played(rows, seed))

    def _recorded(self, message: dict[str, Any]) -> None:
        folder = self.episodes or self.models.folders[self.index] / "episodes"
        past = recorded(folder, _whole(message, "frames", 1, MOST_SEEN))
        found, wanted = past.observation.shape[1:], self.real.environment.observation_space.shape
        if found != wanted or past.action.shape[1] != self.real.width:
            raise ConfigError(
                f"{folder}: observations {found} and {past.action.shape[1]} actions, not those of "
                f"{self.models.environment}: name another folder by --episodes"
            )
        self._start(past)

    def _start(self, past: Past | None = None) -> None:
        """The model sees a past, without one the last one again, and dreams from there."""
        if past is not None:
            self.past = past
        elif self.past.seed is not None:
            self.real.begin(self.past.seed, len(self.past))
        self.walk, self._wipes, self._followed = [], 0, 0
        self.simulator.observe(self.past)
        self.view = self.simulator.view()

    def _wipe(self, message: dict[str, Any]) -> None:
        self.simulator.wipe()
        self.view = self.simulator.view()
        self.walk.append(WIPED)
        self._wipes += 1

    def _toggle_real(self, message: dict[str, Any]) -> None:
        self.shows_real = message.get("on") is True

    def _latents(self, message: dict[str, Any]) -> None:
        self.mode = message.get("mode") is True

    def _choose(self, index: int, again: bool) -> None:
        """Another model, or a newer checkpoint: it sees the same past, then dreams the same walk."""
        loaded = self.models.get(index, again)
        self.index, self.step, self.note = index, loaded.step, loaded.note
        self.simulator = Simulator(loaded.learner)
        self.simulator.observe(self.past)
        for action in self.walk:
            if action is WIPED:
                self.simulator.wipe()
            else:
                self.simulator.step(action, self.mode)
        self.view = self.simulator.view()

    def _beside(self) -> np.ndarray:
        """The real environment's frame after the same actions; of a recording, the last frame that was seen."""
        if self.past.seed is None:
            return self.past.observation[-1]
        for action in self.walk[self._followed :]:
            if action is not WIPED:
                self.real.step(action)
        self._followed = len(self.walk)
        return self.real.observation

    def _header(self) -> dict[str, Any]:
        imagined = len(self.walk) - self._wipes
        return {
            "model": self.index,
            "step": self.step,
            "note": self.note,
            "past": self.past.words,
            "seen": len(self.past),
            "imagined": imagined,
            "frames": self.simulator.frames,
            "wiped": self._wipes,
            "reward": self.view.reward,
            "continue_prob": self.view.continue_prob,
            "norms": self.view.norms,
            "model_ms": round(1000 * self.simulator.seconds, 2),
            "mode": self.mode,
            "real": self._real_words() if self.shows_real else None,
        }

    def _real_words(self) -> dict[str, Any]:
        if self.past.seed is None:
            return {"words": "last frame that was seen: a real one cannot be set to a recording", "reward": None}
        ended = f"the episode has ended ({self.real.ended})" if self.real.ended else "under the same actions"
        return {"words": ended, "reward": number(self.real.reward)}


def packed(header: dict[str, Any], pictures: list[np.ndarray], start: float) -> bytes:
    """One binary message: the header's length (4 bytes, big-endian), the header as JSON, the pictures.

    `pictures` in the header says what each is: {"bytes": n} for a PNG that follows, {"values": [...]} for a vector.
    `server_ms` is the time since `start`.
    """
    parts: list[bytes] = []
    described: list[dict[str, Any]] = []
    for picture in pictures:
        if picture.ndim == 3:
            parts.append(_png(picture))
            described.append({"bytes": len(parts[-1])})
        else:
            described.append({"values": [number(float(value)) for value in picture]})
    header = header | {"pictures": described, "server_ms": round(1000 * (time.perf_counter() - start), 2)}
    text = json.dumps(header, allow_nan=False).encode()
    return b"".join([len(text).to_bytes(4, "big"), text, *parts])


def _png(picture: np.ndarray) -> bytes:
    """(H, W, 3 or 1) uint8; lightly compressed, for it goes no further than this machine."""
    out = io.BytesIO()
    Image.fromarray(picture if picture.shape[2] == 3 else picture[..., 0]).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _whole(message: dict[str, Any], name: str, low: int, high: int) -> int:
    """A whole number of a message; a ConfigError where it is none, or outside its range."""
    value = message.get(name)
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name} wants a whole number from {low} to {high}, not {value!r}")
    return value


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= 1
