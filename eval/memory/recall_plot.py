"""The figure of `eval.retention`: what is remembered, against how long ago it was seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.logging.plots import PALETTE
from replay.atomic import replace_atomically

PANELS = (
    ("accuracy", "retention accuracy"),
    ("kl", "surprise at the return (nats)"),
    ("psnr", "PSNR of the predicted return (dB)"),
)


def plot(results: Sequence[dict[str, Any]], out: Path) -> None:
    """One panel a figure, one colour a model: the mean of its seeds, each seed a thin line, wiped memory dotted."""
    labels = list(dict.fromkeys(result["label"] for result in results))
    shown = [panel for panel in PANELS if all(panel[0] in _first(result) for result in results)]
    figure = Figure(figsize=(4.3 * len(shown), 3.8), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for ax, (name, title) in zip(axes, shown, strict=True):
        for label in labels:
            colour = PALETTE[labels.index(label) % len(PALETTE)]
            style = "-" if labels.index(label) < len(PALETTE) else "--"
            draw(ax, [result for result in results if result["label"] == label], name, label, colour, style)
        finish(ax, results, name, title)
    axes[0].plot([], [], ":", color="0.4", label="memory wiped in the gap")
    axes[0].legend(fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(out, figure.savefig)


def finish(ax: Axes, results: Sequence[dict[str, Any]], name: str, title: str) -> None:
    """Axes and title of a panel."""
    ax.set(xscale="log", xlabel="frames since it was seen", title=title)
    delays = sorted({delay for result in results for delay in result["delays"]})
    ax.set_xticks(delays, [str(delay) for delay in delays])
    ax.minorticks_off()
    if name == "accuracy":
        ax.set_ylim(-0.03, 1.03)
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)


def _first(result: dict[str, Any]) -> dict[str, float]:
    return result["retention"][str(result["delays"][0])]["return"]


def draw(ax: Axes, seeds: list[dict[str, Any]], name: str, label: str, colour: str, style: str) -> None:
    """One figure of one model, by delay: the mean of its seeds, each seed, and the mean with memory wiped."""
    delays = seeds[0]["delays"]

    def curve(result: dict[str, Any], moment: str) -> list[float]:
        return [result["retention"][str(delay)][moment][name] for delay in delays]

    kept = [curve(result, "return") for result in seeds]
    for values in kept if len(kept) > 1 else []:
        ax.plot(delays, values, style, color=colour, linewidth=0.7, alpha=0.4)
    ax.plot(delays, np.mean(kept, 0), style, marker="o", color=colour, linewidth=1.8, markersize=4, label=label)
    ax.plot(delays, np.mean([curve(result, "reset") for result in seeds], 0), ":", color=colour, linewidth=1)
