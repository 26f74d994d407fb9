"""How long does a world model remember? `python -m eval.retention --worldmodels lssvwm,local --seeds 0,1`

Trains each world model, for each seed, on the same episodes, and measures what it remembers of others. All have as many
parameters as lssvwm, by their number of layers (as arXiv 2505.20171 compares), unless --no-match-parameters.

- ObjectRecall, SceneCut: what it expects of a thing that disappeared and comes back, by delay; see
  `eval.memory.recall`.
- Memory Maze: the rest of an episode, by kind of revisit (`eval.memory.tasks`), and frames by when their view was last
  seen; see `eval.memory.maze`. --test-env measures in another maze, --walks and --test-data on other episodes.
  --pose trains and measures under the protocol of arXiv 2505.20171: poses for actions, and exact reversal.

A run that exists is resumed, or only measured where it is done. Prints a table; writes RUN/retention.json for each run
as it ends, and OUT/retention.json and OUT/retention.png of all. With --test-env, --walks, --test-data or --pose the
names of these files say so: no figure replaces that of another measurement.

`python -m eval.retention RUN [RUN ...]` measures runs that are trained already. Options of train_agent.py
(--worldmodel.blocks 1x1, --replay.curriculum-start 16) go to every model trained; --tag names such a variant.

--decay-scale 0.25 measures each run again with slower decays: A of Mamba-2 and log alpha of the gated delta rule, times
0.25 (arXiv 2509.19633). What is then remembered for longer was forgotten by decay, the rest lost to drift of the state.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import envs
from agent.runs.checkpoint import CheckpointError
from agent.runs.cli import one_line_errors, parse
from agent.runs.config import Config
from agent.runs.fields import ConfigError, refusals
from agent.runs.folder import file_name, stored_config, training
from agent.training.learner import Learner, check, spaces
from agent.training.load import load_run
from agent.training.offline import EVERYTHING, train_offline
from envs.policies import POLICIES
from eval.arguments import joined, names, parser, positive, positives, seeds
from eval.memory import maze, maze_report, pose, recall
from eval.memory.episodes import check_fit, collected, held_out, recorded
from eval.memory.tasks import PROTOCOLS, SECOND_HALF
from eval.output import write_json
from replay import Episode, Replay
from worldmodel.mamba2 import Mamba2
from worldmodel.match_parameters import count, match_parameters
from worldmodel.mixers.delta_memory import GatedDelta

BOTH = {
    "preset": "cpu",
    "replay.batch_size": "2",
    "replay.batch_length": "128",
    "replay.curriculum-start": "32",
    "worldmodel.hidden": "64",
    "worldmodel.dynamics-scale": "10",
    "train.grad_clip": "1000",
    "train.threads": "1",
}
MAZE = BOTH | {
    "replay.batch_size": "4",
    "replay.batch_length": "512",
    "replay.curriculum-start": "128",
    "worldmodel.d_model": "96",
    "worldmodel.latents": "continuous",
    "worldmodel.tokenizer-updates": "1000",
    "worldmodel.open-loop-prob": "0.5",
    "worldmodel.open-loop-prefix": "0.5",
}
RECALL = BOTH | {
    "worldmodel.d_model": "64",
    "worldmodel.detach-latents": "True",
    "worldmodel.num_categoricals": "128",
    "worldmodel.num_classes": "16",
    "worldmodel.tokenizer-layers": "1",
    "worldmodel.reconstruction-scale": "30",
}
"""Default options of train_agent.py in mazes and elsewhere."""

HIDING = ("ObjectRecall", "ObjectRecall-Choice", "SceneCut")
"""Environments in which a thing disappears and comes back."""
WALKS = "walks"


def main(argv: Sequence[str]) -> None:
    """The command."""
    given, options = _arguments(argv)
    with one_line_errors():
        _check_together(given)
        scales = dict.fromkeys((1.0, given.decay_scale))
        results = [_measured(run, given, scale) for run in given.runs for scale in scales]
        for seed in given.seeds:
            for name in given.worldmodels:
                run = _train(given, options, name, seed)
                results += [_measured(run, given, scale) for scale in scales]
    room = recall if "delays" in results[0] else maze_report
    room.print_table(results)
    table, figure = (given.out / f"{_stem(given)}.{suffix}" for suffix in ("json", "png"))
    write_json(table, results)
    room.plot(results, figure)
    print(f"\n{table}\n{figure}")


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """This command's own options, and those of train_agent.py."""
    own = parser("retention", __doc__)
    own.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders that are trained already")
    own.add_argument("--worldmodels", type=names, default=[], metavar="A,B", help="world models to train, by name")
    own.add_argument("--seeds", type=seeds, default=[0], metavar="0,1", help="seeds of each (default: 0)")
    own.add_argument(
        "--env",
        default="ObjectRecall:delay=2..50,shown=4,back=3",
        help="environment of training (default: %(default)s)",
    )
    own.add_argument("--updates", type=positive, default=1_800, help="updates of each (default: %(default)s)")
    own.add_argument("--data", type=positive, help="episodes to train on (default: 3000 short ones, 400 in a maze)")
    own.add_argument(
        "--policy",
        choices=(WALKS, "loops", "repeated_out_and_back", "waypoints"),
        default=WALKS,
        help="of the episodes to train on in a maze; see replay.collect (default: %(default)s)",
    )
    own.add_argument(
        "--delays",
        type=positives,
        default=[5, 10, 25, 50, 100, 256, 512],
        metavar="5,10",
        help="frames between disappearing and return to measure at (default: 5 to 512, four windows)",
    )
    own.add_argument("--episodes", type=positive, help="held-out episodes (default: 100 a delay, 8 in a maze)")
    measured = own.add_mutually_exclusive_group()
    measured.add_argument(
        "--walks",
        choices=POLICIES,
        help="measure in mazes the second half of this policy's held-out episodes, and nothing else",
    )
    measured.add_argument(
        "--test-data",
        type=Path,
        metavar="FOLDER",
        help="measure in mazes the second half of episodes in a folder, such as another RUN/episodes; need no labels",
    )
    own.add_argument("--test-env", metavar="ENV", help="measure in this maze, such as MemoryMaze-11x11")
    own.add_argument(
        "--pose",
        action="store_true",
        help="in mazes: poses for actions, in training and measurement, and exact reversal (arXiv 2505.20171)",
    )
    own.add_argument(
        "--decay-scale",
        type=float,
        default=1.0,
        metavar="0.25",
        help="measure each run a second time with decays times this (default: only as trained)",
    )
    own.add_argument(
        "--no-match-parameters",
        dest="match_parameters",
        action="store_false",
        help="leave layers as configured, whatever the number of parameters",
    )
    own.add_argument("--tag", default="", help="names a variant: part of its runs' folders and of its label")
    own.add_argument("--out", type=Path, default=Path("runs/retention"), help="folder (default: %(default)s)")
    given, options = own.parse_known_args(joined(argv))
    if not given.runs and not given.worldmodels:
        own.error("name runs, or --worldmodels to train")
    if not 0 < given.decay_scale < math.inf:
        own.error(f"--decay-scale wants a number above 0, got {given.decay_scale}")
    if given.runs and options:
        own.error(f"{options[0]}: options of train_agent.py go with --worldmodels")
    if given.test_env and given.test_data:
        own.error("--test-data has an environment of its own: leave out --test-env")
    return given, options


