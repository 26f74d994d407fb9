"""What does a world model know of the maze? `python -m eval.probe RUN --data FOLDER`

Probes of the Memory Maze paper (Pasukonis et al., arXiv 2210.13383): an MLP of 4 x 1024 predicts the maze from the
model's frozen feature (h, z) of each frame, all tokens side by side.

- walls: the layout as seen from above, by the share of cells that are right. The probe also gets the agent's position
  and heading, as the paper's does: the model has no way to know where its start lies in the maze.
- objects: each one's place relative to the agent, in the agent's frame (`targets_vec`), by the root of the mean squared
  distance, in cells. Only the feature goes in. Also by the steps since the object was last in view (see
  `eval.memory.visibility`).

The baseline is a constant: the more frequent value of each cell, the mean place. Scored on the second half of episodes
that the probe is not trained on, which are other mazes; the paper's are 1000 steps long. FOLDER holds episodes with
labels: `python -m replay.collect --env MemoryMaze --policy waypoints ...`, or the public dataset. The paper's probes
are trained on 30,000 mazes: on few, a probe overfits, whatever the model knows.

Writes RUN/probe.json and RUN/plots/probe.png.

    python -m eval.probe runs/MemoryMaze-lssvwm-s0 --data data/mazes
"""

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
from agent.training.learner import Learner
from agent.training.load import load_run
from agent.training.offline import EVERYTHING
from eval.arguments import parser, positive
from eval.memory.probe_features import LABELS, POSE, Frames, read
from eval.memory.probe_mlp import Fitting, Probe, fit, predict
from eval.memory.visibility import NEVER
from eval.output import style, write_figure, write_json
from replay import Episode, Replay

AGES = {
    "in view": (0, 0),
    "1-15": (1, 15),
    "16-63": (16, 63),
    "64-255": (64, 255),
    "256-": (256, 1 << 30),
    "never": (NEVER, NEVER),
}
"""Steps since an object was last in view, both ends included."""
ROWS = 50
"""Rows of an episode in a bin of the walls' curve."""
PAPER = {"MemoryMaze": {"walls": (0.808, 0.940, 0.997), "objects": (4.9, 2.5, 0.5)}}
"""Table of arXiv 2210.13383: constant, RSSM (TBTT), supervised."""


def main(argv: Sequence[str]) -> None:
    """The command."""
    options = parser("probe", __doc__)
    options.add_argument("run", type=Path, metavar="RUN", help="run folder, runs/<name>")
    options.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="episodes with labels")
    options.add_argument("--train", type=int, metavar="N", help="episodes to train probes on (default: 3 of 4)")
    for name, words in (("hidden", "width"), ("layers", "depth"), ("updates", "at most")):
        default = getattr(Fitting, name)
        options.add_argument(f"--{name}", type=positive, default=default, help=f"{words} (default: {default})")
    options.add_argument("--json", action="store_true", help="print one JSON object alone")
    given = options.parse_args(argv)
    with one_line_errors():
        config, learner, step = load_run(given.run)
        if not config.env.startswith("MemoryMaze"):
            raise ConfigError(f"{given.run}: {config.env} has no maze to probe for: want a run in MemoryMaze")
        train, held_out = split(load(given.data), given.train)
        torch.manual_seed(0)
        fitting = Fitting(given.hidden, given.layers, given.updates)
        result = {"run": given.run.name, "env": config.env, "step": step} | probe(learner, train, held_out, fitting)
    write_json(given.run / "probe.json", result)
    plot(result, given.run / "plots" / "probe.png")
    if given.json:
        print(json.dumps(result))
    else:
        print_table(result)


