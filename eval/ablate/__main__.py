"""Which world model learns best? `python -m eval.ablate --env ObjectRecall-Choice --worldmodels lssvwm,local`

Trains every world model for every seed by train_agent.py, all models' first seed first, then evaluates each run by the
protocol of `eval.returns`. Prints a table and writes OUT/ablation.json and OUT/ablation.png: interquartile means (IQM)
over seeds with 95 % stratified bootstrap intervals, the probability of improvement over the first model, and learning
curves by environment step and by second (Agarwal et al. 2021, arXiv 2108.13264).

The same command again goes on where it was stopped: what is done is neither trained nor evaluated anew. A run that
fails is told of and left out, and the exit is 1. Other options are train_agent.py's (--steps 20000, --preset cpu,
--worldmodel.d_model 64); one that only some of the models have goes to those. --env may be given several times: scores
are then human-normalised, and environments are the strata.

--agents trains other agents beside the world models, as `train_agent.py --agent NAME`. Seconds and speeds compare only
where every run has the machine, or a device, to itself (--jobs 1 or --devices).
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.runs.cli import one_line_errors
from agent.runs.fields import ConfigError
from agent.runs.flatten import CheckpointError
from eval import returns
from eval.ablate import jobs, plot, table
from eval.ablate.runs import Run, plan
from eval.options import joined, names, numbers
from replay.atomic import write_text_atomically

Results = dict[Run, list[dict[str, Any]]]
"""The figures of `eval.returns`: plain and, with --reset-memory-at, with memory wiped."""


def main(argv: Sequence[str]) -> None:
    """The command."""
    arguments, options = _arguments(argv)
    with one_line_errors():
        try:
            runs = plan(arguments, options)
            failed = _train(runs, arguments)
            results = _evaluate(runs, arguments, failed)
        except KeyboardInterrupt:
            print("interrupted: the same command goes on from here", file=sys.stderr)
            raise SystemExit(130) from None
    report = table.report(results)
    if report["models"]:
        report |= {"failed": failed, "command": "python -m eval.ablate " + " ".join(argv)}
        print(table.text(report))
        write_text_atomically(arguments.out / "ablation.json", json.dumps(report, indent=1) + "\n")
        plot.plot(report, arguments.out / "ablation.png")
        print(f"\n{arguments.out / 'ablation.json'}\n{arguments.out / 'ablation.png'}")
    for name, reason in failed.items():
        print(f"failed: {name}: {reason} ({_log(arguments.out, name)})", file=sys.stderr)
    if failed:
        raise SystemExit(1)


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """This command's own options, and those of train_agent.py as `--name=value`."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.ablate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --seed is not --seeds
    )
    parser.add_argument("--env", action="append", metavar="E", help="environment; may be given several times")
    parser.add_argument("--worldmodels", type=names, default=[], metavar="A,B", help="world models to compare, by name")
    parser.add_argument("--agents", type=names, default=[], metavar="A,B", help="agents to train beside them, by name")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2], metavar="0,1", help="of each (default: 0,1,2)")
    parser.add_argument("--episodes", type=int, default=returns.EPISODES, help="evaluated (default: %(default)s)")
    parser.add_argument("--reset-memory-at", type=int, metavar="K", help="evaluate also with memory wiped at frame K")
    parser.add_argument("--devices", type=names, default=[], metavar="cuda:0,cuda:1", help="to spread the runs over")
    parser.add_argument("--jobs", type=int, help="runs at once (default: one, or one for each device)")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder (default: %(default)s)")
    arguments, words = parser.parse_known_args(argv)
    options = joined(words, dotted=False)
    arguments.jobs = arguments.jobs if arguments.jobs is not None else max(1, len(arguments.devices))
    if not arguments.env or not arguments.worldmodels + arguments.agents:
        parser.error("name an environment by --env, and world models by --worldmodels")
    if arguments.jobs < 1 or arguments.episodes < 1 or (arguments.forget is not None and arguments.forget < 1):
        parser.error("--jobs, --episodes and --reset-memory-at want a number of 1 or more")
    return arguments, options


def _train(runs: Sequence[Run], arguments: argparse.Namespace) -> dict[str, str]:
    """Trains what is not done. -> what went wrong, by run."""

    def job(run: Run) -> jobs.Job:
        def command(place: int) -> list[str]:
            devices = arguments.devices
            device = [f"--train.device={devices[place % len(devices)]}"] if devices else []
            return [sys.executable, "-m", "train_agent", *run.words, *device]

        return jobs.Job(run.name, command, _log(arguments.out, run.name))

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return jobs.run([job(run) for run in runs if not run.done()], arguments.jobs, say)


def _log(out: Path, name: str) -> Path:
    return out / "logs" / f"{name}.log"


def _evaluate(runs: Sequence[Run], arguments: argparse.Namespace, failed: dict[str, str]) -> Results:
    """The figures of each run that did not fail; those that cannot be evaluated are added to `failed`."""
    protocols = [returns.Protocol(episodes=arguments.episodes)]
    if arguments.forget is not None:
        protocols.append(returns.Protocol(episodes=arguments.episodes, forget=arguments.forget))
    results: Results = {}
    for run in runs:
        if run.name in failed:
            continue
        try:
            results[run] = [_figures(run, protocol) for protocol in protocols]
        except (ConfigError, CheckpointError, RuntimeError) as error:
            failed[run.name] = str(error)
    return results


def _figures(run: Run, protocol: returns.Protocol) -> dict[str, Any]:
    """Stored, or made anew."""
    found = returns.measured(run.folder, protocol)
    if found is None:
        forget = "" if protocol.forget is None else f" --reset-memory-at {protocol.forget}"
        command = f"python -m eval.returns {run.folder} --episodes {protocol.episodes}{forget}"
        found = returns.measure(run.folder, protocol, command)
        print(f"{run.name}: {returns.summary(found).splitlines()[0]}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: runs are not left behind
    main(sys.argv[1:])