def _stem(given: argparse.Namespace) -> str:
    """The name of files of results, without a suffix: by what is measured."""
    folder = "-".join(given.test_data.resolve().parts[-2:]) if given.test_data else None
    parts = given.test_env, given.walks, folder, "pose" if given.pose else None
    return "-".join(["retention", *(file_name(part) for part in parts if part)])


def _check_together(given: argparse.Namespace) -> None:
    """Refuses runs in more than one environment, whatever the delays of their training; and options of mazes elsewhere.

    Runs in several mazes have a table where they are measured on the same episodes.
    """
    trained = [config.env for run in given.runs if (config := stored_config(run))]
    trained += [given.env] if given.worldmodels else []
    options = {name: getattr(given, name) for name in ("test_env", "walks", "test_data", "pose")}
    asked = [option for option, value in options.items() if value]
    for env in [*trained, *([given.test_env] if given.test_env else [])]:
        if asked and not _is_maze(env):
            raise ConfigError(f"--{asked[0].replace('_', '-')} is for Memory Maze, not for {env}")
    for env in trained:
        if not (given.test_env or given.test_data) and _without_delay(env) != _without_delay(trained[0]):
            raise ConfigError(f"runs in {trained[0]} and runs in {env} have no table in common")


def _without_delay(env: str) -> tuple[str, list[str]]:
    """An environment's name and its options but for the delay."""
    base, _, options = env.partition(":")
    return base, sorted(option for option in options.split(",") if option and not option.startswith("delay="))


