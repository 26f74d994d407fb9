"""Episode returns against environment steps, for one run or several side by side."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from agent.logging.sinks import Row, read_metrics
from agent.runs.config import load_config
from agent.runs.fields import ConfigError
from envs.atari.scores import SCORES
from replay.atomic import replace_atomically

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, distinct with any colour vision."""

REFERENCES: dict[str, dict[str, float]] = {
    "MemoryMaze-5x5": {"random": 1.0, "scripted": 35.3},
    "MemoryMaze-7x7": {"random": 0.25, "scripted": 15.2},
    "MemoryMaze": {"random": 0.2, "human": 26.4, "oracle": 34.8},
    "MemoryMaze-11x11": {"human": 44.3, "oracle": 58.0},
    "MemoryMaze-13x13": {"human": 55.5, "oracle": 74.5},
    "MemoryMaze-15x15": {"human": 67.7, "oracle": 87.7},
    "MiniGrid/MemoryS7": {"random": 0.28},
    "POPGym/RepeatPreviousEasy": {"random": -0.49},
    "gym:Pendulum-v1": {"random": -1197.0},
}
"""Mean returns by environment: of mazes from 9x9 on as published (Pasukonis et al. 2022, "Evaluating Long-Term Memory
in 3D Mazes"), of the others over 100 episodes, measured here (docs/environments.md for the mazes)."""

CHANGES_RETURNS = ("targets=", "action_repeat=")
"""Options of Memory Maze with which returns are those of another task."""

BANDS = 3
"""Runs in a panel up to which each has a band."""

RUNNING, SHARE = 10, 50
"""Episodes in the running mean: `RUNNING` at least, one `SHARE`-th of all in a long run."""


def colour(index: int) -> str:
    """The colour of the run of this index."""
    return PALETTE[index % len(PALETTE)]


def line(index: int) -> str:
    """The line style of the run of this index: dashed where colours repeat."""
    return "-" if index < len(PALETTE) else "--"


def references(env: str) -> Mapping[str, float]:
    """Mean returns of `env` by random, scripted, human, oracle, where known; options that change them leave none."""
    base, _, options = env.partition(":")
    game = base.removeprefix("Atari/")
    if game != base and game in SCORES:
        return dict(zip(("random", "human"), SCORES[game], strict=True))
    for option in options.split(","):
        if option.startswith("size=") and option != "size=9x9":
            base += "-" + option.removeprefix("size=")
    other_task = any(option.startswith(CHANGES_RETURNS) for option in options.split(","))
    return REFERENCES.get(env, {} if other_task else REFERENCES.get(base, {}))


def plot_returns(runs: Sequence[Path], out: Path) -> None:
    """Plots the returns of these run folders into one image file, replaced atomically; its suffix is its format.

    A panel for each environment. Training episodes are points with a running mean; evaluations a line with markers and,
    of up to `BANDS` runs, a band of one standard deviation. A run without episodes has an entry in the legend alone.
    """
    panels = by_environment(runs)
    columns = math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    most = max(map(len, panels.values()))
    size = (8, 4.5) if len(panels) == 1 else (5.5 * columns, (3.2 + 0.4 * most) * rows)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    for place, (env, members) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        draw_returns(axes, env, dict(enumerate(members.values())))
        widest = max(map(len, run_names(list(members.values()))))
        side_by_side = 1 if len(panels) > 1 or widest > 40 else 2
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.04), ncols=side_by_side, fontsize=8, frameon=False)
        if len(panels) > 1:
            axes.set_title(env, fontsize=10, loc="left", pad=16 + 26 * len(members))
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(out, figure.savefig)


def by_environment(runs: Sequence[Path]) -> dict[str, dict[int, Path]]:
    """Runs by environment, each by its index in `runs`, in their order."""
    panels: dict[str, dict[int, Path]] = {}
    for index, run in enumerate(runs):
        panels.setdefault(_environment(run), {})[index] = run
    return panels


