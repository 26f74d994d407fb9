"""Episodes of a scripted policy, in the layout of the Memory Maze dataset, for training and evaluating world models.

    python -m replay.collect --env MemoryMaze --episodes 40 --policy waypoints --out data/train

Policies:
  waypoints              Memory Maze: the shortest way to a random cell, then to the next, with random actions between
                         (--noise), as in the public dataset.
  out_and_back           Memory Maze: random cells for half of the steps, then back through the same cells, looking
                         around in some of them; adds the label `phase`, 0 out, 1 back. See envs/out_and_back.py.
  repeated_out_and_back  Memory Maze: one out_and_back of 40 to 400 steps after another.
  loops                  Memory Maze: along a closed loop of cells back to the start, by another way where the maze has
                         one; then along another loop. See envs/loops.py.
  walks                  Memory Maze: each episode by one of these four, drawn at random; what teaches places.
  random                 any environment: uniform actions, each held for a random while.

Labels (maze layout, positions, ...) are stored where the environment has them. Episode i depends on --env, --policy,
--seed, --steps, --noise and i alone: the number of workers changes nothing, and the same command again makes what is
missing. A folder holds the episodes of one such set, described in its collect.json.

Before it starts it says how many episodes and steps it makes, and after the first episode how fast it goes, when it
ends, and what it takes on disk.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import envs
from envs.policies import POLICIES
from replay.atomic import remove_leftovers, wait_for_lock, write_text_atomically
from replay.buffer import OWN_NAME
from replay.estimate import size
from replay.progress import Progress, duration
from replay.record import Recorded, Recording, RecordingError
from replay.recorders import record_all

NOISE = 0.1
"""The default share of random actions of `waypoints`."""
STEPS = {"out_and_back": 800, "walks": 512}
"""The default length of some policies' episodes: 400 out and 400 back as in LSSVWM (arXiv 2505.20171), and a window."""
SETTINGS = "collect.json"


