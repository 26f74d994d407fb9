"""The table and the figure of `eval.ablate`: models side by side, from the results of their runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.logging.plots import PALETTE, colour
from eval import learning_curves, statistics
from eval.ablate.planned import PlannedRun
from eval.learning_curves import Learning
from eval.output import style, write_figure
from eval.returns import human_normalizer

Result = dict[str, Any]
"""What `eval.returns` writes."""


def compare(results: Mapping[PlannedRun, Sequence[Result]]) -> dict[str, Any]:
    """All of ablation.json but the command, as plain data; `models` is empty where no run went well.

    `results` has, for each run that went well, the result of each protocol: the first is compared, a second shows the
    same with memory reset. On several environments scores are human-normalized, and a seed counts that went well on
    all of them.
    """
    envs = list(dict.fromkeys(run.env for run in results))
    normalized = len(envs) > 1
    models: dict[str, Any] = {}
    first: np.ndarray | None = None
    for label in dict.fromkeys(run.label for run in results):
        table = _by_seed([run for run in results if run.label == label], envs)
        if not table:
            continue
        scores = _scores([[results[run][0] for run in row] for row in table], normalized)
        first = scores if first is None else first
        models[label] = _aggregates(scores, first, normalized) | _speed(table, normalized)
        models[label] |= {
            "seeds": [row[0].seed for row in table],
            "parameters": results[table[0][0]][0]["parameters"],
            "runs": [run.name for row in table for run in row],
        }
        if all(len(results[run]) > 1 for row in table for run in row):
            reset = _scores([[results[run][1] for run in row] for row in table], normalized)
            interval = statistics.interval(statistics.iqm, reset)
            models[label]["memory_reset"] = {"iqm": float(statistics.iqm(reset)), "iqm_interval": interval}
    if not models:
        return {"models": models}
    some, *more = next(iter(results.values()))
    return {
        "envs": envs,
        "score": "human-normalized return" if normalized else "return",
        "steps": max(run.steps for run in results),
        "reset_memory_at": more[0]["reset_memory_at"] if more else None,
        **{name: some[name] for name in ("protocol", "episodes", "actions")},
        "models": models,
    }


def _by_seed(runs: Sequence[PlannedRun], envs: Sequence[str]) -> list[list[PlannedRun]]:
    """A model's runs, a row for each seed that is there on all environments."""
    by_place = {(run.seed, run.env): run for run in runs}
    seeds = dict.fromkeys(run.seed for run in runs)
    rows = [[by_place[seed, env] for env in envs if (seed, env) in by_place] for seed in seeds]
    return [row for row in rows if len(row) == len(envs)]


def _scores(table: Sequence[Sequence[Result]], normalized: bool) -> np.ndarray:
    """(seeds, environments): mean returns."""
    return np.array([[(r["human_normalized"] if normalized else r)["mean"] for r in row] for row in table])


def _aggregates(scores: np.ndarray, first: np.ndarray, normalized: bool) -> dict[str, Any]:
    better = statistics.probability_of_improvement
    found = {
        "scores": scores.tolist(),
        **statistics.summarise(scores),
        "median": float(statistics.median(scores)),
        "improvement": {
            "probability": float(better(scores, first)),
            "interval": statistics.interval(better, scores, first),
        },
    }
    return found | ({"optimality_gap": float(statistics.optimality_gap(scores))} if normalized else {})


def _speed(table: Sequence[Sequence[PlannedRun]], normalized: bool) -> dict[str, Any]:
    """Learning curves, and speed: medians over runs."""
    runs = [[_learning(run, normalized) for run in row] for row in table]
    speeds: dict[str, Any] = {}
    for name in ("frames_a_second", "steps_a_second", "minutes"):
        values = [value for row in runs for run in row if (value := getattr(run, name)) is not None]
        speeds[name] = float(np.median(values)) if values else None
    by_step = learning_curves.by_step(runs, table[0][0].steps)
    return speeds | {"by_step": by_step, "by_second": learning_curves.by_second(runs)}


def _learning(run: PlannedRun, normalized: bool) -> Learning:
    found = learning_curves.learning(run.folder, run.steps)
    normalize = human_normalizer(run.env) if normalized else None
    return found if normalize is None else replace(found, returns=np.array([normalize(r) for r in found.returns]))


