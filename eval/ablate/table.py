"""The table of `eval.ablate`: models side by side, from the figures of their runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from eval import curves, statistics
from eval.ablate.runs import Run
from eval.curves import Learning
from eval.human_normalized import normaliser

Figures = dict[str, Any]
"""What `eval.returns` writes."""


def report(results: Mapping[Run, Sequence[Figures]]) -> dict[str, Any]:
    """All of ablation.json but the command, as plain data; without `models` where no run went well.

    `results` has, for each run that went well, the figures of each protocol: the first is compared, a second shows the
    same with memory wiped. On several environments scores are human-normalised, and a seed counts that went well on
    all of them.
    """
    envs = list(dict.fromkeys(run.env for run in results))
    normalised = len(envs) > 1
    models: dict[str, Any] = {}
    first: np.ndarray | None = None
    for label in dict.fromkeys(run.label for run in results):
        table = _table([run for run in results if run.label == label], envs)
        if not table:
            continue
        scores = _scores([[results[run][0] for run in row] for row in table], normalised)
        first = scores if first is None else first
        models[label] = _aggregates(scores, first, normalised) | _speed(table, normalised)
        models[label] |= {
            "seeds": [row[0].seed for row in table],
            "parameters": results[table[0][0]][0]["parameters"],
            "runs": [run.name for row in table for run in row],
        }
        if all(len(results[run]) > 1 for row in table for run in row):
            wiped = _scores([[results[run][1] for run in row] for row in table], normalised)
            models[label]["wiped"] = {"iqm": float(statistics.iqm(wiped)), "iqm_interval": _interval(wiped)}
    if not models:
        return {"models": models}
    some, *more = next(iter(results.values()))
    return {
        "envs": envs,
        "score": "human-normalised return" if normalised else "return",
        "steps": max(run.steps for run in results),
        "forget": more[0]["forget"] if more else None,
        **{name: some[name] for name in ("protocol", "episodes", "actions")},
        "models": models,
    }


def text(found: Mapping[str, Any]) -> str:
    """The report as lines for a terminal."""
    models = found["models"]
    first = next(iter(models))
    head = ["model", "seeds", f"IQM {found['score']}", f"P(better than {first})"]
    head += [f"wiped at {found['forget']}"] if found["forget"] is not None else []
    rows = [[*head, "parameters", "frames/s", "steps/s", "minutes"]]
    for label, model in models.items():
        row = [label, str(len(model["seeds"])), _with_interval(model["iqm"], model["iqm_interval"])]
        chance = model["improvement"]
        row.append("-" if label == first else _with_interval(chance["probability"], chance["interval"]))
        if found["forget"] is not None:
            row.append(_with_interval(model["wiped"]["iqm"], model["wiped"]["iqm_interval"]))
        row.append(f"{sum(model['parameters'].values()) / 1e6:.2f}M")
        row += [_number(model[name]) for name in ("frames_a_second", "steps_a_second", "minutes")]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{', '.join(found['envs'])}: {found['steps']:,} steps; {found['episodes']} episodes a run, "
        f"{found['actions']} actions; 95 % stratified bootstrap intervals over seeds",
        *("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows),
    ]
    few = [label for label, model in models.items() if len(model["seeds"]) < 3]
    if few:
        lines.append(f"fewer than three seeds ({', '.join(few)}): their intervals say little")
    return "\n".join(lines)


def _table(runs: Sequence[Run], envs: Sequence[str]) -> list[list[Run]]:
    """A model's runs, a row for each seed that is there on all environments."""
    by_place = {(run.seed, run.env): run for run in runs}
    seeds = dict.fromkeys(run.seed for run in runs)
    rows = [[by_place[seed, env] for env in envs if (seed, env) in by_place] for seed in seeds]
    return [row for row in rows if len(row) == len(envs)]


def _scores(table: Sequence[Sequence[Figures]], normalised: bool) -> np.ndarray:
    """(seeds, environments): mean returns."""
    return np.array([[(f["normalised"] if normalised else f)["mean"] for f in row] for row in table])


def _aggregates(scores: np.ndarray, first: np.ndarray, normalised: bool) -> dict[str, Any]:
    better = statistics.probability_of_improvement
    found = {
        "scores": scores.tolist(),
        "mean": float(statistics.mean(scores)),
        "mean_interval": statistics.interval(statistics.mean, scores),
        "median": float(statistics.median(scores)),
        "iqm": float(statistics.iqm(scores)),
        "iqm_interval": _interval(scores),
        "improvement": {
            "probability": float(better(scores, first)),
            "interval": statistics.interval(better, scores, first),
        },
    }
    if normalised:
        found["optimality_gap"] = float(statistics.optimality_gap(scores))
    return found


def _interval(scores: np.ndarray) -> tuple[float, float]:
    return statistics.interval(statistics.iqm, scores)


def _speed(table: Sequence[Sequence[Run]], normalised: bool) -> dict[str, Any]:
    """Learning curves, and speed: medians over runs."""
    learnt = [[_learning(run, normalised) for run in row] for row in table]
    flat = [learning for row in learnt for learning in row]
    return {
        "frames_a_second": _median([learning.frames_a_second for learning in flat]),
        "steps_a_second": _median([learning.steps_a_second for learning in flat]),
        "minutes": _median([learning.minutes for learning in flat]),
        "by_step": curves.by_step(learnt, table[0][0].steps),
        "by_second": curves.by_second(learnt),
    }


def _learning(run: Run, normalised: bool) -> Learning:
    found = curves.learning(run.folder, run.steps)
    normalise = normaliser(run.env) if normalised else None
    if normalise is None:
        return found
    return replace(found, returns=np.array([normalise(value) for value in found.returns]))


def _median(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.median(there)) if there else None


def _with_interval(value: float, bounds: Sequence[float]) -> str:
    return f"{value:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
