"""Evaluate a run's newest checkpoint on the evaluation's own seeds: `python -m eval.returns RUN`

The protocol: 100 whole episodes on environment seeds that training never uses, actions sampled from the policy (or
--greedy), memory carried from each episode's first frame to its last. Prints mean, interquartile mean (IQM) and their
95 % bootstrap intervals over episodes, and human-normalised scores where random and human returns are published;
writes RUN/eval.json.

--reset-memory-at K is the control for what memory is worth: memory is wiped at frame K of every episode (the first is frame
0), and RUN/eval-forget-K.json is written.
"""

import argparse
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import envs
from agent.runs import checkpoint
from agent.runs.cli import one_line_errors
from agent.runs.config import Config
from agent.runs.folder import named_after
from agent.runs.load import load_policy
from agent.training.collector import EpisodeStats
from agent.training.evaluation import SEEDS, play
from eval import statistics
from eval.human_normalized import normaliser
from replay.atomic import write_text_atomically
from replay.progress import Progress

PROTOCOL = "returns-1"
"""Names what is measured: figures of another name are not to be compared with these."""

EPISODES = 100


@dataclass(frozen=True)
class Protocol:
    """What an evaluation's figures depend on, beside the checkpoint."""

    episodes: int = EPISODES
    actions: str = "sampled"
    """sampled from the policy, or greedy: its most likely action."""
    envs: int = 2
    """Environments side by side: each has a seed of its own and draws its episodes one after the other."""
    forget: int | None = None
    """Frame of each episode at which memory is wiped."""
    protocol: str = PROTOCOL
    seed: int = SEEDS
    """Of the first environment."""

    def path(self, run: Path) -> Path:
        """Where the figures of a run are kept."""
        return run / ("eval.json" if self.forget is None else f"eval-forget-{self.forget}.json")


def main(argv: Sequence[str]) -> None:
    """Print the returns and write RUN/eval.json."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.returns", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, runs/<name>")
    parser.add_argument("--episodes", type=int, default=EPISODES, help="whole episodes (default: %(default)s)")
    parser.add_argument("--greedy", action="store_true", help="the policy's most likely action, not a sample")
    parser.add_argument("--reset-memory-at", type=int, metavar="K", help="wipe memory at frame K of every episode")
    parser.add_argument("--envs", type=int, default=2, help="environments side by side (default: 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    arguments = parser.parse_args(argv)
    if arguments.episodes < 1 or arguments.envs < 1:
        parser.error("--episodes and --envs want a number of 1 or more")
    if arguments.forget is not None and arguments.forget < 1:
        parser.error("--reset-memory-at wants a frame after the first: 1 or more")
    actions = "greedy" if arguments.greedy else "sampled"
    protocol = Protocol(arguments.episodes, actions, arguments.envs, arguments.forget)
    with one_line_errors():
        result = measure(arguments.run, protocol, "python -m eval.returns " + " ".join(argv))
    print(json.dumps(result) if arguments.json else summary(result))


def measure(run: Path, protocol: Protocol, command: str) -> dict[str, Any]:
    """Plays the episodes and writes the figures to the run's folder. Raises as `agent.runs.load.load_policy`."""
    trained = load_policy(run)
    config = trained.config
    torch.manual_seed(sampling_seed(config))
    environments = envs.make_vector(config.env, min(protocol.episodes, protocol.envs))
    try:
        policy = trained.policy(environments.num_envs, protocol.actions == "greedy")
        episodes = play(policy, environments, protocol.episodes, protocol.forget, protocol.seed)
        done = list(_shown(episodes, protocol.episodes))
    finally:
        environments.close()
    result = {
        "env": config.env,
        "agent": config.agent.name,
        "worldmodel": config.worldmodel.name if "worldmodel" in trained.parameters else None,
        "seed_of_training": config.seed,
        "step": trained.step,
        **asdict(protocol),
        **figures(np.array([episode.ret for episode in done]), config.env),
        "lengths": [episode.length for episode in done],
        "parameters": trained.parameters,
        "command": command,
    }
    write_text_atomically(protocol.path(run), json.dumps(result, indent=1) + "\n")
    return result


def sampling_seed(config: Config) -> int:
    """Seeds the policy's samples, the same ones each time.

    Of each run its own: weak policies that draw the same actions in the same episodes have the same luck, and
    intervals over runs would be too narrow.
    """
    return zlib.crc32(f"{config.env} {named_after(config.worldmodel.name, config.agent.name)} {config.seed}".encode())


def measured(run: Path, protocol: Protocol) -> dict[str, Any] | None:
    """What `measure` wrote, if it was by this protocol and of the newest checkpoint."""
    path, found = protocol.path(run), checkpoint.load_latest(run / "checkpoints")
    if found is None or not path.exists():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    wanted = {"step": found[0], **asdict(protocol)}
    return stored if all(stored.get(name) == value for name, value in wanted.items()) else None


def figures(returns: np.ndarray, env: str) -> dict[str, Any]:
    """Aggregates over episodes of returns (episodes,), with 95 % bootstrap intervals, and normalised ones."""
    scores = returns[:, None]  # one task
    result = {
        "mean": float(returns.mean()),
        "mean_interval": statistics.interval(statistics.mean, scores),
        "std": float(returns.std()),
        "min": float(returns.min()),
        "max": float(returns.max()),
        "iqm": float(statistics.iqm(scores)),
        "iqm_interval": statistics.interval(statistics.iqm, scores),
        "returns": returns.tolist(),
    }
    normalise = normaliser(env)
    if normalise is not None:
        # Scores are linear in returns, and so are these two of them.
        result["normalised"] = {name: normalise(result[name]) for name in ("mean", "iqm")}
        for name in ("mean_interval", "iqm_interval"):
            result["normalised"][name] = [normalise(bound) for bound in result[name]]
    return result


def summary(result: dict[str, Any]) -> str:
    """The figures in a few lines."""
    wiped = "" if result["forget"] is None else f", memory wiped at frame {result['forget']}"
    lines = [
        f"{result['env']} at step {result['step']}: return {result['mean']:.2f} +- {result['std']:.2f} "
        f"({result['min']:.2f} to {result['max']:.2f}) over {result['episodes']} episodes, "
        f"{result['actions']} actions{wiped}",
        _aggregates("return", result),
    ]
    if "normalised" in result:
        lines.append(_aggregates("human-normalised", result["normalised"]))
    return "\n".join(lines)


def _aggregates(name: str, result: dict[str, Any]) -> str:
    parts = [
        f"{label} {result[key]:.3f} [{result[f'{key}_interval'][0]:.3f}, {result[f'{key}_interval'][1]:.3f}]"
        for label, key in (("mean", "mean"), ("IQM", "iqm"))
    ]
    return f"{name}: {', '.join(parts)} (95 %, bootstrap over episodes)"


def _shown(episodes: Iterable[EpisodeStats], total: int) -> Iterator[EpisodeStats]:
    """The same episodes; how many have ended, and their mean return, on standard error."""
    returns: list[float] = []
    with Progress(total, "episodes") as progress:
        for episode in episodes:
            returns.append(episode.ret)
            progress.update(len(returns), f"return {np.mean(returns):.2f}")
            yield episode


if __name__ == "__main__":
    main(sys.argv[1:])
