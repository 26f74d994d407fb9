"""The figure of `eval.retention` in mazes: how good dreams are, by how far they go and by when a view was last seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.logging.plots import PALETTE
from eval.memory.maze import BINS, STRETCH, view_name
from replay.atomic import replace_atomically

TASKS = {"retrieval": "the way back, dreamed", "reasoning": "the walk on, dreamed"}
EASY = {"repeat": ("--", "last frame repeated"), "mean": (":", "mean of the context")}


def plot(results: Sequence[dict[str, Any]], out: Path) -> None:
    """One panel a task and one of views, one colour a model: the mean of its seeds."""
    labels = list(dict.fromkeys(result["label"] for result in results))
    seeds = {label: [result for result in results if result["label"] == label] for label in labels}
    figure = Figure(figsize=(13, 3.9), dpi=130, layout="constrained")
    *dreams, views = figure.subplots(1, 3)
    for ax, (task, title) in zip(dreams, TASKS.items(), strict=True):
        for i, label in enumerate(labels):
            _draw(ax, seeds[label], task, "model", "-", PALETTE[i % len(PALETTE)], label)
        for who, (style, name) in EASY.items():
            _draw(ax, results[:1], task, who, style, "0.4", name)
        ax.set(xlabel="frames dreamed", title=title)
    bins = [view_name(low, high) for low, high in BINS] + ["never"]
    for i, label in enumerate(labels):
        found = [[result["views"].get(name, {}).get("psnr", np.nan) for name in bins] for result in seeds[label]]
        views.plot(bins, np.mean(found, 0), marker="o", color=PALETTE[i % len(PALETTE)], linewidth=1.8, markersize=4)
    views.set(xlabel="steps since the view was seen", title="up to 8 frames ahead")
    for ax in (*dreams, views):
        ax.grid(alpha=0.25, linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    dreams[0].set_ylabel("PSNR (dB)")
    figure.legend(
        *dreams[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, fontsize=8, frameon=False
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(out, figure.savefig)


def _draw(ax: Axes, results: Sequence[dict[str, Any]], task: str, who: str, style: str, colour: str, name: str) -> None:
    """The mean curve of these, by the middle of each stretch."""
    curve = np.mean([result[task][who]["curve"] for result in results], 0)
    ax.plot((np.arange(len(curve)) + 0.5) * STRETCH, curve, style, color=colour, linewidth=1.6, label=name)
