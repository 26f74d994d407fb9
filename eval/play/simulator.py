"""A world model that imagines for one person: its State, and what can be read from it."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agent.training.learner import Learner
from eval.play.past import Past
from worldmodel import State
from worldmodel.lssvwm_config import LAYER_TYPES
from worldmodel.rollout import imagine, observe_episode

WINDOW = 64
"""Frames that are observed at once."""


@dataclass(frozen=True)
class View:
    """The frame that a State stands at, as the model predicts it."""

    image: np.ndarray  # (H, W, C) uint8, or a vector (V,) float32
    reward: float | None  # expected; None where it is not finite
    continue_prob: float | None  # probability that the episode goes on


class Simulator:
    """One person's State and its view; the learner is shared, and never changed."""

    def __init__(self, learner: Learner, past: Past):
        self.learner = learner
        self.seconds = 0.0
        """What the last imagined frame took, its image included."""
        self.observe(past)

    @torch.no_grad()
    def observe(self, past: Past) -> None:
        """Observes a past from its first frame on; what was in memory before is gone."""
        model = self.learner.model
        with self.learner.autocast():
            batch = past.batch(self.learner)
            self.state = observe_episode(
                model, batch, model.initial(1), WINDOW, sample=False, only_last=True
            ).last_state
            feature = model.feature(self.state)
            self.view = _view(model.decode(feature), model.reward(feature), model.continue_prob(feature))
        self.frames = len(past)
        """How many frames are in memory."""

    def step(self, action: np.ndarray, sample: bool) -> None:
        """Imagines one frame after `action` (A,); without `sample`, by the most likely latents."""
        start = time.perf_counter()
        given = torch.from_numpy(action).to(self.learner.device)[None, None]
        with self.learner.autocast():
            imagined = imagine(self.learner.model, self.state, given, 1, sample, decode=True)
        self.state, self.frames = imagined.state, self.frames + 1
        self.view = _view(imagined.observation[0], imagined.reward[0], imagined.continue_prob[0])
        self.seconds = time.perf_counter() - start

    def reset_memory(self) -> None:
        """Resets what `remembered` names to that of `initial`.

        The frame's own features stay, and so does its image: in imagination there is no real frame to observe again,
        and the next frame can come from these and the action alone. Where h is all the memory, only latents stay.
        """
        empty = self.learner.model.initial(1)
        self.state, self.frames = self.state.copy().update(empty.select(*remembered(self.state))), 0

    def norms(self) -> dict[str, dict[str, float | None]]:
        """Euclidean norms in memory, `{layer 1: {block_scan ssm: 3.2, ...}, ...}`; flags are left out."""
        state = self.state
        memory = state["memory"] if "memory" in state.keys() else state.select(*remembered(state))
        leaves = {key: leaf for key, leaf in memory.items(True, True) if leaf.is_floating_point()}
        values = torch.stack([leaf.float().norm() for leaf in leaves.values()]).tolist() if leaves else []
        mixers = LAYER_TYPES.get(self.learner.config.worldmodel.name, ())
        found: dict[str, dict[str, float | None]] = {}
        for key, value in zip(leaves, values, strict=True):
            layer, *rest = (key,) if isinstance(key, str) else key
            layer = f"layer {int(layer) + 1}" if layer.isdecimal() else layer
            first, *others = rest or ["memory"]
            if first.isdecimal() and int(first) < len(mixers):
                first = mixers[int(first)]
            found.setdefault(layer, {})[" ".join([first, *others])] = number(value)
        return found


def remembered(state: State) -> list[str]:
    """What of a State holds the past: `memory`, or, of a model without one (`rssm`), all but the latents z."""
    return ["memory"] if "memory" in state.keys() else [name for name in state.keys() if name != "z"]


def number(x: float) -> float | None:
    """To five digits; None where it is not finite, for which JSON has no number."""
    return float(f"{x:.5g}") if math.isfinite(x) else None


def _view(decoded: Tensor, reward: Tensor, continue_prob: Tensor) -> View:
    """Of batches of one."""
    image = decoded[0].float()
    if image.ndim == 3:
        image = (image.nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8)
    return View(image.cpu().numpy(), number(float(reward[0])), number(float(continue_prob[0])))
