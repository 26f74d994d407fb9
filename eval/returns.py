"""Evaluate a run's newest checkpoint on the evaluation's own seeds: `python -m eval.returns RUN`

The protocol: 100 whole episodes on environment seeds that training never uses, actions sampled from the policy (or
--greedy), memory carried from each episode's first frame to its last. Prints mean, interquartile mean (IQM) and their
95 % bootstrap intervals over episodes, and human-normalized scores where random and human returns are published;
writes RUN/eval.json.

--reset-memory-at N measures what memory is worth: memory is emptied at frame N of every episode (the first is frame 0),
and RUN/eval-reset-memory-at-N.json is written.
"""

import json
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.logging.plots import references
from agent.runs import checkpoint
from agent.runs.cli import one_line_errors
from agent.runs.config import Config
from agent.runs.folder import run_label
from agent.training.evaluation import SEEDS, evaluate
from agent.training.load import load_policy
from eval import statistics
from eval.arguments import parser, positive
from eval.output import write_json
from replay.progress import Progress

PROTOCOL = "returns-1"
"""Names what is measured: results of another name are not comparable."""
EPISODES = 100


@dataclass(frozen=True)
class Protocol:
    """What an evaluation's results depend on, beside the checkpoint."""

    episodes: int = EPISODES
    actions: str = "sampled"
    """sampled from the policy, or greedy: its most likely action."""
    envs: int = 2
    """Environments side by side: each has a seed of its own and draws its episodes one after the other."""
    reset_memory_at: int | None = None
    """Frame of each episode at which memory is emptied."""
    protocol: str = PROTOCOL
    seed: int = SEEDS
    """Of the first environment."""

    def path(self, run: Path) -> Path:
        """The file of a run that holds the results."""
        at = self.reset_memory_at
        return run / ("eval.json" if at is None else f"eval-reset-memory-at-{at}.json")


def main(argv: Sequence[str]) -> None:
    """Print the returns and write RUN/eval.json."""
    options = parser("returns", __doc__)
    options.add_argument("run", type=Path, metavar="RUN", help="run folder, runs/<name>")
    options.add_argument("--episodes", type=positive, default=EPISODES, help="whole episodes (default: %(default)s)")
    options.add_argument("--greedy", action="store_true", help="the policy's most likely action, not a sample")
    options.add_argument("--reset-memory-at", type=positive, metavar="N", help="empty memory at frame N of episodes")
    options.add_argument("--envs", type=positive, default=2, help="environments side by side (default: %(default)s)")
    options.add_argument("--json", action="store_true", help="print one JSON object alone")
    given = options.parse_args(argv)
    actions = "greedy" if given.greedy else "sampled"
    protocol = Protocol(given.episodes, actions, given.envs, given.reset_memory_at)
    with one_line_errors():
        result = measure(given.run, protocol, "python -m eval.returns " + " ".join(argv))
    print(json.dumps(result) if given.json else summary(result))


def measure(run: Path, protocol: Protocol, command: str) -> dict[str, Any]:
    """Plays the episodes and writes the results to the run's folder. Raises as `agent.training.load.load_policy`."""
    trained = load_policy(run)
    config = trained.config
    torch.manual_seed(sampling_seed(config))
    with Progress(protocol.episodes, "episodes") as progress:
        episodes = evaluate(
            lambda n: trained.policy(n, protocol.actions == "greedy"),
            config.env,
            protocol.episodes,
            protocol.envs,
            protocol.reset_memory_at,
            progress.update,
            protocol.seed,
        )
    result = {
        "env": config.env,
        "agent": config.agent.name,
        "worldmodel": config.worldmodel.name if "worldmodel" in trained.parameters else None,
        "seed_of_training": config.seed,
        "step": trained.step,
        **asdict(protocol),
        **metrics([episode.ret for episode in episodes], config.env),
        "lengths": [episode.length for episode in episodes],
        "parameters": trained.parameters,
        "command": command,
    }
    write_json(protocol.path(run), result)
    return result


def sampling_seed(config: Config) -> int:
    """Seeds the policy's samples: the same ones each time, and others for each run.

    Weak policies that draw the same actions in the same episodes have correlated returns, and intervals over runs
    would be too narrow.
    """
    return zlib.crc32(f"{config.env} {run_label(config.worldmodel.name, config.agent.name)} {config.seed}".encode())


def stored(run: Path, protocol: Protocol) -> dict[str, Any] | None:
    """What `measure` wrote, if it is by this protocol and of the newest checkpoint."""
    path, newest = protocol.path(run), checkpoint.load_latest(run / "checkpoints")
    if newest is None or not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    wanted = {"step": newest[0], **asdict(protocol)}
    return found if all(found.get(name) == value for name, value in wanted.items()) else None


def human_normalizer(env: str) -> Callable[[float], float] | None:
    """Maps a return of `env`, a name with or without options, to 0 for a random policy and 1 for a human.

    None where one of the two is not published.
    """
    known = references(env)
    if "random" not in known or "human" not in known:
        return None
    random, human = known["random"], known["human"]
    return lambda ret: (ret - random) / (human - random)


def metrics(returns: Sequence[float], env: str) -> dict[str, Any]:
    """Aggregates over episodes with 95 % bootstrap intervals, and human-normalized ones."""
    array = np.array(returns, float)
    aggregates = statistics.summarise(array[:, None])  # one task
    result: dict[str, Any] = {
        **aggregates,
        "std": float(array.std()),
        "min": float(array.min()),
        "max": float(array.max()),
        "returns": array.tolist(),
    }
    if normalize := human_normalizer(env):  # linear, and so are the aggregates
        result["human_normalized"] = {
            name: normalize(value) if isinstance(value, float) else [normalize(bound) for bound in value]
            for name, value in aggregates.items()
        }
    return result


def summary(result: dict[str, Any]) -> str:
    """The results in a few lines."""
    at = result["reset_memory_at"]
    lines = [
        f"{result['env']} at step {result['step']}: return {result['mean']:.2f} +- {result['std']:.2f} "
        f"({result['min']:.2f} to {result['max']:.2f}) over {result['episodes']} episodes, "
        f"{result['actions']} actions" + ("" if at is None else f", memory reset at frame {at}"),
        _aggregates("return", result),
    ]
    if "human_normalized" in result:
        lines.append(_aggregates("human-normalized", result["human_normalized"]))
    return "\n".join(lines)


def _aggregates(name: str, result: dict[str, Any]) -> str:
    parts = [
        f"{label} {result[key]:.3f} [{result[f'{key}_interval'][0]:.3f}, {result[f'{key}_interval'][1]:.3f}]"
        for label, key in (("mean", "mean"), ("IQM", "iqm"))
    ]
    return f"{name}: {', '.join(parts)} (95 %, bootstrap over episodes)"


if __name__ == "__main__":
    main(sys.argv[1:])
