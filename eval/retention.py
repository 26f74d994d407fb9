"""How long does a world model remember? `python -m eval.retention --worldmodels lssvwm,local --seeds 0,1`

Teaches each world model, for each seed, the same episodes, and measures what it remembers of others. All have as many
parameters as lssvwm, by their number of layers (arXiv 2505.20171 compares so), unless --no-match-parameters.

- ObjectRecall, SceneCut: what it expects of a thing that disappeared and comes back, by delay; see
  `eval.memory.recall`.
- Memory Maze: retrieval, reasoning, and frames by when their view was last seen; see `eval.memory.maze`.

A run that is there already is taken up again, or only measured where it is done. Prints a table; writes
RUN/retention.json for each run as it ends, and OUT/retention.json and OUT/retention.png of all.

`python -m eval.retention RUN [RUN ...]` does the same for runs that were taught before. Options of train_agent.py
(--worldmodel.blocks 1x1, --replay.curriculum-start 16) go to every model taught; --tag names such a variant.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import envs
from agent.runs.cli import one_line_errors, parse
from agent.runs.config import Config
from agent.runs.fields import ConfigError, refusals
from agent.runs.folder import file_name, stored_config, training
from agent.runs.load import load_run
from agent.training.learner import Learner, check, spaces
from agent.training.offline import EVERYTHING, train_offline
from eval.memory import maze as maze_memory
from eval.memory import maze_plot, recall_plot
from eval.memory import recall as recall_memory
from eval.options import joined, names, numbers, positive, positives
from replay import Episode, Replay
from replay.atomic import write_text_atomically
from replay.collect import collect
from replay.record import RecordingError
from worldmodel.match_parameters import count, match_parameters

RECALL = {
    "preset": "cpu",
    "replay.batch_size": "2",
    "replay.batch_length": "128",
    "replay.curriculum-start": "32",
    "worldmodel.detach-latents": "True",
    "worldmodel.tokenizer-layers": "1",
    "worldmodel.num_categoricals": "128",
    "worldmodel.num_classes": "16",
    "worldmodel.d_model": "64",
    "worldmodel.hidden": "64",
    "worldmodel.reconstruction-scale": "30",
    "worldmodel.dynamics-scale": "10",
    "train.grad_clip": "1000",
    "train.threads": "1",
}
MAZE = {
    "preset": "cpu",
    "replay.batch_size": "2",
    "replay.batch_length": "128",
    "replay.curriculum-start": "32",
    "worldmodel.detach-latents": "True",
    "worldmodel.num_categoricals": "128",
    "worldmodel.num_classes": "16",
    "worldmodel.d_model": "96",
    "worldmodel.hidden": "64",
    "worldmodel.reconstruction-scale": "10",
    "worldmodel.dynamics-scale": "10",
    "train.grad_clip": "1000",
    "train.threads": "1",
}
"""Options of train_agent.py for small pictures and for mazes; those of the command line go before them."""


HIDING = ("ObjectRecall", "ObjectRecall-Choice", "SceneCut")
"""Environments in which a thing disappears and comes back."""
WAYPOINTS = "waypoints"
WALK = 800
"""Steps of a maze's held-out episodes, as in LSSVWM (arXiv 2505.20171)."""


