"""What a world model remembers of a maze: spatial retrieval, reasoning, and frames by when their view was last seen.

After LSSVWM (arXiv 2505.20171, section 5), at any size:

- retrieval: the first half of an episode is context; the second half goes back the same way, and is imagined under the
  actions taken. What comes was seen.
- reasoning: 72 % of an episode is context (576 of 800 frames there), the rest goes on and is imagined.
- views: with all true frames before it in memory, each frame up to `HORIZON` ahead is predicted, and scored by how
  many steps ago its view was last in memory: from within `CELLS`, in about its direction.

A model trained with `worldmodel.open_loop_prob` imagines open loop: each frame is predicted from the context and the
actions since. Scores are PSNR in dB and SSIM (Wang et al. 2004, over uniform windows; `worldmodel.reconstruction.ssim`)
of the mean of sampled rollouts, and PSNR of one rollout at its most likely latents (`mode`). Beside them, over the same
frames: the model with all but the last `WIPED` context frames left out of memory (`wiped`), its reconstruction of the
true frames (`reconstruction`: the tokenizer's ceiling), and the predictors of `eval.memory.predictors`, which know
frames and poses alone. Scores by gap are by frames since the view was last seen in the context. `remembrance` is the
curve of `predictors.remembrance`: how far the predictions depend on frames before the last n.
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
from eval.memory import predictors
from eval.memory.visibility import BINS, steps_since
from eval.output import style, write_figure
from replay import Episode
from replay.progress import track
from worldmodel import SequenceBatch
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
TASKS = {"retrieval": "the way back, imagined", "reasoning": "the way on, imagined"}
WIPED = 64
"""Context frames that are in memory where the rest is left out."""
BASELINES = {
    "repeat": ("--", "last frame repeated"),
    "mean": (":", "mean of the context"),
    "heading": ("-.", "heading known"),
    "pose_kernel": ((0, (5, 1)), "pose known"),
}
"""Drawn beside the models: line style and words."""

Scores = dict[str, dict[str, Any]]
"""`psnr`, `ssim` and `frames`, by predictor or by view; of whole rollouts `curve` too, PSNR by `STRETCH`."""


@torch.no_grad()
def continued(learner: Learner, episodes: Sequence[Episode], share: float, rollouts: int = 8) -> Scores:
    """Predicts the rest of episodes of one length after `share` of their frames; scores by predictor.

    By the `model` (its first `SOON` frames apart, as `soon`) and by all that the module names beside it.
    """
    batch = learner.episodes(episodes)
    count, length = batch.shape
    context = int(length * share)
    model = learner.model
    action = batch.action[:, context:].transpose(0, 1)  # (H, count, A)

    def rollout(last: int | None, times: int = rollouts, sample: bool = True) -> Tensor:
        """(count, H, ...): the mean of so many rollouts, with the last so many context frames in memory, None: all."""
        seen = batch[:, max(0, context - (last or context)) : context].clone()
        seen.is_first[:, 0] = True
        with learner.autocast():
            output = observe_episode(model, seen, model.initial(count), WINDOW, sample=False, only_last=True)
            starts = torch.cat([output.last_state] * times)
            imagined = imagine(model, starts, action.repeat(1, times, 1), len(action), sample, True, open_loop=True)
        return imagined.observation.float().unflatten(1, (times, count)).mean(1).transpose(0, 1).cpu()

    truth = batch.observation.float().cpu() / 255
    future = truth[:, context:]
    answers = {"model": rollout(None), "wiped": rollout(WIPED), "mode": rollout(None, 1, sample=False)}
    answers["reconstruction"] = torch.cat([_reconstructed(learner, batch[i : i + 1], context) for i in range(count)])
    found = [predictors.predictions(truth[i], e.labels, context) for i, e in enumerate(episodes)]
    answers |= {name: torch.stack([predicted[name] for predicted in found]) for name in found[0]}
    gaps = np.concatenate([predictors.gap(e.labels, context, length - context) for e in episodes])
    scores = {}
    for name, answer in answers.items():
        by_gap = predictors.by_gap(psnr(answer, future).flatten(), gaps)
        scores[name] = _scores(answer, future) | {"curve": _curve(answer, future), "by_gap": by_gap}
    curve = predictors.remembrance(
        lambda last: rollout(last, 1, sample=False), [n for n in predictors.LENGTHS if n < context]
    )
    soon = _scores(answers["model"][:, :SOON], future[:, :SOON])
    return scores | {"soon": soon, "remembrance": {str(n): distance for n, distance in curve.items()}}


def _reconstructed(learner: Learner, batch: SequenceBatch, context: int) -> Tensor:
    """(1, H, ...): the frames of one episode after `context`, decoded from features that have observed them."""
    model = learner.model
    with learner.autocast():
        output = observe_episode(model, batch, model.initial(1), WINDOW, sample=False)
        return model.decode(output.feature[:, context:]).float().clamp(0, 1).cpu()


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
    for task, words in TASKS.items():
        rows = {f"{result['run']} {name}".removesuffix(" model"): result[task][name]["by_gap"]
                for result in results for name in ("model", "mode", "wiped", "reconstruction")}  # fmt: skip
        names = [*predictors.PREDICTORS, "best_frame"]
        print(f"\n{task}: {words}")
        print(predictors.table(rows | {name: results[0][task][name]["by_gap"] for name in names}))


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
    axes: Axes, results: Sequence[dict[str, Any]], task: str, name: str, line: Any, shade: str, words: str
) -> None:
    """The mean curve of these, by the middle of each stretch."""
    curve = np.mean([result[task][name]["curve"] for result in results], 0)
    axes.plot((np.arange(len(curve)) + 0.5) * STRETCH, curve, linestyle=line, color=shade, linewidth=1.6, label=words)
