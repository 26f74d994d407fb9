"""Draw episode returns of one run or several: `python -m eval.plot RUN [RUN ...] [--out FILE]`

python -m eval.plot runs/MemoryMaze-lssvwm-s0 runs/MemoryMaze-mamba-s0 --out returns.png
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from agent.logging.plots import plot_returns
from agent.runs.cli import one_line_errors
from agent.runs.fields import ConfigError
from eval.arguments import parser


def main(argv: Sequence[str]) -> None:
    """Write the figure and print where it is."""
    options = parser("plot", __doc__)
    options.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, runs/<name>")
    options.add_argument(
        "--out", type=Path, help="image to write (default: plots/returns.png of a single run, else returns.png)"
    )
    given = options.parse_args(argv)
    out = given.out or (given.runs[0] / "plots/returns.png" if len(given.runs) == 1 else Path("returns.png"))
    with one_line_errors():
        for run in given.runs:
            if not (run / "metrics.jsonl").is_file():
                raise ConfigError(f"{run} is not a run folder: it has no metrics.jsonl")
        try:
            plot_returns(given.runs, out)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{out} cannot be written: {error}") from None
    print(out)


if __name__ == "__main__":
    main(sys.argv[1:])
