"""The figures of `eval.report`. Each is drawn twice: wide, and `small` for a telephone; one colour a run throughout."""

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
from eval.memory.recall_plot import PANELS, draw, finish
from eval.report.run import Run, speed

POINTS = 300
"""Points of a curve; more are averaged."""
MANY = 400
"""Dots in a vector drawing; more become pixels."""

NORM = re.compile(r"model/state/(\d+)/norm")
MODEL = re.compile(r"model/loss(/.*)?|model/kl|model/entropy/.*|model/grad_norm")
AGENT = re.compile(r"agent/.*")


def names(runs: Sequence[Run], pattern: re.Pattern[str]) -> list[str]:
    """Figures that the runs report under such names, in the order in which they first come."""
    found = dict.fromkeys(name for run in runs for row in run.rows for name in row)
    return [name for name in found if pattern.fullmatch(name)]


def returns(runs: Sequence[Run], small: bool) -> Figure:
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
            axes.set_title(env, fontsize=8, loc="left", pad=12)  # above what is off scale
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_fontsize(8)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", nbins=5)
    # The page has its own legend of runs and colours.
    handles = [Line2D([], [], marker=".", label="training"), Line2D([], [], marker="o", label="evaluation")]
    if any(run.score for run in runs):
        handles.append(Line2D([], [], linestyle="", marker="D", label="checkpoint, 95 %"))
    for handle in handles:
        handle.set_color("0.35")
    figure.legend(handles=handles, loc="outside upper left", ncols=3, fontsize=6 if small else 7.5, frameon=False)
    return figure


def _draw_score(axes: Axes, score: Mapping[str, Any] | None, index: int) -> None:
    """A checkpoint's evaluation as a diamond with its interval, for which the axis is made long enough."""
    if score is None:
        return
    mean, (low, high) = score["mean"], score["mean_interval"]
    axes.errorbar(
        [score["step"]], [mean], [[mean - low], [high - mean]], fmt="D", color=colour(index), capsize=4,
        markersize=6, markeredgecolor="black",
    )  # fmt: skip
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(bottom, low * 1.05), max(top, high * 1.05))


def curves(runs: Sequence[Run], keys: Sequence[str], small: bool, beside: Mapping[str, str] | None = None) -> Figure:
    """A panel for each figure, a curve for each run; `beside`: another figure, by the panel's, drawn dotted."""
    figure, panels = _panels(len(keys), small)
    for ax, key in zip(panels, keys, strict=False):
        drawn: list[np.ndarray] = []
        for index, run in enumerate(runs):
            for name, style in ((key, line(index)), ((beside or {}).get(key, ""), ":")):
                steps, values = _thinned(*series(run.rows, name))
                if len(steps):
                    marker = "." if len(steps) < 20 else ""
                    ax.plot(steps, values, style, marker=marker, color=colour(index), linewidth=1.2)
                    drawn.append(values)
        _scale(ax, np.concatenate(drawn) if drawn else np.empty(0))
        ax.set_title(key, fontsize=8)
    return figure


def speeds(runs: Sequence[Run], small: bool) -> Figure:
    """Replayed frames a second over training."""
    figure = _figure(small, 2.3 if small else 3.0)
    ax = figure.add_subplot()
    for index, run in enumerate(runs):
        steps, values = _thinned(
            *speed(run.rows, run.config.replay.batch_size * run.config.replay.batch_length), points=60
        )
        ax.plot(steps, values, line(index), color=colour(index), linewidth=1.4)
    ax.set_ylim(0, None)
    ax.set_xlabel("environment steps", fontsize=8)
    ax.set_ylabel("replayed frames/s", fontsize=8)
    _plain(ax)
    return figure


def retention(runs: Sequence[Run], small: bool) -> Figure:
    """What is remembered by delay, as `eval.retention` draws it: a panel for each figure that all of them have."""
    results = [run.retention for run in runs if run.retention]
    first = [result["retention"][str(result["delays"][0])]["return"] for result in results]
    shown = [panel for panel in PANELS if all(panel[0] in found for found in first)]
    figure, panels = _panels(len(shown), small, height=2.6)
    for ax, (name, title) in zip(panels, shown, strict=False):
        for index, run in enumerate(runs):
            if run.retention:
                draw(ax, [run.retention], name, run.name, colour(index), line(index))
        finish(ax, results, name, title)
        ax.title.set_fontsize(8)
        ax.xaxis.label.set_fontsize(7.5)
    return figure


def _figure(small: bool, height: float) -> Figure:
    return Figure(figsize=(3.8 if small else 9.6, height), dpi=150, layout="constrained")


def _panels(count: int, small: bool, height: float = 1.9) -> tuple[Figure, list[Axes]]:
    """So many panels: three beside one another, two on a narrow screen where they are low, else one."""
    columns = min(count, (2 if height < 2 else 1) if small else 3)
    rows = math.ceil(count / columns)
    figure = _figure(small, rows * height * (0.8 if small and columns == 2 else 1))
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for ax in axes:
        _plain(ax)
    return figure, axes


def _plain(ax: Axes) -> None:
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=6.5)
    ax.xaxis.get_offset_text().set_fontsize(6.5)
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.locator_params(axis="x", nbins=4)


def _scale(ax: Axes, values: np.ndarray) -> None:
    """Logarithmic where all are positive and the largest is far above the smallest; from a floor of a millionth."""
    if len(values) and values.min() > 0 and values.max() > 20 * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_ylim(bottom=max(values.min() * 0.8, values.max() * 1e-6))


def _thinned(steps: np.ndarray, values: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points, each the mean of its neighbours."""
    if len(steps) <= points:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), points)
    return np.array([steps[part].mean() for part in parts]), np.array([values[part].mean() for part in parts])