def draw_returns(axes: Axes, env: str, runs: Mapping[int, Path]) -> None:
    """Plots a panel of `plot_returns` without its legend: runs of `env` by the index of their colour."""
    names = run_names(list(runs.values()))
    for name, (index, run) in zip(names, runs.items(), strict=True):
        _draw_run(axes, name, read_metrics(run / "metrics.jsonl"), index, band=len(runs) <= BANDS)
    _limit(axes)
    _draw_references(axes, references(env))
    axes.set(xlabel="environment steps", ylabel="episode return", xlim=(0, None))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def running_mean(values: np.ndarray, length: int) -> np.ndarray:
    """The mean of each value and the `length - 1` before it, of fewer at the start; same shape (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - length)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _draw_run(axes: Axes, name: str, rows: list[Row], index: int, band: bool) -> None:
    style: dict[str, Any] = {"color": colour(index), "linestyle": line(index)}
    steps, returns = series(rows, "episode/return")
    alpha = min(0.4, 100 / max(1, len(returns)))  # thousands of points must not hide the curves
    axes.plot(steps, returns, ".", color=colour(index), markersize=5, alpha=alpha, markeredgewidth=0)
    axes.plot(
        steps,
        running_mean(returns, max(RUNNING, len(returns) // SHARE)),
        **style,
        linewidth=1.3,
        alpha=0.8,
        label=f"{name}: training",
    )
    steps, means = series(rows, "eval/return")
    if len(steps):
        spread_of = dict(zip(*(column.tolist() for column in series(rows, "eval/return_std")), strict=True))
        spread = np.array([spread_of.get(step, 0.0) for step in steps.tolist()])
        if band:
            axes.fill_between(steps, means - spread, means + spread, color=colour(index), alpha=0.15, linewidth=0)
        axes.plot(
            steps, means, marker="o", **style, linewidth=1.8, markersize=5, markeredgecolor="white",
            label=f"{name}: evaluation",
        )  # fmt: skip


def series(rows: list[Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values (n,) of one metric, where it was logged and finite."""
    pairs = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    steps, values = np.array(pairs, dtype=float).reshape(-1, 2).T
    return steps, values


def _limit(axes: Axes) -> None:
    """Fits the axis to the returns: references far above would flatten them."""
    axes.autoscale_view()
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0), max(high, 1.0))
    axes.autoscale(False)


def _draw_references(axes: Axes, references: Mapping[str, float]) -> None:
    """A line for each reference, the axis extended to those below and near; those far above are named at the top."""
    bottom, top = axes.get_ylim()
    lowest = min(references.values(), default=bottom)
    if lowest < bottom:
        axes.set_ylim(bottom=lowest - 0.04 * (top - lowest))
    above = {name: value for name, value in references.items() if value > top}
    if above and max(above.values()) < 2.5 * top:
        top = max(above.values()) * 1.08
        axes.set_ylim(top=top)
        above = {}
    # x in fractions of the axis' width, y in data
    place: Any = blended_transform_factory(axes.transAxes, axes.transData)
    for name, value in references.items():
        if name not in above:
            axes.axhline(value, color="0.45", linewidth=0.9, linestyle="--", zorder=0)
            axes.text(1.01, value, f"{name} {value:g}", transform=place, fontsize=7.5, color="0.35", va="center")
    if above:
        text = "off scale: " + ", ".join(f"{name} {value:g}" for name, value in above.items())
        axes.text(
            0.995, 1.0, f"{text}  \N{UPWARDS ARROW}", transform=axes.transAxes, fontsize=7.5, color="0.35",
            ha="right", va="bottom",
        )  # fmt: skip


def _environment(run: Path) -> str:
    """The environment of a run; "" where its config.yaml cannot be read, for curves need none."""
    try:
        return load_config(run / "config.yaml").env
    except ConfigError:
        return ""


def run_names(runs: Sequence[Path]) -> list[str]:
    """Folder names; the paths as given where two folders have the same name."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]
