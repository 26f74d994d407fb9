"""One visitor: what the buttons and keys do, and what the page is sent after each."""

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
from eval.play.past import Past, recorded
from eval.play.real import RealEnvironment
from eval.play.simulator import Simulator, number

MOST_OBSERVED = 2000
"""Frames of a past at most: some seconds of observing."""

MEMORY_RESET = None
"""Stands for a reset of memory among the actions."""

Message = dict[str, Any]


class Session:
    """One visitor's State, real environment and actions; for one thread.

    `do` takes what the page sent and gives what it is to show. Its errors are the person's to read: ConfigError,
    CheckpointError, and what environments and files raise.
    """

    def __init__(self, models: Models, episodes: Path | None = None):
        self.models, self.episodes = models, episodes
        self.index = 0
        loaded = models.get(0)
        self.step, self.note = loaded.step, loaded.note
        self.real = RealEnvironment(models.environment)
        self.shows_real, self.sample = False, True
        self.past: Past = self._play_real({"frames": 1})
        self.simulator = Simulator(loaded.learner, self.past)
        self.actions: list[np.ndarray | None] = []
        """Since the past, and resets of memory."""
        self._resets = 0
        self._followed = 0
        """Of the actions, how many the real environment has taken."""
        self._commands: dict[str, Callable[[Message], None]] = {
            "look": lambda _: None,
            "act": self._act,
            "new": lambda message: self._start(self._play_real(message)),
            "recorded": lambda message: self._start(self._load_recorded(message)),
            "restart": lambda _: self._restart(),
            "reset_memory": lambda _: self._reset_memory(),
            "real": self._toggle_real,
            "latents": self._set_sample,
            "model": lambda message: self._choose(_whole(message, "index", 0, len(models.names) - 1), again=False),
            "newest": lambda _: self._choose(self.index, again=True),
        }

    def hello(self) -> dict[str, Any]:
        """What the page needs once: the environment, its actions, and the runs to choose from."""
        return {
            "environment": self.models.environment,
            "models": self.models.names,
            "actions": asdict(self.real.actions),
        }

    def do(self, message: Message) -> bytes:
        """Does what a message's `do` says; returns the frame to show, as `packed` writes it."""
        command = self._commands.get(str(message.get("do")))
        if command is None:
            raise ConfigError(f"unknown command {message.get('do')!r}: one of {', '.join(self._commands)}")
        start = time.perf_counter()
        command(message)
        images = [self.simulator.view.image] + ([self._real_frame()] if self.shows_real else [])
        return packed(self._header(), images, start)

    def close(self) -> None:
        """In the session's thread."""
        self.real.close()

    def _act(self, message: Message) -> None:
        action = self._action(message.get("action"))
        self.simulator.step(action, self.sample)
        self.actions.append(action)

    def _action(self, given: Any) -> np.ndarray:
        """(A,): one-hot, or values in -1..1. A ConfigError where it is none of the environment's."""
        width = self.real.width
        if self.real.actions.continuous:
            if not (isinstance(given, list) and len(given) == width and all(_in_unit_range(value) for value in given)):
                raise ConfigError(f"an action here is {width} numbers from -1 to 1, not {given!r}")
            return np.array(given, np.float32)
        if type(given) is not int or not 0 <= given < width:
            raise ConfigError(f"an action here is a number from 0 to {width - 1}, not {given!r}")
        return np.eye(width, dtype=np.float32)[given]

    def _play_real(self, message: Message) -> Past:
        """A new episode, on a seed that training never uses."""
        seed = SEEDS + random.randrange(1_000_000) if "seed" not in message else _whole(message, "seed", 0, 2**31 - 1)
        return self.real.begin(seed, _whole(message, "frames", 1, MOST_OBSERVED))

    def _load_recorded(self, message: Message) -> Past:
        folder = self.episodes or self.models.folders[self.index] / "episodes"
        past = recorded(folder, _whole(message, "frames", 1, MOST_OBSERVED))
        found, wanted = past.observation.shape[1:], self.real.environment.observation_space.shape
        if found != wanted or past.action.shape[1] != self.real.width:
            raise ConfigError(
                f"{folder}: observations {found} and {past.action.shape[1]} actions, not those of "
                f"{self.models.environment}: name another folder by --episodes"
            )
        return past

    def _start(self, past: Past) -> None:
        """The model observes a past and imagines from there."""
        self.past, self.actions, self._resets, self._followed = past, [], 0, 0
        self.simulator.observe(past)

    def _restart(self) -> None:
        if self.past.seed is not None:
            self.real.begin(self.past.seed, len(self.past))
        self._start(self.past)

    def _reset_memory(self) -> None:
        self.simulator.reset_memory()
        self.actions.append(MEMORY_RESET)
        self._resets += 1

    def _toggle_real(self, message: Message) -> None:
        self.shows_real = message.get("on") is True

    def _set_sample(self, message: Message) -> None:
        self.sample = message.get("sample") is True

    def _choose(self, index: int, again: bool) -> None:
        """Another model, or a newer checkpoint: it observes the same past, then imagines the same actions."""
        loaded = self.models.get(index, again)
        self.index, self.step, self.note = index, loaded.step, loaded.note
        self.simulator = Simulator(loaded.learner, self.past)
        for action in self.actions:
            if action is MEMORY_RESET:
                self.simulator.reset_memory()
            else:
                self.simulator.step(action, self.sample)

    def _real_frame(self) -> np.ndarray:
        """The real environment's frame after the same actions; of a recording, the last frame observed."""
        if self.past.seed is None:
            return self.past.observation[-1]
        for action in self.actions[self._followed :]:
            if action is not MEMORY_RESET:
                self.real.step(action)
        self._followed = len(self.actions)
        return self.real.observation

    def _header(self) -> dict[str, Any]:
        view = self.simulator.view
        return {
            "model": self.index,
            "step": self.step,
            "note": self.note,
            "past": self.past.words,
            "observed": len(self.past),
            "imagined": len(self.actions) - self._resets,
            "memory_frames": self.simulator.frames,
            "memory_resets": self._resets,
            "reward": view.reward,
            "continue_prob": view.continue_prob,
            "norms": self.simulator.norms(),
            "model_ms": round(1000 * self.simulator.seconds, 2),
            "sample": self.sample,
            "real": self._real_state() if self.shows_real else None,
        }

    def _real_state(self) -> dict[str, Any]:
        if self.past.seed is None:
            return {"words": "last observed frame: a real environment cannot be set to a recording", "reward": None}
        ended = f"the episode has ended ({self.real.ended})" if self.real.ended else "under the same actions"
        return {"words": ended, "reward": number(self.real.reward)}


