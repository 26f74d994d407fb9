"""Evaluate a run's newest checkpoint on the evaluation's own seeds: `python -m eval.returns RUN --episodes 20`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.cli import one_line_errors
from agent.evaluate import evaluate
from agent.files import write_text_atomically
from agent.restore import load_run


def main(argv: Sequence[str]) -> None:
    """Print the returns and write RUN/eval.json."""
    parser = argparse.ArgumentParser(prog="python -m eval.returns", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, runs/<name>")
    parser.add_argument("--episodes", type=int, default=20, help="whole episodes (default: 20)")
    parser.add_argument("--greedy", action="store_true", help="the policy's most likely action, not a sample")
    parser.add_argument("--envs", type=int, default=2, help="environments side by side (default: 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    arguments = parser.parse_args(argv)
    if arguments.episodes < 1 or arguments.envs < 1:
        parser.error("--episodes and --envs want a number of 1 or more")
    with one_line_errors():
        config, learner, step = load_run(arguments.run)
        done = evaluate(learner, config.env, arguments.episodes, arguments.greedy, arguments.envs)
    returns = np.array([episode.ret for episode in done])
    result = {
        "env": config.env,
        "worldmodel": config.worldmodel.name,
        "step": step,
        "episodes": len(done),
        "actions": "greedy" if arguments.greedy else "sampled",
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "min": float(returns.min()),
        "max": float(returns.max()),
        "returns": returns.tolist(),
        "command": "python -m eval.returns " + " ".join(argv),
    }
    write_text_atomically(arguments.run / "eval.json", json.dumps(result, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"{config.env} at step {step}: return {result['mean']:.2f} +- {result['std']:.2f} "
            f"({result['min']:.2f} to {result['max']:.2f}) over {len(done)} episodes, {result['actions']} actions"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
