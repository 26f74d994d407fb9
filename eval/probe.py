"""What does a world model know of the maze? `python -m eval.probe RUN --data FOLDER`

Probes of the Memory Maze paper (Pasukonis et al., arXiv 2210.13383): an MLP of 4 x 1024 reads the maze off the model's
frozen feature (h, z) of each frame, all tokens side by side.

- walls: the layout as seen from above, by the share of cells that are right. The probe also gets the agent's position
  and heading, as the paper's does: nothing tells the model where its start lies in the maze.
- objects: each one's place relative to the agent, in the agent's frame (`targets_vec`), by the root of the mean squared
  distance, in cells. Only the feature goes in. Also by the steps since the object was last in view (see `eval.memory.visibility`).

Beside each the constant answer: the more frequent value of each cell, the mean place. Scored on the second half of
episodes that the probe was not taught, which are other mazes; the paper's are 1000 steps long. FOLDER holds episodes
with labels: `python -m replay.collect --env MemoryMaze --policy waypoints ...`, or the public dataset. The paper's
probes see 30,000 mazes: taught few, a probe is worse by overfitting, whatever the model knows.

Writes RUN/probe.json and RUN/plots/probe.png.

    python -m eval.probe runs/MemoryMaze-lssvwm-s0 --data data/walks
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from agent.logging.plots import PALETTE
from agent.runs.cli import one_line_errors
from agent.runs.fields import ConfigError
from agent.runs.load import load_run
from agent.training.learner import Learner
from agent.training.offline import EVERYTHING
from eval.memory.probe_frames import LABELS, POSE, Frames, read
from eval.memory.probe_mlp import Fitting, Probe, fit, predict
from eval.memory.visibility import NEVER
from replay import Episode, Replay
from replay.atomic import replace_atomically, write_text_atomically

AGES = {"in view": (0, 0), "1-15": (1, 15), "16-63": (16, 63), "64-255": (64, 255), "256-": (256, 1 << 30)}
"""Steps since an object was last in view, both ends included; "never" has a bin of its own."""
ROWS = 50
"""SequenceBatch in a bin of the walls' curve."""
PAPER = {"MemoryMaze": {"walls": (0.808, 0.940, 0.997), "objects": (4.9, 2.5, 0.5)}}
"""Table of arXiv 2210.13383: constant, RSSM (TBTT), supervised."""