def main(argv: Sequence[str]) -> None:
    """The command."""
    arguments, options = _arguments(argv)
    with one_line_errors():
        _check_together(arguments)
        results = [_measured(run, arguments) for run in arguments.runs]
        for seed in arguments.seeds:
            for name in arguments.worldmodels:
                results.append(_measured(_teach(arguments, options, name, seed), arguments))
    mazes = "delays" not in results[0]
    (maze_memory if mazes else recall_memory).print_table(results)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text_atomically(arguments.out / "retention.json", json.dumps(results, indent=1) + "\n")
    print(f"\n{arguments.out / 'retention.json'}")
    (maze_plot if mazes else recall_plot).plot(results, arguments.out / "retention.png")
    print(arguments.out / "retention.png")


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """This command's own options, and those of train_agent.py."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.retention", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders that were taught before")
    parser.add_argument("--worldmodels", type=names, default=[], metavar="A,B", help="world models to teach, by name")
    parser.add_argument("--seeds", type=numbers, default=[0], metavar="0,1", help="seeds of each (default: 0)")
    parser.add_argument(
        "--env", default="ObjectRecall:delay=2..50,shown=4,back=3", help="what is taught (default: %(default)s)"
    )
    parser.add_argument("--updates", type=positive, default=1_800, help="updates of each (default: %(default)s)")
    parser.add_argument("--data", type=positive, help="episodes to teach (default: 3000 short ones, 30 in a maze)")
    parser.add_argument(
        "--policy",
        choices=(WAYPOINTS, "repeated_out_and_back"),
        default=WAYPOINTS,
        help="who walks the mazes that are taught; see replay.collect (default: %(default)s)",
    )
    parser.add_argument(
        "--delays",
        type=positives,
        default=[5, 10, 25, 50, 100, 256, 512],
        metavar="5,10",
        help="frames between disappearing and return to measure at (default: 5 to 512, four windows)",
    )
    parser.add_argument("--episodes", type=positive, help="held-out episodes (default: 100 a delay, 8 in a maze)")
    parser.add_argument(
        "--no-match-parameters",
        action="store_true",
        help="leave layers as they are: not as many parameters as lssvwm has",
    )
    parser.add_argument("--tag", default="", help="names a variant: part of its runs' folders and of its label")
    parser.add_argument("--out", type=Path, default=Path("runs/retention"), help="folder (default: %(default)s)")
    arguments, options = parser.parse_known_args(joined(argv))
    if not arguments.runs and not arguments.worldmodels:
        parser.error("name runs, or --worldmodels to teach")
    if min(arguments.seeds) < 0:
        parser.error("--seeds wants numbers of 0 or more")
    if arguments.runs and options:
        parser.error(f"{options[0]}: options of train_agent.py go with --worldmodels")
    return arguments, options


def _check_together(arguments: argparse.Namespace) -> None:
    """Refuse runs in more than one environment, whatever the delays that they were taught at."""
    found = [config.env for run in arguments.runs if (config := stored_config(run))]
    for env in [*found, arguments.env] if arguments.worldmodels else found:
        if _without_delay(env) != _without_delay(found[0] if found else env):
            raise ConfigError(f"runs in {found[0]} and runs in {env} have no table in common")


def _without_delay(env: str) -> tuple[str, list[str]]:
    """An environment's name and its options, but for the delay: each is measured in its turn."""
    base, _, options = env.partition(":")
    return base, sorted(option for option in options.split(",") if option and not option.startswith("delay="))


def _teach(arguments: argparse.Namespace, options: list[str], name: str, seed: int) -> Path:
    """The run folder of one model, taught."""
    _check_env(arguments.env)
    if arguments.policy != WAYPOINTS and not _is_maze(arguments.env):
        raise ConfigError(f"--policy {arguments.policy} walks in Memory Maze, not in {arguments.env}")
    label = f"{name}-{arguments.tag}" if arguments.tag else name
    folder = arguments.out / f"{label}-s{seed}"
    config = configuration(arguments.env, name, seed, folder, options)
    check(config)
    if not arguments.unmatched:
        environment = envs.make(config.env)
        shape = spaces(environment.observation_space, environment.action_space)[:2]
        environment.close()
        lssvwm = configuration(arguments.env, "lssvwm", seed, arguments.out / "none", options).worldmodel
        with refusals():
            config.worldmodel = match_parameters(config.worldmodel, *shape, count(lssvwm, *shape))
    with training(config):
        train, held_out = _episodes(config.env, arguments)
        train_offline(config, folder, train, arguments.updates, held_out)
    return folder