def _train(given: argparse.Namespace, options: list[str], name: str, seed: int) -> Path:
    """The run folder of one model, trained."""
    _check_env(given.env)
    if given.policy != WALKS and not _is_maze(given.env):
        raise ConfigError(f"--policy {given.policy} is for Memory Maze, not for {given.env}")
    label = "-".join(part for part in (name, given.tag, "pose" if given.pose else "") if part)
    folder = given.out / f"{label}-s{seed}"
    config = configuration(given.env, name, seed, folder, options)
    check(config)
    if given.match_parameters:
        environment = envs.make(config.env)
        observation, actions, _ = spaces(environment.observation_space, environment.action_space)
        environment.close()
        shape = observation, pose.WIDTH if given.pose else actions
        lssvwm = configuration(given.env, "lssvwm", seed, given.out / "none", options).worldmodel
        with refusals():
            config.worldmodel = match_parameters(config.worldmodel, *shape, count(lssvwm, *shape))
    with training(config):
        train, val = _episodes(config.env, given)
        train_offline(config, folder, train, given.updates, val)
    return folder


def configuration(env: str, name: str, seed: int, folder: Path, options: Sequence[str]) -> Config:
    """What train_agent.py makes of these options, over `RECALL` or `MAZE`."""
    defaults = [f"--{option}={value}" for option, value in (MAZE if _is_maze(env) else RECALL).items()]
    own = ["--env", env, "--worldmodel", name, "--seed", str(seed), "--run-dir", str(folder)]
    return parse([*defaults, *options, *own])


def _episodes(env: str, given: argparse.Namespace) -> tuple[Path, Path]:
    """Folders of episodes to train on, and of others to validate on; collected where they are missing."""
    in_maze = _is_maze(env)
    episodes, validation, policy = (
        (given.data or 400, 4, given.policy) if in_maze else (given.data or 3_000, 64, "random")
    )
    origin = f"{env}-{policy}" if in_maze else env
    folders = [given.out / "episodes" / file_name(f"{origin}-{part}") for part in ("train", "val")]
    collected(env, episodes, policy, folders[0], seed=0)
    collected(env, 4 if in_maze else 64, policy, folders[1], seed=1)
    if (found := len(Replay(folders[0], EVERYTHING))) > episodes:
        raise ConfigError(f"{folders[0]} holds {found} episodes, not {episodes}: give another --out, or --data {found}")
    train, val = (pose.convert(folder) for folder in folders) if given.pose else folders
    return train, val


