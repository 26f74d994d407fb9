"""Trains an agent in a world model's imagination: configuration in, a trained agent and its run folder out.

python train_agent.py --env MemoryMaze
"""

import errno
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

# Threads that wait for work spin a few microseconds and then sleep: ones that spin on would take the core that an
# environment's process needs. Read by OpenMP when torch is imported, hence before it.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from agent import distributed  # noqa: E402
from agent.cli import one_line_errors, parse  # noqa: E402
from agent.config import Config  # noqa: E402
from agent.learner import Diverged, check  # noqa: E402
from agent.ppo import PPOConfig, check_installed  # noqa: E402
from agent.run import folder_of, make_folders, open_run  # noqa: E402
from agent.trainer import train  # noqa: E402


def main(argv: list[str]) -> None:
    """The command."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("worldmodel").setLevel(logging.INFO)
    with one_line_errors():
        config = parse(argv)
        learn = _prepared(config)
        distributed.begin()
        folder = _folder(config)
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
    if not isinstance(config.agent, PPOConfig):
        check(config)
        return train
    check_installed(f"--agent {config.agent.name}")
    from agent import baselines

    baselines.check(config)
    return baselines.train


def _folder(config: Config) -> Path:
    """The run's folder, opened by the first process alone, and this process's part of it."""
    folder = folder_of(config)
    if distributed.rank() == 0:
        open_run(config)
    distributed.wait()
    own = distributed.own_folder(folder)
    make_folders(own)
    return own


if __name__ == "__main__":
    main(sys.argv[1:])
