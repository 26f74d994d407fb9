"""The figure of `eval.ablate`: what each model comes to, and how it got there by step and by second."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.logging.plots import PALETTE
from replay.atomic import replace_atomically


def plot(report: Mapping[str, Any], out: Path) -> None:
    """Four panels, of one model three; one colour a model; bands and bars are 95 % intervals.

    `report` is `eval.ablate.table.report`'s.
    """
    models = report["models"]
    styles = {label: _style(index) for index, label in enumerate(models)}
    figure = Figure(figsize=(12.5, 6.4), dpi=130, layout="constrained")
    by_step, by_second, final, better = figure.subplots(2, 2, height_ratios=(3, 0.6 + 0.35 * len(models))).flat
    for label, model in models.items():
        _curve(by_step, model["by_step"], label, styles[label])
        _curve(by_second, _in_minutes(model["by_second"]), label, styles[label])
    by_step.set(xlabel="environment steps", ylabel=f"IQM of training {report['score']}", xlim=(0, None))
    by_second.set(xlabel="minutes of training, without evaluation", xlim=(0, None))
    title = f"{', '.join(report['envs'])}: bands and bars are 95 % intervals over seeds"
    handles = by_step.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=7, fontsize=9, frameon=False, title=title)
    first = next(iter(models))
    wiped = {k: (m["wiped"]["iqm"], m["wiped"]["iqm_interval"]) for k, m in models.items() if "wiped" in m}
    _bars(final, {k: (m["iqm"], m["iqm_interval"]) for k, m in models.items()}, styles, "o")
    _bars(final, wiped, styles, "x")
    cross = f"; x: memory wiped at frame {report['forget']}" if wiped else ""
    final.set(xlabel=f"IQM of evaluation {report['score']} ({report['episodes']} episodes, {report['actions']}){cross}")
    others = {
        k: (m["improvement"]["probability"], m["improvement"]["interval"]) for k, m in models.items() if k != first
    }
    if others:
        _bars(better, others, styles, "o")
        better.axvline(0.5, color="0.45", linewidth=0.9, linestyle="--", zorder=0)
        better.set(xlabel=f"P(a run is better than one of {first})", xlim=(-0.03, 1.03))
    else:
        better.remove()
    for ax in (by_step, by_second, final, better):
        ax.grid(alpha=0.25, linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(out, figure.savefig)


def _style(index: int) -> dict[str, Any]:
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": ("-", "--", ":")[index // len(PALETTE) % 3]}


def _curve(ax: Axes, curve: Mapping[str, list[float]], label: str, style: Mapping[str, Any]) -> None:
    ax.fill_between(curve["at"], curve["low"], curve["high"], color=style["color"], alpha=0.15, linewidth=0)
    ax.plot(curve["at"], curve["iqm"], linewidth=1.8, label=label, **style)


def _in_minutes(curve: Mapping[str, list[float]]) -> dict[str, list[float]]:
    return {**curve, "at": [second / 60 for second in curve["at"]]}


def _bars(
    ax: Axes, points: Mapping[str, tuple[float, tuple[float, float]]], styles: Mapping[str, Any], marker: str
) -> None:
    """A point and its interval for each model, the first at the top."""
    for row, (label, (value, (low, high))) in enumerate(points.items()):
        colour = styles[label]["color"]
        ax.plot([low, high], [row, row], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        ax.plot([value], [row], marker, color=colour, markersize=7)
    if points:
        ax.set_yticks(range(len(points)), list(points))
        ax.set_ylim(len(points) - 0.5, -0.5)
