"""Runs `python ...` commands, each in a process of its own, forked from this one, which has imported torch and others.

Those imports are most of a small command's time. This project's own modules are not among them: each command imports
them anew, as in a fresh interpreter. Standard input: a JSON object a line, {"words", "environment", "output"}: what
follows `python`, variables to set, and the file for all that the command says. Standard output: its exit status, a
line each. To be started in the folder that commands run in.
"""

import json
import os
import runpy
import signal
import sys

import gymnasium  # noqa: F401
import imageio.v3  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import scipy.stats  # noqa: F401
import tensordict  # noqa: F401
import torch  # noqa: F401
import tyro  # noqa: F401

MOST_SECONDS = 300
"""A command that takes longer is killed (status -14)."""


def main() -> None:
    """Until standard input ends."""
    for line in sys.stdin:
        if child := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        else:
            return become(**json.loads(line))


def become(words: list[str], environment: dict[str, str], output: str) -> None:
    """Go on as `python WORDS`, to the end of the interpreter."""
    signal.alarm(MOST_SECONDS)
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(os.path.realpath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
