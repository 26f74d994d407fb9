"""How fast: `python -m eval.benchmark update|scaling|checkpointing|dream|act|envs [--json [PATH]]`

Warmed up, medians, comparisons side by side in one run; the hardware is named.

    python -m eval.benchmark update --preset cpu --repeats 20
    python -m eval.benchmark scaling --help
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import worldmodel
from agent.runs import machine
from agent.runs.cli import one_line_errors
from agent.runs.fields import ConfigError
from eval.bench import envs as bench_envs
from eval.bench import history as bench_history
from eval.bench import remat as bench_remat
from eval.bench import scaling as bench_scaling
from eval.bench import update as bench_update
from eval.options import positive
from replay.atomic import write_text_atomically
from worldmodel.ssd import implementation


def main(argv: Sequence[str]) -> None:
    """Run one benchmark and print its table, or one JSON object."""
    arguments = _parser().parse_args(argv)
    options = {k: v for k, v in vars(arguments).items() if k not in ("run", "show", "json", "plot")}
    machine.configure_threads(threads=0)
    with one_line_errors():
        if arguments.json not in (None, "-"):
            _make_way("--json", Path(arguments.json))
        if getattr(arguments, "plot", None):
            bench_scaling.check_format(Path(arguments.plot))
            _make_way("--plot", Path(arguments.plot))
        result = arguments.run(**options)
    text = json.dumps(result | {"hardware": hardware(), "kernel": kernel()})
    if arguments.json == "-":
        print(text)
    else:
        print(f"{hardware()}; scan: {kernel()}")
        arguments.show(result)
        if arguments.json:
            write_text_atomically(Path(arguments.json), text + "\n")
    if getattr(arguments, "plot", None):
        bench_scaling.plot(result, Path(arguments.plot))


def _make_way(option: str, path: Path) -> None:
    """Make the folder of a file before minutes are spent on what goes into it. Raises ConfigError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{option} {path}: its folder cannot be made: {error.strerror}") from None
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder: want a file")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="WHAT", required=True)

    def command(name: str, run: Callable[..., Any], show: Callable[[Any], None], words: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=words, description=words)
        added.set_defaults(run=run, show=show)
        added.add_argument(
            "--json", nargs="?", const="-", metavar="PATH", help="print one JSON object alone, or write it to PATH"
        )
        return added

    update = command("update", bench_update.bench_update, bench_update.print_table, "frames/s of one whole update")
    update.add_argument("--preset", default="cpu", choices=["debug", "cpu", "gpu"])
    update.add_argument("--size", default="preset", choices=list(bench_update.SIZES), help="parameters, about")
    update.add_argument("--part", default="all", choices=["all", "model"], help="the world model alone, or all")
    update.add_argument("--batch", type=positive, default=8, help="windows (default: 8)")
    update.add_argument("--frames", type=positive, default=64, help="frames in a window (default: 64)")
    update.add_argument("--repeats", type=positive, default=10, help="updates timed (default: 10)")

    scaling = command(
        "scaling", bench_scaling.bench_scaling, bench_scaling.print_table, "time and memory a frame by window length"
    )
    known = worldmodel.names()
    scaling.add_argument("--models", nargs="+", default=bench_scaling.MODELS, choices=known, metavar="MODEL")
    scaling.add_argument(
        "--lengths", nargs="+", type=positive, default=bench_scaling.LENGTHS, help="frames in a window"
    )
    scaling.add_argument("--rounds", type=positive, default=3, help="passes timed of each (default: 3)")
    scaling.add_argument("--plot", metavar="PATH", help="draw the figure there")

    checkpointing = command(
        "checkpointing",
        bench_remat.bench_checkpointing,
        bench_remat.print_table,
        "time and memory a frame with activations kept, and computed again by segments",
    )
    checkpointing.add_argument(
        "--windows", nargs="+", default=bench_remat.WINDOWS, metavar="BxT", help="batch x frames in a window"
    )
    checkpointing.add_argument(
        "--segments", nargs="+", type=int, default=bench_remat.SEGMENTS, help="frames of a segment; 0: keep all"
    )
    checkpointing.add_argument("--size", type=int, default=64, help="pixels of a frame's side (default: 64)")
    checkpointing.add_argument("--rounds", type=positive, default=5, help="passes timed of each (default: 5)")

    for name, run, words in (
        ("dream", bench_history.bench_dream, "milliseconds an imagined frame by length of history"),
        ("act", bench_history.bench_act, "milliseconds a real step by length of history"),
    ):
        history = command(name, run, bench_history.print_table, words)
        history.add_argument("--model", default="lssvwm", choices=known, metavar="MODEL")
        history.add_argument("--preset", default="cpu", choices=["debug", "cpu", "gpu"])
        history.add_argument(
            "--histories", nargs="+", type=int, default=bench_history.HISTORIES, help="frames seen before"
        )
        history.add_argument("--rounds", type=positive, default=50, help="frames timed of each (default: 50)")

    envs = command("envs", bench_envs.bench_envs, bench_envs.print_table, "steps/s of Memory Maze: stock and ours")
    envs.add_argument("--steps", type=positive, default=400, help="steps of each (default: 400)")
    return parser


def hardware() -> str:
    """The machine in words."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {card}, torch {torch.__version__}"
    )


def kernel() -> str:
    """Which scan serves tensors of this machine's device."""
    return implementation(torch.cuda.is_available())


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main(sys.argv[1:])
