"""The figures of `eval.report`, each drawn wide and, `small`, for a narrow screen; a colour a run throughout."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from agent.logging.plots import by_environment, colour, draw_returns, line, series
from eval.learning_curves import speed
from eval.memory import recall
from eval.output import style
from eval.report.reported_run import ReportedRun

POINTS = 300
"""Points of a curve; more are averaged."""
MANY = 400
"""Dots in a vector drawing; more become pixels."""

NORM = re.compile(r"model/state/(\d+)/norm")
MODEL = re.compile(r"model/loss(/.*)?|model/kl|model/entropy/.*|model/grad_norm")
AGENT = re.compile(r"agent/.*")


def names(runs: Sequence[ReportedRun], pattern: re.Pattern[str]) -> list[str]:
    """Metrics that the runs log under such names, in the order in which they first come."""
    found = dict.fromkeys(name for run in runs for row in run.rows for name in row)
    return [name for name in found if pattern.fullmatch(name)]


def returns(runs: Sequence[ReportedRun], small: bool) -> Figure:
    """Training and evaluation returns, and each checkpoint's score with its 95 % interval; a panel an environment."""
    groups = by_environment([run.folder for run in runs])
    figure, panels = _panels(len(groups), small, height=2.9 if small else 4.4 if len(groups) == 1 else 3.2)
    for axes, (env, members) in zip(panels, groups.items(), strict=True):
        draw_returns(axes, env, members)
        for dots in axes.get_lines():
            dots.set_rasterized(dots.get_marker() == "." and len(np.atleast_1d(dots.get_xdata())) > MANY)
        for index in members:
            _draw_score(axes, runs[index].score, index)
        if len(groups) > 1:
            axes.set_title(env, fontsize=8, loc="left", pad=12)  # above the names of references off scale
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_fontsize(8)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", nbins=5)
    handles = [Line2D([], [], marker=".", label="training"), Line2D([], [], marker="o", label="evaluation")]
    if any(run.score for run in runs):
        handles.append(Line2D([], [], linestyle="", marker="D", label="checkpoint, 95 %"))
    for handle in handles:
        handle.set_color("0.35")
    figure.legend(handles=handles, loc="outside upper left", ncols=3, fontsize=6 if small else 7.5, frameon=False)
    return figure


def _draw_score(axes: Axes, score: Mapping[str, Any] | None, index: int) -> None:
    """A checkpoint's evaluation as a diamond with its interval, to which the axis is extended."""
    if score is None:
        return
    mean, (low, high) = score["mean"], score["mean_interval"]
    diamond: dict[str, Any] = {"fmt": "D", "color": colour(index), "markersize": 6, "markeredgecolor": "black"}
    axes.errorbar([score["step"]], [mean], [[mean - low], [high - mean]], capsize=4, **diamond)
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(bottom, low * 1.05), max(top, high * 1.05))


def curves(
    runs: Sequence[ReportedRun], keys: Sequence[str], small: bool, dotted: Mapping[str, str] | None = None
) -> Figure:
    """A panel for each metric, a curve for each run; `dotted`: a second metric by the panel's, drawn dotted."""
    figure, panels = _panels(len(keys), small)
    for axes, key in zip(panels, keys, strict=False):
        drawn: list[np.ndarray] = [np.empty(0)]
        for index, run in enumerate(runs):
            for name, kind in ((key, line(index)), ((dotted or {}).get(key, ""), ":")):
                steps, values = _thinned(*series(run.rows, name))
                if len(steps):
                    marker = "." if len(steps) < 20 else ""
                    axes.plot(steps, values, kind, marker=marker, color=colour(index), linewidth=1.2)
                    drawn.append(values)
        _scale(axes, np.concatenate(drawn))
        axes.set_title(key, fontsize=8)
    return figure


def speeds(runs: Sequence[ReportedRun], small: bool) -> Figure:
    """Replayed frames a second over training."""
    figure, (axes,) = _panels(1, small, height=2.3 if small else 3.0)
    for index, run in enumerate(runs):
        steps, values = _thinned(*speed(run.rows, run.frames_per_update), points=60)
        axes.plot(steps, values, line(index), color=colour(index), linewidth=1.4)
    axes.set_ylim(0, None)
    axes.set_xlabel("environment steps", fontsize=8)
    axes.set_ylabel("replayed frames/s", fontsize=8)
    return figure


def retention(runs: Sequence[ReportedRun], small: bool) -> Figure:
    """What is remembered by delay, as `eval.retention` draws it: a panel for each metric that all of them have."""
    found = {i: run.retention for i, run in enumerate(runs) if run.retention and "retention" in run.retention}
    metrics = recall.panels(list(found.values()))
    figure, panels = _panels(len(metrics), small, height=2.6)
    for axes, metric in zip(panels, metrics, strict=False):
        for index, result in found.items():
            recall.draw(axes, [result], metric, runs[index].name, index)
        recall.finish(axes, list(found.values()), metric)
        axes.title.set_fontsize(8)
        axes.xaxis.label.set_fontsize(7.5)
    return figure


def _panels(count: int, small: bool, height: float = 1.9) -> tuple[Figure, list[Axes]]:
    """So many panels: three beside one another, two on a narrow screen where they are low, else one."""
    columns = min(count, (2 if height < 2 else 1) if small else 3)
    rows = math.ceil(count / columns)
    size = (3.8 if small else 9.6, rows * height * (0.8 if small and columns == 2 else 1))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for axes in panels:
        style(axes)
        axes.tick_params(labelsize=6.5)
        axes.xaxis.get_offset_text().set_fontsize(6.5)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.locator_params(axis="x", nbins=4)
    return figure, panels


def _scale(axes: Axes, values: np.ndarray) -> None:
    """Logarithmic where all are positive and the largest is far above the smallest; from a floor of a millionth."""
    if len(values) and values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(bottom=max(values.min() * 0.8, values.max() * 1e-6))


def _thinned(steps: np.ndarray, values: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points, each the mean of its neighbours."""
    if len(steps) <= points:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), points)
    return np.array([steps[part].mean() for part in parts]), np.array([values[part].mean() for part in parts])
