"""How fast: `python -m eval.benchmark envs|update [--json]`. Medians, hardware named, comparisons in one run."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence

# as train_agent.py does, before torch is imported
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch  # noqa: E402

from eval import bench_envs, bench_update  # noqa: E402


def main(argv: Sequence[str]) -> None:
    """Run one benchmark and print its table, or one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m eval.benchmark", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    envs = commands.add_parser("envs", help="steps/s of Memory Maze: the stock package and ours")
    envs.add_argument("--steps", type=int, default=400, help="steps of each (default: 400)")
    update = commands.add_parser("update", help="replayed frames/s of one whole update, model and agent")
    update.add_argument("--preset", default="cpu", choices=["debug", "cpu", "gpu"])
    update.add_argument("--repeats", type=int, default=10, help="updates timed (default: 10)")
    for command in (envs, update):
        command.add_argument("--json", action="store_true", help="print one JSON object alone")
    arguments = parser.parse_args(argv)
    if arguments.what == "envs":
        table, show = bench_envs.bench_envs(arguments.steps), bench_envs.print_table
        result = dict(table)
    else:
        result, show = (
            bench_update.bench_update(arguments.preset, arguments.repeats),
            bench_update.print_table,
        )
    if arguments.json:
        print(json.dumps(result | {"hardware": hardware()}))
    else:
        print(hardware())
        show(result)


def hardware() -> str:
    """The machine in words."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {card}, torch {torch.__version__}"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main(sys.argv[1:])
