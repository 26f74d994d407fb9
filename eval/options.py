"""Words of a command line that are for train_agent.py, beside a command's own; names and numbers among those."""

import argparse
from collections.abc import Sequence

from agent.runs.config import Config
from agent.runs.fields import fields

PLAIN = {f"--{name.replace('_', '-')}" for name in fields(Config()) if "." not in name}
"""Options of train_agent.py without a dot: `--preset` and the like."""


def joined(argv: Sequence[str], dotted: bool = True) -> list[str]:
    """`--a.b X` as `--a.b=X`: argparse would take X, whose option it does not know, for an argument of its own.

    Not `dotted`: every option is joined with the word that follows it, not those of train_agent.py alone.
    """
    words: list[str] = []
    for word in argv:
        last = words[-1] if words else ""
        open_ended = last.startswith("--") and "=" not in last and ("." in last or last in PLAIN or not dotted)
        if open_ended and not word.startswith("--"):
            words[-1] = f"{last}={word}"
        else:
            words.append(word)
    return words


def field(word: str) -> str:
    """The configuration's field that a joined word sets: `--train.eval-every=5` -> `train.eval_every`."""
    return word.removeprefix("--").partition("=")[0].replace("-", "_")


def names(text: str) -> list[str]:
    """`a,b` -> ["a", "b"]"""
    return [name for name in text.split(",") if name]


def numbers(text: str) -> list[int]:
    """`0,1` -> [0, 1]; a ValueError, which argparse words, where one is no whole number."""
    return [int(number) for number in text.split(",")]


def positive(text: str) -> int:
    """`3` -> 3; anything but a whole number of 1 or more is an error that argparse words."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"want a whole number of 1 or more, not {text!r}")
    return int(text)


def positives(text: str) -> list[int]:
    """`5,10` -> [5, 10], each as `positive`."""
    return [positive(number) for number in text.split(",")]
