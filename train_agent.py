"""Trains an agent in a world model's imagination: configuration in, a trained agent and its run folder out.

python train_agent.py --env MemoryMaze
"""

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

# Threads that wait for work spin a few microseconds and then sleep: ones that spin on would take the core that an
# environment's process needs. Read by OpenMP when torch is imported, hence before it.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from agent.baselines.ppo import PPOConfig, check_installed  # noqa: E402
from agent.runs import machine  # noqa: E402
from agent.runs.cli import one_line_errors, parse  # noqa: E402
from agent.runs.config import Config  # noqa: E402
from agent.runs.fields import ConfigError  # noqa: E402
from agent.runs.folder import folder_of, make_folders, training  # noqa: E402
from agent.training import distributed  # noqa: E402
from agent.training.learner import Diverged, check  # noqa: E402
from agent.training.online import train  # noqa: E402


def main(argv: list[str]) -> None:
    """The command."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("worldmodel").setLevel(logging.INFO)
    with one_line_errors():
        config = parse(argv)
        learn = _prepared(config)
        distributed.begin()
        with _opened(config) as folder:
            try:
                learn(config, folder)
            except KeyboardInterrupt:
                raise SystemExit(130) from None
            except Diverged as error:
                print(f"stopped: {error}", file=sys.stderr)
                raise SystemExit(1) from None
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                print(f"stopped: disk full in {folder}; the last checkpoint is whole", file=sys.stderr)
                raise SystemExit(1) from None
            finally:
                distributed.end()


def _prepared(config: Config) -> Callable[[Config, Path], None]:
    """What trains this agent, once nothing speaks against it. A baseline's packages, an extra, are imported here."""
    machine.check(config)
    if not isinstance(config.agent, PPOConfig):
        check(config)
        _refuse_prefill_alone(config)
        return train
    check_installed(f"--agent {config.agent.name}")
    from agent.baselines import run

    run.check(config)
    return run.train


def _refuse_prefill_alone(config: Config) -> None:
    """A ConfigError for a run that would end before it learns. One that has a checkpoint may end where it is."""
    steps, prefill = config.steps, config.train.prefill
    if steps <= prefill and not any((folder_of(config) / "checkpoints").glob("step-*")):
        raise ConfigError(f"steps ({steps}) must be more than train.prefill ({prefill}), after which learning begins")


@contextmanager
def _opened(config: Config) -> Iterator[Path]:
    """This process's part of the run's folder, which the first process alone opens and keeps from other trainings."""
    with training(config) if distributed.rank() == 0 else nullcontext():
        distributed.barrier()
        own = distributed.own_folder(folder_of(config))
        make_folders(own)
        yield own


if __name__ == "__main__":
    main(sys.argv[1:])
