"""What the command lines of `eval` share: a parser, value types, and options that are train_agent.py's."""

import argparse
from collections.abc import Sequence

from agent.runs.config import Config
from agent.runs.fields import fields

UNDOTTED = {f"--{name.replace('_', '-')}" for name in fields(Config()) if "." not in name}
"""Options of train_agent.py without a dot: `--preset` and the like."""


def parser(command: str, description: str | None, abbreviations: bool = True) -> argparse.ArgumentParser:
    """A parser of `python -m eval.COMMAND`, with a module's docstring as its description."""
    return argparse.ArgumentParser(
        prog=f"python -m eval.{command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=abbreviations,
    )


def joined(argv: Sequence[str], dotted: bool = True) -> list[str]:
    """`--a.b X` as `--a.b=X`: argparse takes the value of an option that it does not know for a positional argument.

    Joins options of train_agent.py alone, or with `dotted=False` every option with the word after it.
    """
    words: list[str] = []
    for word in argv:
        last = words[-1] if words else ""
        open_ended = last.startswith("--") and "=" not in last and ("." in last or last in UNDOTTED or not dotted)
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


def seeds(text: str) -> list[int]:
    """`0,1` -> [0, 1]; an argparse error where one is not a whole number of 0 or more."""
    return [_whole(number, 0) for number in text.split(",")]


def positive(text: str) -> int:
    """`3` -> 3; an argparse error where it is not a whole number of 1 or more."""
    return _whole(text, 1)


def positives(text: str) -> list[int]:
    """`5,10` -> [5, 10], each as `positive`."""
    return [positive(number) for number in text.split(",")]


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"want a whole number of {least} or more, not {text!r}")
    return int(text)
