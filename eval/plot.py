"""Draw episode returns of one run or several: `python -m eval.plot RUN [RUN ...] [--out FILE]`

python -m eval.plot runs/MemoryMaze-lssvwm-s0 runs/MemoryMaze-mamba-s0 --out returns.png
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.logging.plots import plot_returns


def main(argv: Sequence[str] | None = None) -> int:
    """Write the figure and print where it is; 2, with a line on standard error, where it cannot be drawn."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.plot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, runs/<name>")
    parser.add_argument(
        "--out",
        type=Path,
        help="image to write (default: plots/returns.png of a single run, else returns.png)",
    )
    arguments = parser.parse_args(argv)
    for run in arguments.runs:
        if not (run / "metrics.jsonl").is_file():
            print(f"{run} is not a run folder: it has no metrics.jsonl", file=sys.stderr)
            return 2
    single = len(arguments.runs) == 1
    out = arguments.out or (arguments.runs[0] / "plots/returns.png" if single else Path("returns.png"))
    try:
        plot_returns(arguments.runs, out)
    except (OSError, ValueError) as error:
        print(f"{out} cannot be written: {error}", file=sys.stderr)
        return 2
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