def main(argv: Sequence[str]) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.probe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, runs/<name>")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="episodes with labels")
    parser.add_argument("--train", type=int, metavar="N", help="episodes to teach the probes (default: 3 of 4)")
    parser.add_argument("--hidden", type=int, default=Fitting.hidden, help="width (default: %(default)s, the paper's)")
    parser.add_argument("--layers", type=int, default=Fitting.layers, help="depth (default: %(default)s, the paper's)")
    parser.add_argument("--updates", type=int, default=Fitting.updates, help="at most (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    given = parser.parse_args(argv)
    if min(given.hidden, given.layers, given.updates) < 1:
        parser.error("--hidden, --layers and --updates want a number of 1 or more")
    with one_line_errors():
        config, learner, step = load_run(given.run)
        if not config.env.startswith("MemoryMaze"):
            raise ConfigError(f"{given.run}: {config.env} has no maze to read off: want a run in MemoryMaze")
        teaching, held_out = split(load(given.data), given.train)
        torch.manual_seed(0)
        fitting = Fitting(given.hidden, given.layers, given.updates)
        result = {"run": given.run.name, "env": config.env, "step": step} | probe(learner, teaching, held_out, fitting)
    write_text_atomically(given.run / "probe.json", json.dumps(result, indent=1) + "\n")
    plot(result, given.run / "plots" / "probe.png")
    if given.json:
        print(json.dumps(result))
    else:
        print_table(result)


def load(folder: Path) -> list[Episode]:
    """The episodes of a folder, oldest first, but for damaged ones. Raises ConfigError for no folder or no labels."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder")
    replay = Replay(folder, EVERYTHING)
    episodes = []
    for name in replay.names():
        try:
            episode = replay.get(name)
        except KeyError:
            continue  # damaged, of which replay has warned
        if missing := [label for label in LABELS if label not in episode.labels]:
            raise ConfigError(
                f"{folder / name} has no label {missing[0]}: collect episodes with python -m replay.collect"
            )
        episodes.append(episode)
    return episodes


def split(episodes: Sequence[Episode], train: int | None) -> tuple[list[Episode], list[Episode]]:
    """To teach with, `train` or three of four, and the rest to score on. Raises ConfigError for too few."""
    train = len(episodes) * 3 // 4 if train is None else train
    if not 2 <= train < len(episodes):
        raise ConfigError(
            f"{len(episodes)} episodes, {train} to teach probes: want at least 2, and 1 or more left to score"
        )
    return list(episodes[:train]), list(episodes[train:])


def probe(
    learner: Learner, teaching: Sequence[Episode], held_out: Sequence[Episode], fitting: Fitting
) -> dict[str, Any]:
    """Teach both probes and score them; of `teaching`, one episode in eight says when to stop.

    Returns:
        teaching, held_out: numbers of episodes; updates: at which each probe was best.
        walls: `probe` and `constant`, shares of right cells; `by_row` the same in bins of `ROWS` rows.
        objects: `probe` and `constant`, RMSE in cells; `by_age` the same, and `count`, by steps since last in view.
    """
    validation, test = read(learner, teaching[::8]), read(learner, held_out)
    train = read(learner, [episode for i, episode in enumerate(teaching) if i % 8])
    updates, walls, objects = {}, {}, {}
    updates["walls"], walls["probe"], walls["constant"] = _walls(train, validation, test, fitting)
    updates["objects"], objects["probe"], objects["constant"] = _objects(train, validation, test, fitting)
    return {
        "teaching": len(teaching),
        "held_out": len(held_out),
        "updates": updates,
        "walls": {name: float(right[test.scored].mean()) for name, right in walls.items()}
        | {"by_row": _by_row(walls, test.row)},
        "objects": {name: _rmse(error[test.scored]) for name, error in objects.items()}
        | {"by_age": _by_age(objects, test)},
    }


def _walls(train: Frames, validation: Frames, test: Frames, fitting: Fitting) -> tuple[int, Tensor, Tensor]:
    """The update at which the probe was best; shares of cells that it and the constant have right, (n,) each."""
    share = train.walls.mean(0)
    maze = Probe(train.inputs.shape[1], torch.logit(share, 1e-3), torch.ones_like(share), fitting).to(share.device)
    loss = functional.binary_cross_entropy_with_logits
    update = fit(maze, loss, (train.inputs, train.walls), (validation.inputs, validation.walls), fitting, name="walls")
    return (
        update,
        _right(predict(maze, test.inputs) > 0, test.walls),
        _right((share > 0.5).expand_as(test.walls), test.walls),
    )


def _right(guess: Tensor, walls: Tensor) -> Tensor:
    return (guess == walls.bool()).float().mean(1)


def _objects(train: Frames, validation: Frames, test: Frames, fitting: Fitting) -> tuple[int, Tensor, Tensor]:
    """The update at which the probe was best; squared distances by it and by the constant, (n, M) each."""
    mean, spread = train.objects.mean(0), train.objects.std(0).clamp_min(1e-3)
    places = Probe(train.inputs.shape[1] - POSE, mean, spread, fitting).to(mean.device)
    data = (train.inputs, train.objects), (validation.inputs, validation.objects)
    update = fit(places, functional.mse_loss, *data, fitting, name="objects")
    return update, _squared(predict(places, test.inputs), test.objects), _squared(mean, test.objects)


def _squared(guess: Tensor, objects: Tensor) -> Tensor:
    return (guess - objects).square().unflatten(1, (-1, 2)).sum(-1)


def _rmse(squared: Tensor) -> float:
    return float(squared.mean().sqrt())


def _by_row(walls: dict[str, Tensor], row: Tensor) -> dict[str, list[float]]:
    """Accuracies in bins of `ROWS` rows, and the `row` at which each begins."""
    bins = sorted(set((row // ROWS).tolist()))
    curves = {name: [float(right[row // ROWS == at].mean()) for at in bins] for name, right in walls.items()}
    return curves | {"row": [float(at * ROWS) for at in bins]}


def _by_age(objects: dict[str, Tensor], test: Frames) -> dict[str, dict[str, float]]:
    """RMSE and the number of objects in frames, by age; bins that hold none are left out."""
    chosen = {name: (test.age >= low) & (test.age <= high) for name, (low, high) in AGES.items()}
    chosen["never"] = test.age == NEVER
    masks = {name: mask & test.scored[:, None] for name, mask in chosen.items()}
    return {
        name: {who: _rmse(error[mask]) for who, error in objects.items()} | {"count": int(mask.sum())}
        for name, mask in masks.items()
        if mask.any()
    }


def print_table(result: dict[str, Any]) -> None:
    """What the command found; beside it the paper's figures where it has some."""
    mazes = f"{result['teaching']} episodes taught, the second half of {result['held_out']} others scored"
    print(f"{result['run']}, {result['env']} at step {result['step']}: {mazes}")
    print(f"{'':28s}{'probe':>10s}{'constant':>10s}")
    walls, objects = result["walls"], result["objects"]
    print(f"{'walls, accuracy':28s}{walls['probe']:10.1%}{walls['constant']:10.1%}")
    print(f"{'objects, RMSE in cells':28s}{objects['probe']:10.2f}{objects['constant']:10.2f}")
    for name, errors in objects["by_age"].items():
        label = (
            "  in view"
            if name == "in view"
            else "  never in view"
            if name == "never"
            else f"  in view {name} steps ago"
        )
        print(f"{label:28s}{errors['probe']:10.2f}{errors['constant']:10.2f}")
    if paper := PAPER.get(result["env"]):
        print("paper (30,000 mazes): constant / RSSM (TBTT) / supervised")
        print("  walls " + " / ".join(f"{value:.1%}" for value in paper["walls"]))
        print("  objects " + " / ".join(f"{value:.1f}" for value in paper["objects"]))


def plot(result: dict[str, Any], out: Path) -> None:
    """Walls by row in the episode, and objects by steps since they were last in view; replaced in one step."""
    figure = Figure(figsize=(9, 3.6), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    curves, ages = result["walls"]["by_row"], result["objects"]["by_age"]
    for name, colour in (("probe", PALETTE[0]), ("constant", "0.55")):
        left.plot(curves["row"], [100 * share for share in curves[name]], color=colour, linewidth=1.8, label=name)
        right.plot(
            list(ages), [errors[name] for errors in ages.values()], "o-", color=colour, linewidth=1.8, label=name
        )
    left.set(xlabel="row of the episode", ylabel="walls: cells right, %")
    right.set(xlabel="steps since the object was in view", ylabel="objects: RMSE in cells", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(out, figure.savefig)


if __name__ == "__main__":
    main(sys.argv[1:])
