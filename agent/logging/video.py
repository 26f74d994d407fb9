"""Prediction and dreams to look at: videos in which a coloured bar tells what was seen from what is imagined."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
from torch import Tensor

from agent.logging.predictions import MOVING_DB, Windows, predict, psnr
from agent.training.learner import Learner
from replay import Episode
from replay.atomic import replace_atomically
from worldmodel import SequenceBatch

CONTEXT, PREDICTED = (60, 160, 60), (215, 120, 30)
"""Bar colours: frames that the model saw; frames that it imagines."""


def openloop_video(
    learner: Learner, episode: Episode, path: Path, horizon: int = 45, windows: int = 4, zoom: int = 3
) -> None:
    """Writes an mp4 of at most `windows` windows, one below another, spread evenly over the episode.

    Each shows up to 15 true frames of context, then `horizon` predicted ones, three columns: truth, model, error.
    """
    context = 15
    predictions = predict(learner, episode, horizon, dreams=1, most=windows)
    strips = []
    for w, at in enumerate(predictions.index.tolist()):
        before = torch.from_numpy(episode.observation[max(0, at - context + 1) : at + 1]).float() / 255
        if len(before) < context:
            before = torch.cat([before[:1].expand(context - len(before), *before.shape[1:]), before])
        truth = torch.cat([before, predictions.truth[w].cpu()])
        model = torch.cat([before, predictions.predicted[w].cpu()])
        strips.append(torch.cat([truth, model, (truth - model).abs()], 2))
    _write(torch.cat(strips, 1), context, path, zoom)


@torch.no_grad()
def dream_video(
    learner: Learner, past: SequenceBatch, path: Path, horizon: int = 60, dreams: int = 4, zoom: int = 3
) -> None:
    """Writes an mp4 of `dreams` sampled dreams side by side, all from the same `past` (1, T): an episode's first rows.

    The policy acts in each for `horizon` frames, on what it dreams; before it, the last 15 frames of the past.
    """
    model, act = learner.model, learner.agent.act
    with learner.autocast():
        state = torch.cat([model.observe(past, model.initial(1), sample=False).last_state] * dreams)
        frames = []
        for _ in range(horizon):
            state = model.dream(state, act(model.feature(state)))
            frames.append(model.decode(model.feature(state)).clamp(0, 1))
    before = past.observation[:, -15:].float() / 255
    clips = torch.cat([before.repeat(dreams, 1, 1, 1, 1), torch.stack(frames, 1)], 1)  # (dreams, time, H, W, C)
    _write(torch.cat(list(clips.cpu()), 2), before.shape[1], path, zoom)


def _write(clip: Tensor, context: int, path: Path, zoom: int) -> None:
    """An mp4 of frames (time, rows, columns, C) in 0..1; the bar tells the first `context` from the rest."""
    frames = (clip.numpy() * 255).round().astype(np.uint8)
    if frames.shape[-1] == 1:
        frames = frames.repeat(3, -1)
    frames = frames.repeat(zoom, 1).repeat(zoom, 2)
    bar = np.empty((len(frames), 8, frames.shape[2], 3), np.uint8)
    bar[:context], bar[context:] = CONTEXT, PREDICTED
    frames = np.concatenate([bar, frames], 1)
    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2  # the codec wants even sizes
    frames = frames[:, :height, :width]
    replace_atomically(path, lambda out: imageio.imwrite(out, frames, plugin="pyav", codec="libx264", fps=8))


def openloop_strip(windows: Windows, path: Path, every: int = 2, zoom: int = 2) -> None:
    """Writes a PNG of one window, the middling one by its last frame's PSNR among those that move.

    Columns: the last context frame, then every `every`-th imagined one; rows: truth, model, error.
    """
    moved = psnr(windows.context, windows.truth[:, -1]) < MOVING_DB
    candidates = moved.nonzero().flatten() if moved.any() else torch.arange(len(moved))
    order = psnr(windows.predicted[candidates, -1], windows.truth[candidates, -1]).argsort()
    w = candidates[order[len(order) // 2]]
    context = windows.context[w].unsqueeze(0)
    truth, model = (torch.cat([context, x[w, ::every]]).cpu() for x in (windows.truth, windows.predicted))
    gap = torch.ones(len(truth), truth.shape[1], 2, truth.shape[3])  # white lines between the columns
    rows = [torch.cat([x, gap], 2).transpose(0, 1).flatten(1, 2) for x in (truth, model, (truth - model).abs())]
    strip = (torch.cat(rows).numpy() * 255).round().astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)
    replace_atomically(path, lambda out: imageio.imwrite(out, strip.squeeze()))
