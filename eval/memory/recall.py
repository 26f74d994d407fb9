"""What a world model expects of the frame in which a hidden thing comes back (ObjectRecall, SceneCut).

At the return, everything about the thing must come from memory; one frame later it was just seen. Each metric stands
beside that of a frame copied from the one before, and of a control whose memory is reset in the middle of the gap.

- kl: KL in nats of the frame's latents from what memory expected (`WorldModel.kl`);
- psnr: in dB, of the frame that one imagined step decodes, with the most likely latents;
- accuracy (ObjectRecall): the share of such frames in which colour and place are both right, as the environment's
  `classify_frame` finds them: the colour and place whose clean image is nearest.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import envs
from agent.logging.plots import colour, line
from agent.logging.predictions import psnr
from agent.training.evaluation import SEEDS
from agent.training.learner import Learner
from envs.policies import RandomPolicy
from eval.episodes import record
from eval.output import style, write_figure
from replay import Episode
from replay.progress import track
from worldmodel import SequenceBatch, State
from worldmodel.rollout import imagine

AT_ONCE = 16
"""Episodes side by side: what full attention needs at long delays fits into memory."""
BACK = 3
"""The `phase` label of the frames in which the thing is back."""

Metrics = dict[str, dict[str, float]]
"""By moment, `return`, `just_seen` and `reset` (the return after memory was reset), then by name."""


def measure(learner: Learner, env: str, delay: int, episodes: int) -> Metrics:
    """Means over so many held-out episodes of random actions, at this delay."""
    classifier = envs.make(env, delay=delay)
    parts = []
    for begin in track(range(0, episodes, AT_ONCE), "batches", f"delay {delay}"):
        played = play(env, delay, min(AT_ONCE, episodes - begin), SEEDS + begin, learner.model.actions)
        parts.append(_moments(learner, classifier, played))
    classifier.close()
    return {
        moment: {name: float(np.concatenate([part[moment][name] for part in parts]).mean()) for name in names}
        for moment, names in parts[0].items()
    }


def play(env: str, delay: int, episodes: int, seed: int, actions: int) -> list[Episode]:
    """So many episodes of random actions, with labels, on the seeds from `seed` on."""
    environments = SyncVectorEnv([lambda: envs.make(env, delay=delay, labels=True)] * episodes)
    try:
        return record(RandomPolicy(actions, seed), environments, actions, seed, labels=True)
    finally:
        environments.close()


@torch.no_grad()
def _moments(learner: Learner, classifier: Any, played: list[Episode]) -> dict[str, dict[str, np.ndarray]]:
    """Metrics (episodes,) by moment and name."""
    batch = learner.episodes(played)
    phase = played[0].labels["phase"]
    back, gap = int((phase == BACK).argmax()), int((phase != 0).argmax())
    reset = (gap + back) // 2
    model, initial = learner.model, learner.model.initial(len(batch))
    with learner.autocast():
        before = model.observe(batch[:, :back], initial, sample=False).last_state
        seen = model.observe(batch[:, back : back + 1], before, sample=False).last_state
        since = batch[:, reset:back].clone()
        since.is_first[:, 0] = True
        without = model.observe(since, initial, sample=False).last_state
        return {
            "return": _metrics(learner, classifier, played, batch, back, before),
            "just_seen": _metrics(learner, classifier, played, batch, back + 1, seen),
            "reset": _metrics(learner, classifier, played, batch, back, without),
        }


def _metrics(
    learner: Learner, classifier: Any, played: list[Episode], batch: SequenceBatch, at: int, state: State
) -> dict[str, np.ndarray]:
    """Metrics (episodes,) of row `at`, predicted from the State before it."""
    predicted = predicted_frame(learner, state, batch.action[:, at])
    truth = batch.observation.float() / 255
    found = {
        "kl": learner.model.kl(batch[:, at : at + 1], state)[:, 0],
        "psnr": psnr(predicted, truth[:, at]),
        "copy_psnr": psnr(truth[:, at - 1], truth[:, at]),
    }
    metrics = {name: value.float().cpu().numpy() for name, value in found.items()}
    if hasattr(classifier, "classify_frame"):
        wanted = np.array([(episode.labels["colour"][at], episode.labels["place"][at]) for episode in played])
        for name, frames in (("accuracy", predicted), ("copy_accuracy", truth[:, at - 1])):
            found_pair = np.stack(classifier.classify_frame(frames.float().cpu().numpy()), 1)
            metrics[name] = (found_pair == wanted).all(1).astype(float)
    return metrics


def predicted_frame(learner: Learner, state: State, action: Tensor) -> Tensor:
    """The frame (B, H, W, C) that one imagined step after `action` (B, A) decodes."""
    return imagine(learner.model, state, action[None], 1, sample=False, decode=True).observation[0]


LINES = {
    "accuracy": ("return", "accuracy"),
    "  memory reset": ("reset", "accuracy"),
    "KL (nats)": ("return", "kl"),
    "  just seen": ("just_seen", "kl"),
    "  memory reset, KL": ("reset", "kl"),
    "PSNR (dB)": ("return", "psnr"),
    "  just seen, PSNR": ("just_seen", "psnr"),
    "  frame before, copied": ("return", "copy_psnr"),
    "  memory reset, PSNR": ("reset", "psnr"),
}
"""A table's lines: moment and metric of each."""


