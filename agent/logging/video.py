"""Videos of open-loop predictions and dreams: a bar is green over observed frames, orange over imagined ones."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
from torch import Tensor

from agent.logging.predictions import MOVING_DB, Predictions, predict, psnr
from agent.training.learner import Learner
from replay import Episode
from replay.atomic import replace_atomically
from worldmodel import SequenceBatch
from worldmodel.rollout import imagine, observe_episode

CONTEXT = 15
"""Observed frames that a video begins with."""

OBSERVED, IMAGINED = (60, 160, 60), (215, 120, 30)
"""Colours of the bar."""


def openloop_video(
    learner: Learner, episode: Episode, path: Path, horizon: int = 45, windows: int = 4, zoom: int = 3
) -> None:
    """Writes an mp4 of `windows` predictions at most, one below another, spread evenly over the episode.

    Columns: truth, model, error. Each shows `CONTEXT` true frames, the first repeated where the episode has fewer, then
    `horizon` predicted ones.
    """
    predictions = predict(learner, episode, horizon, dreams=1, most=windows)
    strips = []
    for w, at in enumerate(predictions.index.tolist()):
        frames = np.arange(at - CONTEXT + 1, at + 1).clip(0)
        before = torch.from_numpy(episode.observation[frames]).float() / 255
        truth = torch.cat([before, predictions.truth[w].cpu()])
        model = torch.cat([before, predictions.predicted[w].cpu()])
        strips.append(torch.cat([truth, model, (truth - model).abs()], 2))
    _write(torch.cat(strips, 1), CONTEXT, path, zoom)


@torch.no_grad()
def dream_video(
    learner: Learner, past: SequenceBatch, path: Path, horizon: int = 60, dreams: int = 4, zoom: int = 3
) -> None:
    """Writes an mp4 of `dreams` sampled dreams side by side, all from the same `past` (1, T): an episode's first rows.

    Each shows the last `CONTEXT` frames of the past, then `horizon` frames in which the policy acts.
    """
    model = learner.model
    with learner.autocast():
        state = observe_episode(model, past, model.initial(1), past.shape[1], sample=False).last_state
        states = torch.cat([state] * dreams)
        imagined = imagine(model, states, learner.agent.act, horizon, decode=True).observation
    before = past.observation[:, -CONTEXT:].float() / 255
    clips = torch.cat([before.repeat(dreams, 1, 1, 1, 1), imagined.transpose(0, 1)], 1)  # (dreams, time, h, w, C)
    _write(torch.cat(list(clips.cpu()), 2), before.shape[1], path, zoom)


def _write(clip: Tensor, context: int, path: Path, zoom: int) -> None:
    """An mp4 of frames (time, rows, columns, C) in 0..1, of which the first `context` were observed."""
    frames = (clip.numpy() * 255).round().astype(np.uint8)
    if frames.shape[-1] == 1:
        frames = frames.repeat(3, -1)
    frames = frames.repeat(zoom, 1).repeat(zoom, 2)
    bar = np.empty((len(frames), 8, frames.shape[2], 3), np.uint8)
    bar[:context], bar[context:] = OBSERVED, IMAGINED
    frames = np.concatenate([bar, frames], 1)
    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2  # the codec wants even sizes
    frames = frames[:, :height, :width]
    replace_atomically(path, lambda out: imageio.imwrite(out, frames, plugin="pyav", codec="libx264", fps=8))


def openloop_strip(predictions: Predictions, path: Path, every: int = 2, zoom: int = 2) -> None:
    """Writes a PNG of one prediction: the median, by the PSNR of its last frame, of those that move.

    Columns: the last context frame, then every `every`-th imagined one; rows: truth, model, error.
    """
    p = predictions
    moved = psnr(p.context, p.truth[:, -1]) < MOVING_DB
    candidates = moved.nonzero().flatten() if moved.any() else torch.arange(len(moved))
    order = psnr(p.predicted[candidates, -1], p.truth[candidates, -1]).argsort()
    w = candidates[order[len(order) // 2]]
    context = p.context[w].unsqueeze(0)
    truth, model = (torch.cat([context, x[w, ::every]]).cpu() for x in (p.truth, p.predicted))
    gap = torch.ones(len(truth), truth.shape[1], 2, truth.shape[3])  # white lines between the columns
    rows = [torch.cat([x, gap], 2).transpose(0, 1).flatten(1, 2) for x in (truth, model, (truth - model).abs())]
    strip = (torch.cat(rows).numpy() * 255).round().astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)
    replace_atomically(path, lambda out: imageio.imwrite(out, strip.squeeze()))