def main(argv: Sequence[str]) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m replay.collect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", required=True, help="environment, e.g. MemoryMaze or ObjectRecall:delay=50")
    parser.add_argument("--episodes", type=_positive, required=True, metavar="N", help="episodes 0 to N - 1")
    parser.add_argument("--policy", choices=POLICIES, required=True, help="see above")
    parser.add_argument("--out", dest="folder", type=Path, required=True, metavar="FOLDER", help="made if missing")
    parser.add_argument("--workers", type=_positive, help="processes (default: one for each core)")
    parser.add_argument("--seed", type=int, default=0, help="of the whole set (default: 0)")
    parser.add_argument("--noise", type=float, help=f"share of random actions of waypoints (default: {NOISE})")
    parser.add_argument(
        "--steps",
        type=_positive,
        help="end episodes after this many (default: the environment's length; "
        + ", ".join(f"{steps} for {policy}" for policy, steps in STEPS.items())
        + ")",
    )
    given = parser.parse_args(argv)
    try:
        made = collect(**vars(given))
        print(f"{given.folder}: {made} episodes collected, {len(held(given.folder))} held")
    except (RecordingError, envs.UnknownEnvironment, OSError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(
            f"stopped, {len(held(given.folder))} episodes in {given.folder}: the same command goes on", file=sys.stderr
        )
        raise SystemExit(130) from None


def collect(
    env: str,
    episodes: int,
    policy: str,
    folder: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    noise: float | None = None,
    workers: int | None = None,
    stream: TextIO | None = None,
) -> int:
    """Makes those of episodes 0 to `episodes` - 1 that `folder` does not hold; returns how many it made.

    Waits for another collector at work in the folder.

    Args:
        env, policy, steps, noise: as on the command line; None is the default of the policy.
        seed: at least 0.
        workers: processes; None is one for each core.
        stream: of the progress line; None is standard error.

    Raises:
        RecordingError: the policy does not fit the environment, an option is wrong, or the folder holds other
            episodes.
        envs.UnknownEnvironment: as `envs.make`.
        OSError: a file cannot be written.
        RuntimeError: an episode raised an exception, with its traceback; finished episodes stay.
    """
    recording = _checked(Recording(env, policy, seed, steps, noise))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(folder):
        remove_leftovers(folder)
        _check_settings(folder, recording)
        missing = sorted(set(range(episodes)) - held(folder))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if missing:
            _record(recording, folder, missing, min(workers or cores, len(missing)), stream)
    return len(missing)


def _record(recording: Recording, folder: Path, missing: list[int], workers: int, stream: TextIO | None) -> None:
    """Records these episodes with a progress line, under lines of what is expected."""
    with Progress(len(missing), "episodes", stream=stream) as progress:
        progress.note(_plan(recording, len(missing), workers))
        finished: list[Recorded] = []

        def report(new: list[Recorded]) -> None:
            if new and not finished:
                progress.note(_forecast(new[0], folder, len(missing), workers))
            finished.extend(new)
            progress.update(len(finished), steps=sum(episode.steps for episode in finished))

        report([])
        record_all(recording, folder, missing, workers, report)


def _plan(recording: Recording, episodes: int, workers: int) -> str:
    """The line before the first episode."""
    of = "of the environment's own length" if recording.steps is None else f"of {recording.steps:,} steps at most"
    total = "" if recording.steps is None else f", {episodes * recording.steps:,} steps in all"
    return f"{recording.env}: {episodes:,} episodes of {recording.policy} {of}{total}; processes: {workers}"


def _forecast(first: Recorded, folder: Path, episodes: int, workers: int) -> str:
    """The line after the first episode: what all take if they are like it. Says where the disk is too small."""
    speed = workers * first.steps / max(first.seconds, 1e-9)
    wanted, free = episodes * first.size, shutil.disk_usage(folder).free
    short = "" if wanted < free else ", too little"
    return (
        f"first episode: {first.steps:,} steps. All: about {episodes * first.steps:,} steps at {speed:,.0f}/s, "
        f"{duration(episodes * first.steps / speed)}; {size(first.size / first.steps)} a step on disk, "
        f"{size(wanted)} in all (free: {size(free)}{short})"
    )


def held(folder: Path) -> set[int]:
    """The indices of the episodes in a folder."""
    return {int(match[1]) for path in folder.glob("*.npz") if (match := OWN_NAME.fullmatch(path.name))}


def _checked(asked: Recording) -> Recording:
    """The recording with the policy's defaults. Raises RecordingError or envs.UnknownEnvironment."""
    envs.check_name(asked.env)
    if asked.policy not in POLICIES:
        raise RecordingError(f"unknown policy {asked.policy!r}: one of {', '.join(POLICIES)}")
    if asked.policy != "random" and not asked.env.startswith("MemoryMaze"):
        raise RecordingError(f"policy {asked.policy!r} is for Memory Maze, not for {asked.env}: want 'random' there")
    noisy = asked.policy in ("waypoints", "walks")
    if asked.noise is not None and not noisy:
        raise RecordingError(f"policy {asked.policy!r} takes no noise: 'waypoints' and 'walks' do")
    if asked.noise is not None and not 0 <= asked.noise <= 1:
        raise RecordingError(f"noise is a share from 0 to 1, not {asked.noise}")
    if asked.seed < 0:
        raise RecordingError(f"a seed is at least 0, not {asked.seed}")
    least = 2 if asked.policy in STEPS else 1
    if asked.steps is not None and asked.steps < least:
        raise RecordingError(f"episodes of {asked.policy!r} have at least {least} steps, not {asked.steps}")
    steps = STEPS.get(asked.policy) if asked.steps is None else asked.steps
    noise = NOISE if noisy and asked.noise is None else asked.noise
    return Recording(asked.env, asked.policy, asked.seed, steps, noise)


def _check_settings(folder: Path, recording: Recording) -> None:
    """Writes the settings beside the episodes, or compares them with those there. Raises RecordingError."""
    path, wanted = folder / SETTINGS, asdict(recording)
    if not path.exists():
        if any(folder.glob("*.npz")):
            raise RecordingError(f"{folder} holds episodes of another origin (no {SETTINGS}): give another folder")
        write_text_atomically(path, json.dumps(wanted, indent=1) + "\n")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RecordingError(f"{path} cannot be read: give another folder")
    other = [name for name in wanted if name not in found or found[name] != wanted[name]]
    if other:
        differences = "; ".join(f"{name} {found.get(name)!r}, not {wanted[name]!r}" for name in other)
        raise RecordingError(f"{folder} was collected with {differences}: give another folder")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"want a whole number of at least 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    main(sys.argv[1:])