def print_table(results: Sequence[dict[str, Any]]) -> None:
    """Results of `eval.retention`: a line for each metric of each run, a column for each delay."""
    for result in results:
        delays = result["delays"]
        print(f"\n{result['run']}, {result['parameters'] / 1e6:.2f}M parameters, {result['step']} updates")
        print(f"{'  delay':26s}" + "".join(f"{delay:8d}" for delay in delays))
        for name, (moment, metric) in LINES.items():
            values = [result["retention"][str(delay)][moment].get(metric) for delay in delays]
            if None not in values:
                digits = 2 if metric == "accuracy" else 1
                print(f"  {name:24s}" + "".join(f"{value:8.{digits}f}" for value in values))


PANELS = {
    "accuracy": "retention accuracy",
    "kl": "KL at the return (nats)",
    "psnr": "PSNR of the predicted return (dB)",
}


def plot(results: Sequence[dict[str, Any]], out: Path) -> None:
    """A panel a metric, a colour a model: the mean of its seeds, each seed a thin line, memory reset dotted."""
    labels = list(dict.fromkeys(result["label"] for result in results))
    shown = panels(results)
    figure = Figure(figsize=(4.3 * len(shown), 3.8), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for ax, metric in zip(axes, shown, strict=True):
        for i, label in enumerate(labels):
            draw(ax, [result for result in results if result["label"] == label], metric, label, i)
        finish(ax, results, metric)
    axes[0].plot([], [], ":", color="0.4", label="memory reset in the gap")
    axes[0].legend(fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")
    write_figure(out, figure)


def panels(results: Sequence[dict[str, Any]]) -> list[str]:
    """The metrics to draw: those that all results have."""
    first = [result["retention"][str(result["delays"][0])]["return"] for result in results]
    return [metric for metric in PANELS if all(metric in found for found in first)]


def finish(axes: Axes, results: Sequence[dict[str, Any]], metric: str) -> None:
    """Axes and title of a panel."""
    axes.set(xscale="log", xlabel="frames since it was seen", title=PANELS[metric])
    delays = sorted({delay for result in results for delay in result["delays"]})
    axes.set_xticks(delays, [str(delay) for delay in delays])
    axes.minorticks_off()
    if metric == "accuracy":
        axes.set_ylim(-0.03, 1.03)
    style(axes)


def draw(axes: Axes, seeds: Sequence[dict[str, Any]], metric: str, label: str, index: int) -> None:
    """A metric of one model by delay, in the colour of its index: the mean of its seeds, each, and memory reset."""
    delays, shade = seeds[0]["delays"], colour(index)

    def curves(moment: str) -> list[list[float]]:
        return [[result["retention"][str(delay)][moment][metric] for delay in delays] for result in seeds]

    returns = curves("return")
    for values in returns if len(returns) > 1 else []:
        axes.plot(delays, values, line(index), color=shade, linewidth=0.7, alpha=0.4)
    mean = np.mean(returns, 0)
    axes.plot(delays, mean, line(index), marker="o", color=shade, linewidth=1.8, markersize=4, label=label)
    axes.plot(delays, np.mean(curves("reset"), 0), ":", color=shade, linewidth=1)