def load(folder: Path) -> list[Episode]:
    """The whole episodes of a folder, oldest first. Raises ConfigError for no folder or no labels."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder")
    replay = Replay(folder, EVERYTHING)
    episodes = []
    for name in replay.names():
        try:
            episode = replay.get(name)
        except KeyError:
            continue  # damaged: replay has warned
        if missing := [label for label in LABELS if label not in episode.labels]:
            raise ConfigError(f"{folder / name} has no label {missing[0]}: collect episodes with `replay.collect`")
        episodes.append(episode)
    return episodes


def split(episodes: Sequence[Episode], train: int | None) -> tuple[list[Episode], list[Episode]]:
    """To train on, `train` or three of four, and the rest to score on. Raises ConfigError for too few."""
    train = len(episodes) * 3 // 4 if train is None else train
    if not 2 <= train < len(episodes):
        counts = f"{len(episodes)} episodes, {train} to train probes on"
        raise ConfigError(f"{counts}: want at least 2, and 1 or more left to score")
    return list(episodes[:train]), list(episodes[train:])


def probe(
    learner: Learner, episodes: Sequence[Episode], held_out: Sequence[Episode], fitting: Fitting
) -> dict[str, Any]:
    """Trains both probes and scores them; one of eight `episodes` decides when to stop.

    Returns:
        train, held_out: numbers of episodes; updates: at which each probe was best.
        walls: `probe` and `constant`, shares of right cells; `by_row` the same in bins of `ROWS` rows.
        objects: `probe` and `constant`, RMSE in cells; `by_age` the same, and `count`, by steps since last in view.
    """
    validation, test = read(learner, episodes[::8]), read(learner, held_out)
    train = read(learner, [episode for i, episode in enumerate(episodes) if i % 8])
    walls_update, walls = _walls(train, validation, test, fitting)
    objects_update, objects = _objects(train, validation, test, fitting)
    return {
        "train": len(episodes),
        "held_out": len(held_out),
        "updates": {"walls": walls_update, "objects": objects_update},
        "walls": {name: float(right[test.scored].mean()) for name, right in walls.items()}
        | {"by_row": _by_row(walls, test.row)},
        "objects": {name: _rmse(error[test.scored]) for name, error in objects.items()}
        | {"by_age": _by_age(objects, test)},
    }


def _walls(train: Frames, validation: Frames, test: Frames, fitting: Fitting) -> tuple[int, dict[str, Tensor]]:
    """The update at which the probe is best; shares of right cells (n,) of it and of the constant."""
    share = train.walls.mean(0)
    maze = Probe(train.inputs.shape[1], torch.logit(share, 1e-3), torch.ones_like(share), fitting).to(share.device)
    loss = functional.binary_cross_entropy_with_logits
    update = fit(maze, loss, (train.inputs, train.walls), (validation.inputs, validation.walls), fitting, name="walls")
    guesses = {"probe": predict(maze, test.inputs) > 0, "constant": (share > 0.5).expand_as(test.walls)}
    return update, {name: (guess == test.walls.bool()).float().mean(1) for name, guess in guesses.items()}


def _objects(train: Frames, validation: Frames, test: Frames, fitting: Fitting) -> tuple[int, dict[str, Tensor]]:
    """The update at which the probe is best; squared distances (n, M) of it and of the constant."""
    mean, spread = train.objects.mean(0), train.objects.std(0).clamp_min(1e-3)
    places = Probe(train.inputs.shape[1] - POSE, mean, spread, fitting).to(mean.device)
    data = (train.inputs, train.objects), (validation.inputs, validation.objects)
    update = fit(places, functional.mse_loss, *data, fitting, name="objects")
    guesses = {"probe": predict(places, test.inputs), "constant": mean}
    return update, {
        name: (guess - test.objects).square().unflatten(1, (-1, 2)).sum(-1) for name, guess in guesses.items()
    }


def _rmse(squared: Tensor) -> float:
    return float(squared.mean().sqrt())


def _by_row(walls: dict[str, Tensor], row: Tensor) -> dict[str, list[float]]:
    """Accuracies in bins of `ROWS` rows, and the `row` at which each begins."""
    bins = sorted(set((row // ROWS).tolist()))
    curves = {name: [float(right[row // ROWS == at].mean()) for at in bins] for name, right in walls.items()}
    return curves | {"row": [float(at * ROWS) for at in bins]}


def _by_age(objects: dict[str, Tensor], test: Frames) -> dict[str, dict[str, float]]:
    """RMSE and the number of objects in frames, by age; bins that hold none are left out."""
    masks = {name: (test.age >= low) & (test.age <= high) & test.scored[:, None] for name, (low, high) in AGES.items()}
    return {
        name: {predictor: _rmse(error[mask]) for predictor, error in objects.items()} | {"count": int(mask.sum())}
        for name, mask in masks.items()
        if mask.any()
    }


def print_table(result: dict[str, Any]) -> None:
    """The result, and the paper's where it has one."""
    mazes = f"{result['train']} episodes to train, the second half of {result['held_out']} others scored"
    print(f"{result['run']}, {result['env']} at step {result['step']}: {mazes}")
    print(f"{'':28s}{'probe':>10s}{'constant':>10s}")
    walls, objects = result["walls"], result["objects"]
    print(f"{'walls, accuracy':28s}{walls['probe']:10.1%}{walls['constant']:10.1%}")
    print(f"{'objects, RMSE in cells':28s}{objects['probe']:10.2f}{objects['constant']:10.2f}")
    words = {"in view": "in view", "never": "never in view"}
    for name, errors in objects["by_age"].items():
        label = words.get(name, f"in view {name} steps ago")
        print(f"{'  ' + label:28s}{errors['probe']:10.2f}{errors['constant']:10.2f}")
    if paper := PAPER.get(result["env"]):
        print("paper (30,000 mazes): constant / RSSM (TBTT) / supervised")
        print("  walls " + " / ".join(f"{value:.1%}" for value in paper["walls"]))
        print("  objects " + " / ".join(f"{value:.1f}" for value in paper["objects"]))


def plot(result: dict[str, Any], out: Path) -> None:
    """Walls by row in the episode, and objects by steps since they were last in view."""
    figure = Figure(figsize=(9, 3.6), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    curves, ages = result["walls"]["by_row"], result["objects"]["by_age"]
    for name, shade in (("probe", PALETTE[0]), ("constant", "0.55")):
        left.plot(curves["row"], [100 * share for share in curves[name]], color=shade, linewidth=1.8, label=name)
        errors = [age[name] for age in ages.values()]
        right.plot(list(ages), errors, "o-", color=shade, linewidth=1.8, label=name)
    left.set(xlabel="row of the episode", ylabel="walls: cells right, %")
    right.set(xlabel="steps since the object was in view", ylabel="objects: RMSE in cells", ylim=(0, None))
    for axes in (left, right):
        style(axes)
        axes.legend(fontsize=8, frameon=False)
    write_figure(out, figure)


if __name__ == "__main__":
    main(sys.argv[1:])
