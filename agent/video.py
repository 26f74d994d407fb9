"""The open-loop video: truth, prediction and error side by side; a coloured bar tells context from prediction."""

from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import torch

from agent.files import replace_atomically
from agent.learner import Learner
from agent.openloop import predict
from replay import Episode

CONTEXT, PREDICTED = (60, 160, 60), (215, 120, 30)
"""Bar colours: frames that the model saw; frames that it imagines."""


def openloop_video(
    learner: Learner, episode: Episode, path: Path, horizon: int = 45, windows: int = 4, zoom: int = 3
) -> None:
    """Writes an mp4 of `windows` windows, one below another, chosen evenly through the episode.

    Each shows up to 15 true frames of context, then `horizon` predicted ones, three columns: truth, model, error.
    """
    context = 15
    predictions = predict(learner, episode, horizon)
    count = len(predictions.truth)
    chosen = np.unique(np.linspace(0, count - 1, min(windows, count)).astype(int))
    strips = []
    for w in chosen:
        at = int(predictions.index[w])
        before = torch.from_numpy(episode.observation[max(0, at - context + 1) : at + 1]).float() / 255
        if len(before) < context:
            before = torch.cat([before[:1].expand(context - len(before), *before.shape[1:]), before])
        truth = torch.cat([before, predictions.truth[w].cpu()])
        model = torch.cat([before, predictions.predicted[w].cpu()])
        strips.append(torch.cat([truth, model, (truth - model).abs()], 2))
    frames = (torch.cat(strips, 1).numpy() * 255).round().astype(np.uint8)  # (time, rows, columns, C)
    if frames.shape[-1] == 1:
        frames = frames.repeat(3, -1)
    frames = frames.repeat(zoom, 1).repeat(zoom, 2)
    bar = np.empty((len(frames), 8, frames.shape[2], 3), np.uint8)
    bar[:context], bar[context:] = CONTEXT, PREDICTED
    frames = np.concatenate([bar, frames], 1)
    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2  # the codec wants even sizes
    frames = frames[:, :height, :width]
    replace_atomically(path, lambda out: imageio.mimwrite(out, list(frames), fps=8, quality=7, macro_block_size=1))
