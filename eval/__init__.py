"""Tools that read a run: each is `python -m eval.NAME`, or `lssvwm eval NAME`."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

# threads that wait for work spin for a moment and then sleep (see train_agent.py); read when torch is imported
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _refuse_hidden_packages() -> None:
    """Ends `python -m`, which searches the working folder first, where that holds a package of the name of ours."""
    for name in ("agent", "envs", "replay", "worldmodel"):
        spec = find_spec(name)
        found = [Path(place).resolve() for place in (spec and spec.submodule_search_locations) or []]
        if found[:1] != [Path(__file__).resolve().parents[1] / name]:
            hiding = found[0] if found else spec and spec.origin
            sys.exit(f"{hiding} hides lssvwm's package {name}: run this from another folder, or use `lssvwm eval`")


if sys.argv[0] == "-m":  # while Python looks for the module to run
    _refuse_hidden_packages()
