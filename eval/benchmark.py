"""How fast: `python -m eval.benchmark update|peers|scaling|remat|kernels|dream|act|envs [--json [PATH]]`

Warmed up, medians, comparisons side by side in one run; the hardware is named.

    python -m eval.benchmark update --preset cpu --repeats 20
    python -m eval.benchmark peers
    python -m eval.benchmark scaling --help
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import worldmodel
from agent.runs import machine
from agent.runs.cli import one_line_errors
from agent.runs.fields import ConfigError
from eval.arguments import parser, positive
from eval.bench import environments, history, kernels, peers, remat, scaling, update
from replay.atomic import write_text_atomically
from worldmodel.lssvwm_config import LAYER_TYPES
from worldmodel.ssd import implementation

PRESETS = ("debug", "cpu", "gpu")


def main(argv: Sequence[str]) -> None:
    """Run one benchmark and print its table, or one JSON object."""
    given = _parser().parse_args(argv)
    options = {k: v for k, v in vars(given).items() if k not in ("run", "show", "json", "plot")}
    plot = getattr(given, "plot", None)
    machine.configure_threads(threads=0)
    with one_line_errors():
        if given.json not in (None, "-"):
            _make_folder("--json", Path(given.json))
        if plot:
            scaling.check_format(plot)
            _make_folder("--plot", plot)
        result = given.run(**options)
    text = json.dumps(result | {"hardware": hardware(), "kernel": kernel()})
    if given.json == "-":
        print(text)
    else:
        print(f"{hardware()}; scan: {kernel()}")
        given.show(result)
        if given.json:
            write_text_atomically(Path(given.json), text + "\n")
    if plot:
        scaling.plot(result, plot)


def _make_folder(option: str, path: Path) -> None:
    """Makes the folder of a file before the measurement. Raises ConfigError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{option} {path}: its folder cannot be made: {error.strerror}") from None
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder: want a file")


def _parser() -> argparse.ArgumentParser:
    own = parser("benchmark", __doc__)
    commands = own.add_subparsers(metavar="WHAT", required=True)
    known = worldmodel.names()

    def command(name: str, run: Callable[..., Any], module: ModuleType, words: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=words, description=words)
        added.set_defaults(run=run, show=module.print_table)
        words = "print one JSON object alone, or write it to PATH"
        added.add_argument("--json", nargs="?", const="-", metavar="PATH", help=words)
        return added

    def number(to: argparse.ArgumentParser, name: str, default: int, words: str) -> None:
        to.add_argument(f"--{name}", type=positive, default=default, help=f"{words} (default: {default})")

    updates = command("update", update.bench_update, update, "frames/s of one whole update")
    updates.add_argument("--preset", default="cpu", choices=PRESETS)
    updates.add_argument("--size", default="preset", choices=list(update.SIZES), help="parameters, about")
    updates.add_argument(
        "--model", default="lssvwm", choices=list(LAYER_TYPES), metavar="NAME", help="a stack of mixers"
    )
    words = "learns with the rest, or was taught first"
    updates.add_argument("--tokenizer", default="joint", choices=["joint", "first"], help=words)
    updates.add_argument("--part", default="all", choices=["all", "model"], help="the world model alone, or all")
    number(updates, "batch", 8, "windows")
    number(updates, "frames", 64, "frames in a window")
    number(updates, "repeats", 10, "updates timed")

    others = command("peers", peers.bench_peers, peers, "frames/s of one update: sheeprl's DreamerV3 and ours")
    number(others, "rounds", 5, "updates timed of each")
    words = "States that ours imagines from; sheeprl's from every frame"
    others.add_argument("--starts", nargs="+", type=positive, default=peers.STARTS, help=words)
    number(others, "threads", 2, "of either")
    number(others, "batch", 8, "windows")
    number(others, "frames", 64, "frames in a window")
    others.add_argument("--preset", default="cpu", choices=PRESETS)
    words = "of sheeprl's model, about (default: as ours)"
    others.add_argument("--peer-parameters", type=positive, default=0, help=words)
    words = "folder of sheeprl's environment, made once (default: in the user's cache)"
    others.add_argument("--venv", type=Path, metavar="PATH", help=words)

    scales = command("scaling", scaling.bench_scaling, scaling, "time and memory a frame by window length")
    scales.add_argument("--models", nargs="+", default=scaling.MODELS, choices=known, metavar="MODEL")
    scales.add_argument("--lengths", nargs="+", type=positive, default=scaling.LENGTHS, help="frames in a window")
    number(scales, "rounds", 3, "passes timed of each")
    scales.add_argument("--plot", type=Path, metavar="PATH", help="draw the figure there")

    remats = command("remat", remat.bench_remat, remat, "time and memory a frame by worldmodel.remat_frames")
    remats.add_argument("--windows", nargs="+", default=remat.WINDOWS, metavar="BxT", help="batch x frames in a window")
    words = "frames of a segment whose activations are computed again; 0: keep all"
    remats.add_argument("--segments", nargs="+", type=int, default=remat.SEGMENTS, help=words)
    remats.add_argument("--size", type=int, default=64, help="pixels of a frame's side (default: 64)")
    number(remats, "rounds", 5, "passes timed of each")

    compared = command("kernels", kernels.bench_kernels, kernels, "what each hand-written CPU kernel wins in an update")
    number(compared, "rounds", 15, "updates and calls timed of each")

    for name, run, words in (
        ("dream", history.bench_dream, "milliseconds an imagined frame by length of history"),
        ("act", history.bench_act, "milliseconds a real step by length of history"),
    ):
        frames = command(name, run, history, words)
        frames.add_argument("--model", default="lssvwm", choices=known, metavar="MODEL")
        frames.add_argument("--preset", default="cpu", choices=PRESETS)
        frames.add_argument("--histories", nargs="+", type=int, default=history.HISTORIES, help="frames before")
        number(frames, "rounds", 50, "frames timed of each")

    envs = command("envs", environments.bench_envs, environments, "steps/s of Memory Maze: stock and ours")
    number(envs, "steps", 400, "steps of each")
    return own


def hardware() -> str:
    """The machine in words."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = torch.get_num_threads()
    return f"{_processor()}, {os.cpu_count()} cores, {threads} threads, {card}, torch {torch.__version__}"


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
