"""Trains an agent in a world model's imagination: configuration in, a trained agent and its run folder out.

python train_agent.py --env MemoryMaze
"""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

# Threads that wait for work spin for a moment and then sleep: spinning on, they would take the core of an
# environment's process. OpenMP reads this when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from agent.baselines.ppo import PPOConfig, check_installed  # noqa: E402
from agent.runs import machine  # noqa: E402
from agent.runs.cli import one_line_errors, parse  # noqa: E402
from agent.runs.config import Config  # noqa: E402
from agent.runs.folder import process_folder, refuse_prefill_alone  # noqa: E402
from agent.training import distributed, learner, online  # noqa: E402


def main(argv: list[str] | None = None) -> None:
    """The command, by default with the process's own arguments."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("worldmodel").setLevel(logging.INFO)
    with one_line_errors():
        config = parse(sys.argv[1:] if argv is None else argv)
        machine.check(config)
        train = baseline(config) if isinstance(config.agent, PPOConfig) else dreamer(config)
        distributed.begin()
        with process_folder(config) as folder:
            try:
                train(config, folder)
            except KeyboardInterrupt:  # training has said how to resume
                raise SystemExit(130) from None
            finally:
                distributed.end()


def dreamer(config: Config) -> Callable[[Config, Path], None]:
    """Training in imagination. Raises ConfigError where model, environment or schedule do not fit."""
    learner.check(config)
    refuse_prefill_alone(config)
    return online.train


def baseline(config: Config) -> Callable[[Config, Path], None]:
    """Training of a model-free baseline, whose packages are an extra. Raises ConfigError as `dreamer`."""
    check_installed(f"--agent {config.agent.name}")
    from agent.baselines import run

    run.check(config)
    return run.train


if __name__ == "__main__":
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # worker processes import from here, not from the working folder
    main()
