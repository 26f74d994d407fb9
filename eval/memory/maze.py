"""What a world model remembers of a maze: spatial retrieval, reasoning, and frames by when their view was last seen.

After LSSVWM (arXiv 2505.20171, section 5), at any size:

- retrieval: the first half of an episode is context; the second half goes back the same way, and is imagined under the
  actions taken. What comes was seen.
- reasoning: 72 % of an episode is context (576 of 800 frames there), the rest goes on and is imagined.
- views: with all true frames before it in memory, each frame up to `HORIZON` ahead is predicted, and scored by how
  many steps ago its view was last in memory: from within `CELLS`, in about its direction.

A model trained with `worldmodel.open_loop_prob` imagines open loop: each frame is predicted from the context and the
actions since. Scores are PSNR in dB and SSIM (Wang et al. 2004, over uniform windows; `worldmodel.reconstruction.ssim`)
of the mean of sampled rollouts. Baselines: the last context frame repeated, and the mean of the context's frames.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from agent.logging.plots import colour
from agent.logging.predictions import predict, psnr
from agent.training.learner import Learner
from eval.output import style, write_figure
from replay import Episode
from replay.progress import track
from worldmodel.reconstruction import ssim
from worldmodel.rollout import imagine, observe_episode

WINDOW = 64
"""Frames that are observed at once."""
HORIZON = 8
"""Frames ahead at which views are predicted."""
STRETCH = 25
"""Imagined frames that a point of the curve is the mean of."""
SOON = 50
"""Imagined frames that are scored apart as well, before long rollouts lose their way."""
CELLS, DEGREES = 0.5, 20.0
"""How near in place and direction two frames show the same view."""
BINS = {"1-15": (1, 15), "16-63": (16, 63), "64-255": (64, 255), "256-": (256, 1 << 30), "never": (0, 0)}
"""Steps since a view was last seen, both ends included."""
TASKS = {"retrieval": "the way back, imagined", "reasoning": "the way on, imagined"}
BASELINES = {"repeat": ("--", "last frame repeated"), "mean": (":", "mean of the context")}

Scores = dict[str, dict[str, Any]]
"""`psnr`, `ssim` and `frames`, by predictor or by view; of whole rollouts `curve` too, PSNR by `STRETCH`."""


@torch.no_grad()
def continued(learner: Learner, episodes: Sequence[Episode], share: float, rollouts: int = 8) -> Scores:
    """Predicts the rest of episodes of one length after `share` of their frames.

    By the `model` (its first `SOON` frames apart, as `soon`), and by the baselines `repeat` and `mean`.
    """
    batch = learner.episodes(episodes)
    count, length = batch.shape
    context = int(length * share)
    model = learner.model
    with learner.autocast():
        state = observe_episode(model, batch[:, :context], model.initial(count), WINDOW, sample=False).last_state
        action = batch.action[:, context:].transpose(0, 1).repeat(1, rollouts, 1)  # (H, rollouts * count, A)
        imagined = imagine(model, torch.cat([state] * rollouts), action, length - context, decode=True, open_loop=True)
    predicted = imagined.observation.unflatten(1, (rollouts, count)).mean(1).transpose(0, 1)  # (count, H, ...)
    truth = batch.observation.float() / 255
    future = truth[:, context:]
    answers = {
        "model": predicted,
        "repeat": truth[:, context - 1 : context].expand_as(future),
        "mean": truth[:, :context].mean(1, keepdim=True).expand_as(future),
    }
    scores = {name: _scores(answer, future) | {"curve": _curve(answer, future)} for name, answer in answers.items()}
    return scores | {"soon": _scores(predicted[:, :SOON], future[:, :SOON])}


@torch.no_grad()
def by_view(learner: Learner, episodes: Sequence[Episode]) -> Scores:
    """Frames up to `HORIZON` ahead, by steps since their view was last seen: by a name of `BINS`."""
    since, predicted, truth = [], [], []
    for episode in track(episodes, "episodes", "views"):
        windows = predict(learner, episode, HORIZON, dreams=4)
        frames = windows.index[:, None].cpu() + torch.arange(1, HORIZON + 1)
        since.append(steps_since(episode.labels, windows.index.cpu().numpy(), frames.numpy()).ravel())
        predicted.append(windows.expected.flatten(0, 1))
        truth.append(windows.truth.flatten(0, 1))
    steps, guess, real = np.concatenate(since), torch.cat(predicted), torch.cat(truth)
    masks = {name: (steps >= low) & (steps <= high) for name, (low, high) in BINS.items()}
    return {name: _scores(guess[mask], real[mask]) for name, mask in masks.items() if mask.any()}


def steps_since(labels: Mapping[str, np.ndarray], last: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """For each of `frames` (W, H), steps since its view was seen in the frames up to `last` (W,); 0: never."""
    place, direction = labels["agent_pos"], labels["agent_dir"]
    near = np.linalg.norm(place[frames][:, :, None] - place, axis=-1) <= CELLS  # (W, H, L)
    same = direction[frames] @ direction.T >= np.cos(np.radians(DEGREES))
    seen = near & same & (np.arange(len(place)) <= last[:, None, None])
    latest = len(place) - 1 - seen[..., ::-1].argmax(-1)
    return np.where(seen.any(-1), frames - latest, 0)


def _curve(predicted: Tensor, truth: Tensor) -> list[float]:
    """PSNR of (count, frames, ...) in stretches of `STRETCH` frames, the last with what is left."""
    return [round(float(part.mean()), 3) for part in psnr(predicted, truth).split(STRETCH, 1)]


def _scores(predicted: Tensor, truth: Tensor) -> dict[str, Any]:
    count = truth.shape[:-3].numel()
    return {"psnr": float(psnr(predicted, truth).mean()), "ssim": float(ssim(predicted, truth)), "frames": count}


def print_table(results: Sequence[dict[str, Any]]) -> None:
    """Results of `eval.retention`, a line for each run and each baseline: SSIM / PSNR."""

    def line(name: str, scores: Sequence[Mapping[str, float] | None]) -> None:
        cells = ["" if score is None else f"{score['ssim']:.3f} / {score['psnr']:.1f}" for score in scores]
        print(f"{name:24s}" + "".join(f"{cell:>14s}" for cell in cells))

    views = list(dict.fromkeys(name for result in results for name in result["views"]))
    head = ["retrieval", f"first {SOON}", "reasoning", f"first {SOON}", *views]
    print("SSIM / PSNR of imagined frames; by steps since a view was last seen, up to 8 frames ahead")
    print(" " * 24 + "".join(f"{name:>14s}" for name in head))
    for result in results:
        scores = [result[task][part] for task in TASKS for part in ("model", "soon")]
        line(result["run"], scores + [result["views"].get(name) for name in views])
    for name in BASELINES:
        line(name, [score for task in TASKS for score in (results[0][task][name], None)])


def plot(results: Sequence[dict[str, Any]], out: Path) -> None:
    """A panel a task and one of views, a colour a model: the mean of its seeds."""
    labels = list(dict.fromkeys(result["label"] for result in results))
    seeds = {label: [result for result in results if result["label"] == label] for label in labels}
    figure = Figure(figsize=(13, 3.9), dpi=130, layout="constrained")
    *rollouts, views = figure.subplots(1, 3)
    for axes, (task, title) in zip(rollouts, TASKS.items(), strict=True):
        for i, label in enumerate(labels):
            _draw(axes, seeds[label], task, "model", "-", colour(i), label)
        for name, (line, words) in BASELINES.items():
            _draw(axes, results[:1], task, name, line, "0.4", words)
        axes.set(xlabel="frames imagined", title=title)
    for i, label in enumerate(labels):
        found = [[result["views"].get(name, {}).get("psnr", np.nan) for name in BINS] for result in seeds[label]]
        views.plot(list(BINS), np.mean(found, 0), marker="o", color=colour(i), linewidth=1.8, markersize=4)
    views.set(xlabel="steps since the view was seen", title="up to 8 frames ahead")
    for axes in (*rollouts, views):
        style(axes)
    rollouts[0].set_ylabel("PSNR (dB)")
    handles = rollouts[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=6, fontsize=8, frameon=False)
    write_figure(out, figure)


def _draw(
    axes: Axes, results: Sequence[dict[str, Any]], task: str, name: str, line: str, shade: str, words: str
) -> None:
    """The mean curve of these, by the middle of each stretch."""
    curve = np.mean([result[task][name]["curve"] for result in results], 0)
    axes.plot((np.arange(len(curve)) + 0.5) * STRETCH, curve, line, color=shade, linewidth=1.6, label=words)