def _episodes(env: str, arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Folders of episodes to teach, and of others to validate on; collected where they are missing."""
    maze = _is_maze(env)
    of = f"{env}-{arguments.policy}" if maze and arguments.policy != WAYPOINTS else env
    train, held_out = (arguments.out / "episodes" / file_name(f"{of}-{part}") for part in ("train", "heldout"))
    if maze:
        episodes = arguments.data or 30
        _collect(env, episodes, arguments.policy, train, seed=0)
        _collect(env, 4, arguments.policy, held_out, seed=1)
    else:
        episodes = arguments.data or 3_000
        recall_memory.gather(env, episodes, train, seed=0)
        recall_memory.gather(env, 64, held_out, seed=500_000)
    _refuse_more(train, episodes)
    return train, held_out


def _collect(env: str, episodes: int, policy: str, folder: Path, seed: int, steps: int | None = None) -> None:
    """As `replay.collect.collect`; raises ConfigError in place of RecordingError."""
    try:
        collect(env, episodes, policy, folder, seed=seed, steps=steps)
    except RecordingError as error:
        raise ConfigError(str(error)) from None


def _refuse_more(folder: Path, episodes: int) -> None:
    """All the episodes of a folder are taught."""
    held = len(Replay(folder, EVERYTHING))
    if held > episodes:
        raise ConfigError(f"{folder} holds {held} episodes, not {episodes}: give another --out, or --data {held}")


def configuration(env: str, name: str, seed: int, folder: Path, options: Sequence[str]) -> Config:
    """What train_agent.py would make of these options, over `RECALL` or `MAZE`."""
    defaults = [f"--{option}={value}" for option, value in (MAZE if _is_maze(env) else RECALL).items()]
    own = ["--env", env, "--worldmodel", name, "--seed", str(seed), "--run-dir", str(folder)]
    return parse([*defaults, *options, *own])


def _measured(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The run's retention.json, made anew where it is missing, or is of an earlier checkpoint or other delays."""
    config, learner, step = load_run(run)
    _check_env(config.env)
    maze = _is_maze(config.env)
    wanted: dict[str, Any] = {"step": step, "episodes": arguments.episodes or (8 if maze else 100)}
    wanted |= {"stretch": maze_memory.STRETCH} if maze else {"delays": arguments.delays}
    named = {"run": run.name, "label": _label(run)}
    path = run / "retention.json"
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if all(stored.get(name) == value for name, value in wanted.items()):
            return stored | named
    result = {
        **named,
        "worldmodel": config.worldmodel.name,
        "seed": config.seed,
        "env": config.env,
        "frames": config.replay.batch_length,
        "parameters": sum(p.numel() for p in learner.model.parameters()),
        **wanted,
    }
    if maze:
        result |= _in_maze(learner, config, wanted["episodes"], arguments.out / "episodes")
    else:
        measured = {str(d): recall_memory.measure(learner, config.env, d, wanted["episodes"]) for d in arguments.delays}
        result["retention"] = measured
    write_text_atomically(path, json.dumps(result, indent=1) + "\n")
    return result


def _label(run: Path) -> str:
    """What a run's seeds have in common: its folder's name without the `-s0` at its end."""
    return re.sub(r"-s\d+$", "", run.name) or run.name


def _in_maze(learner: Learner, config: Config, episodes: int, folder: Path) -> dict[str, Any]:
    """Retrieval, reasoning and views, on episodes that are collected where they are missing."""
    walked = _walks(config.env, episodes, WAYPOINTS, folder / file_name(f"{config.env}-walks"), seed=2)
    retraced = _walks(config.env, episodes, "out_and_back", folder / file_name(f"{config.env}-reverse"), seed=3)
    return {
        "retrieval": maze_memory.continued(learner, retraced, 0.5),
        "reasoning": maze_memory.continued(learner, walked, 0.72),
        "views": maze_memory.by_view(learner, [*walked, *retraced]),
    }


def _walks(env: str, episodes: int, policy: str, folder: Path, seed: int) -> list[Episode]:
    """The first so many episodes of a folder."""
    _collect(env, episodes, policy, folder, seed, WALK)
    replay = Replay(folder, EVERYTHING)
    return [replay.get(name) for name in replay.names()[:episodes]]


def _check_env(env: str) -> None:
    if not _is_maze(env) and env.partition(":")[0] not in HIDING:
        raise ConfigError(f"nothing in {env} is hidden: want {', '.join(HIDING)} or MemoryMaze")


def _is_maze(env: str) -> bool:
    return env.startswith("MemoryMaze")


if __name__ == "__main__":
    main(sys.argv[1:])
