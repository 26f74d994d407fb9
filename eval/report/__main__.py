"""One HTML file about a run, or several side by side: `python -m eval.report RUN [RUN ...]`

Returns with intervals, losses, speed, memory's states, retention, configuration, and videos: open-loop prediction, and
imagination from each run's newest checkpoint. The file stands alone: figures and videos are in it, it needs no network
and runs no script. What a run does not have is left out, with the command that makes it.

    python -m eval.report runs/MemoryMaze-lssvwm-s0
    python -m eval.report runs/retention/lssvwm-s0 runs/retention/local-s0 --out compared.html
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from agent.runs.cli import one_line_errors
from agent.runs.fields import ConfigError
from eval.arguments import parser
from eval.report.sections import report


def main(argv: Sequence[str]) -> None:
    """Write the report and print where it is."""
    options = parser("report", __doc__)
    options.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, runs/<name>")
    words = "(default: RUN/report.html of a single run, else report.html)"
    options.add_argument("--out", type=Path, metavar="FILE", help=words)
    given = options.parse_args(argv)
    out = given.out or (given.runs[0] / "report.html" if len(given.runs) == 1 else Path("report.html"))
    with one_line_errors():
        try:
            report(given.runs, out)
        except OSError as error:
            raise ConfigError(f"{out} cannot be written: {error.strerror}") from None
    print(out)


if __name__ == "__main__":
    main(sys.argv[1:])