def packed(header: dict[str, Any], images: list[np.ndarray], start: float) -> bytes:
    """One binary message: the header's length (4 bytes, big-endian), the header as JSON, the images.

    `images` in the header describes each: {"bytes": n} for a PNG that follows, {"values": [...]} for a vector.
    `server_ms` is the time since `start`.
    """
    parts: list[bytes] = []
    described: list[dict[str, Any]] = []
    for image in images:
        if image.ndim == 3:
            parts.append(_png(image))
            described.append({"bytes": len(parts[-1])})
        else:
            described.append({"values": [number(float(value)) for value in image]})
    header = header | {"images": described, "server_ms": round(1000 * (time.perf_counter() - start), 2)}
    text = json.dumps(header, allow_nan=False).encode()
    return b"".join([len(text).to_bytes(4, "big"), text, *parts])


def _png(image: np.ndarray) -> bytes:
    """(H, W, 3 or 1) uint8; lightly compressed, for it does not leave this machine."""
    out = io.BytesIO()
    Image.fromarray(image if image.shape[2] == 3 else image[..., 0]).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _whole(message: Message, name: str, low: int, high: int) -> int:
    """A whole number of a message; a ConfigError where it is none, or outside its range."""
    value = message.get(name)
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name} wants a whole number from {low} to {high}, not {value!r}")
    return value


def _in_unit_range(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= 1