def _measured(run: Path, given: argparse.Namespace, scale: float = 1.0) -> dict[str, Any]:
    """The run's results, measured where they are missing, or of an earlier checkpoint or other tasks or delays.

    With decays times another `scale`, those of retention-decay<scale>.json.
    """
    config, learner, step = _load(run, given.pose)
    _check_env(config.env)
    in_maze = _is_maze(config.env)
    wanted: dict[str, Any] = {"step": step, "episodes": given.episodes or (8 if in_maze else 100)}
    wanted |= _wanted_in_maze(config.env, given) if in_maze else {"delays": given.delays}
    label = re.sub(r"-s\d+$", "", run.name) or run.name  # what a run's seeds have in common
    suffix = "" if scale == 1 else f"-decay{scale:g}"
    named = {"run": run.name + suffix, "label": label + suffix}
    path = run / f"{_stem(given)}{suffix}.json"
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if all(stored.get(name) == value for name, value in wanted.items()):
            return stored | named
    if scale != 1:
        _scale_decays(learner.model, scale)
    result = {
        **named,
        "worldmodel": config.worldmodel.name,
        "seed": config.seed,
        "env": config.env,
        "frames": config.replay.batch_length,
        "parameters": sum(p.numel() for p in learner.model.parameters()),
        **wanted,
    }
    if in_maze:
        result |= _in_maze(learner, config.env, wanted["episodes"], given)
    else:
        measured = {str(d): recall.measure(learner, config.env, d, wanted["episodes"]) for d in given.delays}
        result["retention"] = measured
    write_json(path, result)
    return result


def _load(run: Path, with_poses: bool) -> tuple[Config, Learner, int]:
    """As `load_run`, with the width of the conditions that the run was trained on."""
    try:
        return load_run(run, pose.WIDTH) if with_poses else load_run(run)
    except CheckpointError as error:
        if "tensor" not in str(error):
            raise
        trained = "without --pose" if with_poses else "with --pose"
        raise CheckpointError(f"{run}: {error} (a run trained {trained} is measured {trained})") from None


def _scale_decays(model: torch.nn.Module, scale: float) -> None:
    """Raises ConfigError where the model has no layer whose decay it can scale."""
    layers = [module for module in model.modules() if isinstance(module, Mamba2 | GatedDelta)]
    if not layers:
        raise ConfigError("--decay-scale is of the scans of Mamba-2 and of the gated delta rule: the model has neither")
    for layer in layers:
        layer.decay_scale = scale


def _wanted_in_maze(env: str, given: argparse.Namespace) -> dict[str, Any]:
    """What figures must be of to be taken over."""
    test = str(given.test_data) if given.test_data else f"{given.walks or 'held out'}, {given.test_env or env}"
    protocol = _protocol(given)
    tasks = ["second_half"] if given.walks or given.test_data else list(PROTOCOLS[protocol].tasks)
    return {"stretch": maze.STRETCH, "test": test, "protocol": protocol, "tasks": tasks}


def _protocol(given: argparse.Namespace) -> str:
    return "poses" if given.pose else "actions"


def _in_maze(learner: Learner, env: str, episodes: int, given: argparse.Namespace) -> dict[str, Any]:
    """All tasks, or the second half of the episodes that were asked for; collected where they are missing."""
    protocol, env = PROTOCOLS[_protocol(given)], given.test_env or env

    def checked(found: list[Episode], origin: str) -> list[Episode]:
        if given.pose:
            pose.require_poses(found[0], origin)
        check_fit(learner, protocol.prepare(found[0]), origin)
        return found

    def of_policy(policy: str) -> list[Episode]:
        return checked(held_out(env, episodes, policy, given.out / "episodes"), env)

    if given.walks:
        found = of_policy(given.walks)
    elif given.test_data:
        found = checked(recorded(given.test_data, episodes), str(given.test_data))
    else:
        return maze.measure(learner, protocol, of_policy)
    return {"second_half": maze.continued(learner, [protocol.prepare(e) for e in found], SECOND_HALF.share)}


def _check_env(env: str) -> None:
    if not _is_maze(env) and env.partition(":")[0] not in HIDING:
        raise ConfigError(f"nothing in {env} is hidden: want {', '.join(HIDING)} or MemoryMaze")


def _is_maze(env: str) -> bool:
    return env.startswith("MemoryMaze")


if __name__ == "__main__":
    main(sys.argv[1:])
