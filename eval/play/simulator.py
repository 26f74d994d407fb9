"""A world model that dreams for one person: its State, and what can be read from it."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agent.training.learner import Learner
from eval.play.past import Past
from worldmodel import State
from worldmodel.lssvwm import LAYER_TYPES

WINDOW = 64
"""Frames that are observed at once."""


@dataclass(frozen=True)
class View:
    """The frame that a State stands at, as the model sees it."""

    picture: np.ndarray  # (H, W, C) uint8, or (V,) float32
    reward: float | None  # expected; None where it is no number
    continue_prob: float | None  # probability that the episode goes on
    norms: dict[str, dict[str, float | None]]  # by layer, then by what its memory holds


class Simulator:
    """The State of one walk; the learner is shared, and never changed."""

    def __init__(self, learner: Learner):
        self.learner = learner
        self.state = learner.model.initial(1)
        self.frames = 0
        """How many went into its memory since the beginning, or since it was wiped."""
        self.seconds = 0.0
        """What the last imagined frame took, its picture included."""

    @torch.no_grad()
    def observe(self, past: Past) -> None:
        """Takes in the rows of a past from its first frame on; what was in memory before is gone."""
        state = self.learner.model.initial(1)
        rows = past.rows(self.learner)
        with self.learner.autocast():
            for begin in range(0, len(past), WINDOW):
                state = self.learner.model.observe(rows[:, begin : begin + WINDOW], state, sample=False).last_state
        self.state, self.frames = state, len(past)

    @torch.no_grad()
    def step(self, action: np.ndarray, mode: bool) -> None:
        """One imagined frame after `action` (A,); `mode` takes the most likely latents in place of samples."""
        with self.learner.autocast():
            given = torch.from_numpy(action).to(self.learner.device).unsqueeze(0)
            self.state = self.learner.model.dream(self.state, given, mode)
        self.frames += 1

    def wipe(self) -> None:
        """Forgets all but the frame that it stands at: what `remembered` names becomes that of `initial`.

        The frame's own features stay, and so does the picture, for in a dream there is no real frame to look at anew:
        the next frame can come from these and the action alone. Where h is all the memory there is, latents alone stay.
        """
        empty = self.learner.model.initial(1)
        self.state, self.frames = self.state.copy().update(empty.select(*remembered(self.state))), 0

    @torch.no_grad()
    def view(self) -> View:
        """What the model makes of the frame it stands at."""
        model = self.learner.model
        with self.learner.autocast():
            feature = model.feature(self.state)
            decoded = model.decode(feature)[0].float()
            figures = torch.stack([model.reward(feature)[0].float(), model.continue_prob(feature)[0].float()])
        reward, continue_prob = (number(x) for x in figures.tolist())
        return View(_picture(decoded), reward, continue_prob, norms(self.state, self.learner.config.worldmodel.name))

    def step_and_view(self, action: np.ndarray, mode: bool) -> View:
        """Both, timed."""
        start = time.perf_counter()
        self.step(action, mode)
        view = self.view()
        self.seconds = time.perf_counter() - start
        return view


def remembered(state: State) -> list[str]:
    """What of a State holds the past: `memory`, or, of a model without one (`rssm`), all but the latents z."""
    return ["memory"] if "memory" in state.keys() else [name for name in state.keys() if name != "z"]


def norms(state: State, model: str) -> dict[str, dict[str, float | None]]:
    """Euclidean norms of what stands in memory: `{layer 1: {blocks ssm: 3.2, ...}, ...}`; flags are left out."""
    memory = state["memory"] if "memory" in state.keys() else state.select(*remembered(state))
    leaves = {key: leaf for key, leaf in memory.items(True, True) if leaf.is_floating_point()}
    values = torch.stack([leaf.float().norm() for leaf in leaves.values()]).tolist() if leaves else []
    found: dict[str, dict[str, float | None]] = {}
    for key, value in zip(leaves, values, strict=True):
        layer, *rest = (key,) if isinstance(key, str) else key
        layer = f"layer {int(layer) + 1}" if layer.isdecimal() else layer
        found.setdefault(layer, {})[_spelt(rest, model)] = number(value)
    return found


def _spelt(rest: list[str], model: str) -> str:
    """(0, ssm) -> `blocks ssm`: the mixer in words, where the model's mixers are known."""
    mixers = LAYER_TYPES.get(model, ())
    first, *others = rest or ["memory"]
    if first.isdecimal() and int(first) < len(mixers):
        first = mixers[int(first)]
    return " ".join([first, *others])


def number(x: float) -> float | None:
    """To five digits, as JSON takes it: it has no word for what is not finite."""
    return float(f"{x:.5g}") if math.isfinite(x) else None


def _picture(decoded: Tensor) -> np.ndarray:
    """(H, W, C) in 0..1 -> uint8; vectors stay."""
    if decoded.ndim == 3:
        decoded = (decoded.nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8)
    return decoded.cpu().numpy()