def table(report: Mapping[str, Any]) -> str:
    """The report as lines for a terminal."""
    models, at = report["models"], report["reset_memory_at"]
    first = next(iter(models))
    head = ["model", "seeds", f"IQM {report['score']}", f"P(better than {first})"]
    head += [] if at is None else [f"reset at {at}"]
    rows = [[*head, "parameters", "frames/s", "steps/s", "minutes"]]
    for label, model in models.items():
        row = [label, str(len(model["seeds"])), _with_interval(model["iqm"], model["iqm_interval"])]
        chance = model["improvement"]
        row.append("-" if label == first else _with_interval(chance["probability"], chance["interval"]))
        if at is not None:
            row.append(_with_interval(model["memory_reset"]["iqm"], model["memory_reset"]["iqm_interval"]))
        row.append(f"{sum(model['parameters'].values()) / 1e6:.2f}M")
        row += [_number(model[name]) for name in ("frames_a_second", "steps_a_second", "minutes")]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{', '.join(report['envs'])}: {report['steps']:,} steps; {report['episodes']} episodes a run, "
        f"{report['actions']} actions; 95 % stratified bootstrap intervals over seeds",
        *("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows),
    ]
    few = [label for label, model in models.items() if len(model["seeds"]) < 3]
    if few:
        lines.append(f"fewer than three seeds ({', '.join(few)}): their intervals say little")
    return "\n".join(lines)


def _with_interval(value: float, bounds: Sequence[float]) -> str:
    return f"{value:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def plot(report: Mapping[str, Any], out: Path) -> None:
    """Four panels, of one model three; a colour a model; bands and bars are 95 % intervals."""
    models, at = report["models"], report["reset_memory_at"]
    first = next(iter(models))
    figure = Figure(figsize=(12.5, 6.4), dpi=130, layout="constrained")
    by_step, by_second, final, better = figure.subplots(2, 2, height_ratios=(3, 0.6 + 0.35 * len(models))).flat
    for index, (label, model) in enumerate(models.items()):
        _curve(by_step, model["by_step"], label, index)
        _curve(by_second, model["by_second"], label, index, unit=60)
    by_step.set(xlabel="environment steps", ylabel=f"IQM of training {report['score']}", xlim=(0, None))
    by_second.set(xlabel="minutes of training, without evaluation", xlim=(0, None))
    title = f"{', '.join(report['envs'])}: bands and bars are 95 % intervals over seeds"
    handles = by_step.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=7, fontsize=9, frameon=False, title=title)
    resets = [model.get("memory_reset") for model in models.values()]
    _bars(final, models, [reset and (reset["iqm"], reset["iqm_interval"]) for reset in resets], "x")
    _bars(final, models, [(model["iqm"], model["iqm_interval"]) for model in models.values()], "o")
    cross = f"; x: memory reset at frame {at}" if any(resets) else ""
    protocol = f"{report['episodes']} episodes, {report['actions']}"
    final.set(xlabel=f"IQM of evaluation {report['score']} ({protocol}){cross}")
    if len(models) > 1:
        chances = [(m["improvement"]["probability"], m["improvement"]["interval"]) for m in models.values()]
        _bars(better, models, [None, *chances[1:]], "o")
        better.axvline(0.5, color="0.45", linewidth=0.9, linestyle="--", zorder=0)
        better.set(xlabel=f"P(a run is better than one of {first})", xlim=(-0.03, 1.03))
    else:
        better.remove()
    for axes in (by_step, by_second, final, better):
        style(axes)
    write_figure(out, figure)


def _curve(axes: Axes, curve: Mapping[str, list[float]], label: str, index: int, unit: float = 1) -> None:
    """A curve and its band, in the colour of an index; `unit` divides its steps or seconds."""
    at, line = np.array(curve["at"]) / unit, ("-", "--", ":")[index // len(PALETTE) % 3]
    axes.fill_between(at, curve["low"], curve["high"], color=colour(index), alpha=0.15, linewidth=0)
    axes.plot(at, curve["iqm"], line, color=colour(index), linewidth=1.8, label=label)


def _bars(
    axes: Axes, labels: Mapping[str, Any], points: Sequence[tuple[float, tuple[float, float]] | None], marker: str
) -> None:
    """A point and its interval for each model that has one, the first at the top."""
    for index, point in enumerate(points):
        if point is not None:
            value, (low, high) = point
            axes.plot([low, high], [index] * 2, color=colour(index), linewidth=5, alpha=0.35, solid_capstyle="butt")
            axes.plot([value], [index], marker, color=colour(index), markersize=7)
    shown = [index for index, point in enumerate(points) if point is not None]
    if shown:
        axes.set_yticks(shown, [list(labels)[index] for index in shown])
        axes.set_ylim(shown[-1] + 0.5, shown[0] - 0.5)
