"""What commands write: JSON and figures, each replaced in one step."""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replay.atomic import replace_atomically, write_text_atomically


def write_json(path: Path, values: Any) -> None:
    """Write indented JSON; the folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(values, indent=1) + "\n")


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure in the format of the file's suffix; the folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(path, figure.savefig)


def style(axes: Axes) -> None:
    """A light grid, and no frame at the top and at the right."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
