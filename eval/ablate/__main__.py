"""Which world model learns best? `python -m eval.ablate --env ObjectRecall-Choice --worldmodels lssvwm,local`

Trains every world model for every seed by train_agent.py, all models' first seed first, then evaluates each run by the
protocol of `eval.returns`. Prints a table and writes OUT/ablation.json and OUT/ablation.png: interquartile means (IQM)
over seeds with 95 % stratified bootstrap intervals, the probability of improvement over the first model, and learning
curves by environment step and by second (Agarwal et al. 2021, arXiv 2108.13264).

The same command again goes on where it was stopped: what is done is neither trained nor evaluated again. A run that
fails is named and left out, and the exit is 1. Other options are train_agent.py's (--steps 20000, --preset cpu,
--worldmodel.d_model 64); one that only some of the models have goes to those. --env may be given several times: scores
are then human-normalized, and environments are the strata.

--agents trains other agents beside the world models, as `train_agent.py --agent NAME`. Seconds and speeds compare only
where every run has the machine, or a device, to itself (--jobs 1 or --devices).
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.runs.cli import one_line_errors
from agent.runs.fields import ConfigError
from agent.runs.flatten import CheckpointError
from eval import returns
from eval.ablate import comparison, jobs
from eval.ablate.planned import PlannedRun, plan
from eval.arguments import joined, names, parser, positive, seeds
from eval.output import write_json

Results = dict[PlannedRun, list[dict[str, Any]]]
"""What `eval.returns` measures: with memory kept and, with --reset-memory-at, with memory reset."""


def main(argv: Sequence[str]) -> None:
    """The command."""
    given, options = _arguments(argv)
    with one_line_errors():
        try:
            runs = plan(given, options)
            failed = _train(runs, given)
            results = _evaluate(runs, given, failed)
        except KeyboardInterrupt:
            print("interrupted: the same command goes on from here", file=sys.stderr)
            raise SystemExit(130) from None
    report = comparison.compare(results)
    if report["models"]:
        report |= {"failed": failed, "command": "python -m eval.ablate " + " ".join(argv)}
        print(comparison.table(report))
        write_json(given.out / "ablation.json", report)
        comparison.plot(report, given.out / "ablation.png")
        print(f"\n{given.out / 'ablation.json'}\n{given.out / 'ablation.png'}")
    for name, reason in failed.items():
        print(f"failed: {name}: {reason} ({_log(given.out, name)})", file=sys.stderr)
    if failed:
        raise SystemExit(1)


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """This command's own options, and those of train_agent.py as `--name=value`."""
    own = parser("ablate", __doc__, abbreviations=False)  # --seed is not --seeds
    own.add_argument("--env", action="append", metavar="E", help="environment; may be given several times")
    own.add_argument("--worldmodels", type=names, default=[], metavar="A,B", help="world models to compare, by name")
    own.add_argument("--agents", type=names, default=[], metavar="A,B", help="agents to train beside them, by name")
    own.add_argument("--seeds", type=seeds, default=[0, 1, 2], metavar="0,1", help="of each (default: 0,1,2)")
    own.add_argument("--episodes", type=positive, default=returns.EPISODES, help="evaluated (default: %(default)s)")
    own.add_argument("--reset-memory-at", type=positive, metavar="N", help="evaluate also with memory reset at frame N")
    own.add_argument("--devices", type=names, default=[], metavar="cuda:0,cuda:1", help="to spread the runs over")
    own.add_argument("--jobs", type=positive, help="runs at once (default: one, or one for each device)")
    own.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder (default: %(default)s)")
    given, words = own.parse_known_args(argv)
    given.jobs = given.jobs or max(1, len(given.devices))
    if not given.env or not given.worldmodels + given.agents:
        own.error("name an environment by --env, and world models by --worldmodels")
    return given, joined(words, dotted=False)


def _train(runs: Sequence[PlannedRun], given: argparse.Namespace) -> dict[str, str]:
    """Trains what is not done. Returns what went wrong, by run."""

    def job(run: PlannedRun) -> jobs.Job:
        def command(place: int) -> list[str]:
            device = [f"--train.device={given.devices[place % len(given.devices)]}"] if given.devices else []
            return [sys.executable, "-m", "train_agent", *run.words, *device]

        return jobs.Job(run.name, command, _log(given.out, run.name))

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return jobs.run([job(run) for run in runs if not run.done()], given.jobs, say)


def _log(out: Path, name: str) -> Path:
    return out / "logs" / f"{name}.log"


def _evaluate(runs: Sequence[PlannedRun], given: argparse.Namespace, failed: dict[str, str]) -> Results:
    """The results of each run that did not fail; those that cannot be evaluated are added to `failed`."""
    resets = [None] if given.reset_memory_at is None else [None, given.reset_memory_at]
    protocols = [returns.Protocol(episodes=given.episodes, reset_memory_at=at) for at in resets]
    results: Results = {}
    for run in runs:
        if run.name in failed:
            continue
        try:
            results[run] = [_measured(run, protocol) for protocol in protocols]
        except (ConfigError, CheckpointError, RuntimeError) as error:
            failed[run.name] = str(error)
    return results


def _measured(run: PlannedRun, protocol: returns.Protocol) -> dict[str, Any]:
    """As stored, or measured now."""
    found = returns.stored(run.folder, protocol)
    if found is None:
        at = protocol.reset_memory_at
        command = f"python -m eval.returns {run.folder} --episodes {protocol.episodes}"
        found = returns.measure(run.folder, protocol, command + (f" --reset-memory-at {at}" if at else ""))
        print(f"{run.name}: {returns.summary(found).splitlines()[0]}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no run is left behind
    main(sys.argv[1:])
