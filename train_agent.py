"""Trains an agent in a world model's imagination: configuration in, a trained agent and its run folder out.

python train_agent.py --env MemoryMaze
"""

import errno
import logging
import os
import sys

# Threads that wait for work spin a few microseconds and then sleep: ones that spin on would take the core that an
# environment's process needs. Read by OpenMP when torch is imported, hence before it.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from agent.cli import one_line_errors, parse  # noqa: E402
from agent.learner import Diverged, check  # noqa: E402
from agent.run import open_run  # noqa: E402
from agent.trainer import train  # noqa: E402


def main(argv: list[str]) -> None:
    """The command."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("worldmodel").setLevel(logging.INFO)
    with one_line_errors():
        config = parse(argv)
        check(config)
        folder = open_run(config)
        try:
            train(config, folder)
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


if __name__ == "__main__":
    main(sys.argv[1:])
