"""Tables and the figure of what was measured in mazes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.logging.plots import colour
from eval.memory import predictors
from eval.memory.maze import SOON, STRETCH
from eval.memory.tasks import PROTOCOLS, tasks_of
from eval.memory.visibility import BINS
from eval.output import style, write_figure

ANSWERS = ("model", "single", "mode", "wiped", "reconstruction")
"""Of a world model; see `eval.memory.maze`."""
BASELINES = {
    "repeat": ("--", "last frame repeated"),
    "mean": (":", "mean of the context"),
    "heading": ("-.", "heading known"),
    "pose_kernel": ((0, (5, 1)), "pose known"),
}
"""Drawn beside the models: line style and words."""
PAPER = {
    "causal attention, 192 frames": {"retrieval": (0.829, 26.4), "reasoning": (0.839, 27.1)},
    "Mamba-2": {"retrieval": (0.747, 20.4), "reasoning": (0.827, 26.4)},
    "Mamba-2 + local attention": {"retrieval": (0.735, 19.3), "reasoning": (0.845, 27.5)},
    "LSSVWM": {"retrieval": (0.898, 30.8), "reasoning": (0.855, 28.2)},
    "causal attention, full context": {"retrieval": (0.914, 32.6), "reasoning": (0.860, 28.8)},
}
"""SSIM and PSNR that arXiv 2505.20171 has of Memory Maze, under the protocol `poses`; its own models and training."""
LABEL = 32
"""Characters of a line's name, at least."""


def print_table(results: Sequence[dict[str, Any]]) -> None:
    """Results of `eval.retention` under one protocol, on the same episodes; a line for each predictor."""
    tasks, protocol = tasks_of(results[0]), results[0]["protocol"]
    print(f"episodes: {results[0]['test']}\nprotocol {protocol}: {PROTOCOLS[protocol].words}")
    _print_overview(results)
    if any("seen" in scores["by_gap"] for name in tasks for _, scores in _answers(results, name)):
        _print_kinds(results)
    for name, task in tasks.items():
        print(f"\n{name} ({task.kind}): {task.title}; protocol {protocol}")
        print(predictors.table({label: scores["by_gap"] for label, scores in _answers(results, name)}))


def _answers(results: Sequence[dict[str, Any]], task: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and scores in a task: each run's own, then those of the predictors without a model."""
    for result in results:
        for name in ANSWERS:
            yield f"{result['run']} {name}".removesuffix(" model"), result[task][name]
    for name in (*predictors.PREDICTORS, "best_frame"):
        if name in results[0][task]:
            yield name, results[0][task][name]


def _print_overview(results: Sequence[dict[str, Any]]) -> None:
    """SSIM / PSNR over all imagined frames of each task, over the first of them, and by view."""

    def line(name: str, scores: Sequence[Mapping[str, float] | None]) -> None:
        cells = ["" if score is None else f"{score['ssim']:.3f} / {score['psnr']:.1f}" for score in scores]
        print(f"{name:{LABEL}s}" + "".join(f"{cell:>14s}" for cell in cells))

    tasks = tasks_of(results[0])
    views = list(dict.fromkeys(name for result in results for name in result.get("views", {})))
    head = [column for task in tasks for column in (task, f"first {SOON}")]
    ahead = "; by steps since a view was last seen, up to 8 frames ahead" if views else ""
    print(f"\nSSIM / PSNR of imagined frames, protocol {results[0]['protocol']}{ahead}")
    print(" " * LABEL + "".join(f"{name:>14s}" for name in [*head, *views]))
    for result in results:
        scores = [result[task][part] for task in tasks for part in ("model", "soon")]
        line(result["run"], scores + [result["views"].get(name) for name in views])
        line(f"{result['run']} single", [score for task in tasks for score in (result[task]["single"], None)])
    for name in BASELINES:
        if all(name in results[0][task] for task in tasks):
            line(name, [score for task in tasks for score in (results[0][task][name], None)])
    if results[0]["protocol"] == "poses" and "retrieval" in tasks:
        print("published in arXiv 2505.20171, protocol poses; other models, frames and training:")
        for name, published in PAPER.items():
            found = [published.get(task) for task in tasks]
            scores = [None if one is None else {"ssim": one[0], "psnr": one[1]} for one in found]
            line(name, [score for one in scores for score in (one, None)])


def _print_kinds(results: Sequence[dict[str, Any]]) -> None:
    """PSNR of the frames that come back, a column for each kind of revisit."""
    tasks = tasks_of(results[0])
    rows: dict[str, list[str]] = {}
    frames = []
    for name in tasks:
        answers = dict(_answers(results, name))
        seen = {label: scores["by_gap"].get("seen") for label, scores in answers.items()}
        for label, score in seen.items():
            rows.setdefault(label, []).append(f"{score['psnr']:.2f}" if score else "")
        frames.append(str(next((score["frames"] for score in seen.values() if score), 0)))
    print(f"\nPSNR of frames whose view was seen in the context, protocol {results[0]['protocol']}")
    for label, cells in {"": [task.kind for task in tasks.values()], **rows, "frames": frames}.items():
        print(f"{label:{LABEL}s}" + "".join(f"{cell:>20s}" for cell in cells))


def plot(results: Sequence[dict[str, Any]], out: Path) -> None:
    """A panel a task and one of views, a colour a model: the mean of its seeds."""
    labels = list(dict.fromkeys(result["label"] for result in results))
    seeds = {label: [result for result in results if result["label"] == label] for label in labels}
    tasks, with_views = tasks_of(results[0]), "views" in results[0]
    panels = len(tasks) + with_views
    figure = Figure(figsize=(1 + 4 * panels, 3.9), dpi=130, layout="constrained")
    axes_of = figure.subplots(1, panels, squeeze=False)[0]
    for axes, (name, task) in zip(axes_of, tasks.items(), strict=False):
        for i, label in enumerate(labels):
            _draw(axes, seeds[label], name, "model", "-", colour(i), label)
        for baseline, (line, words) in BASELINES.items():
            if baseline in results[0][name]:
                _draw(axes, results[:1], name, baseline, line, "0.4", words)
        axes.set(xlabel="frames imagined", title=task.title)
    if with_views:
        for i, label in enumerate(labels):
            found = [[result["views"].get(name, {}).get("psnr", np.nan) for name in BINS] for result in seeds[label]]
            axes_of[-1].plot(list(BINS), np.mean(found, 0), marker="o", color=colour(i), linewidth=1.8, markersize=4)
        axes_of[-1].set(xlabel="steps since the view was seen", title="up to 8 frames ahead")
    for axes in axes_of:
        style(axes)
    axes_of[0].set_ylabel("PSNR (dB)")
    figure.suptitle(f"{results[0]['test']}; protocol {results[0]['protocol']}", fontsize=9)
    handles = axes_of[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2 * panels, fontsize=8, frameon=False)
    write_figure(out, figure)


def _draw(
    axes: Axes, results: Sequence[dict[str, Any]], task: str, name: str, line: Any, shade: str, words: str
) -> None:
    """The mean curve of these, by the middle of each stretch."""
    curve = np.mean([result[task][name]["curve"] for result in results], 0)
    axes.plot((np.arange(len(curve)) + 0.5) * STRETCH, curve, linestyle=line, color=shade, linewidth=1.6, label=words)
