"""One update of sheeprl's DreamerV3 and of ours, in turns: equal parameters, windows and threads."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agent.runs import presets
from agent.runs.config import Config
from agent.runs.fields import ConfigError, replace
from agent.training.learner import Learner
from eval.bench.passes import random_arrays
from eval.bench.peer_process import PeerProcess, default_folder, installed
from eval.bench.timing import gemm_peak, seconds

REQUIREMENT = "sheeprl==0.8.0"
SCRIPT = Path(__file__).with_name("peer_sheeprl.py")

PIXELS, ACTIONS, HORIZON = 64, 6, 15
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
STARTS = (32, 128, 512)
WARM_UP = 3


@dataclass(frozen=True)
class Variant:
    """One of our updates."""

    starts: int
    precision: str
    state_interval: int
    parameters: int
    update: Callable[[], Any]


def bench_peers(
    rounds: int = 5,
    starts: Sequence[int] = STARTS,
    threads: int = 2,
    batch: int = 8,
    frames: int = 64,
    preset: str = "cpu",
    peer_parameters: int = 0,
    venv: Path | None = None,
) -> dict[str, Any]:
    """Times updates on random 64x64x3 windows with 6 actions, each of ours right after one of sheeprl's.

    sheeprl's DreamerV3 imagines 15 frames from every replayed frame, in float32. Ours imagines as many from each
    number of `starts`, in its own precision and in float32. Both run on the CPU.

    Args:
        rounds: updates timed of each.
        starts: States that imagination starts from; at most batch x frames.
        peer_parameters: of sheeprl's model, about; 0: as ours.
        venv: the folder of sheeprl's environment, which is made where there is none; None: in the user's cache.

    Returns:
        {"window", "threads", "horizon", "torch", "gemm_peak_gflop_per_s": {precision: ...}, "peer": {...}, "ours":
        [{..., "ratio"}]}; a ratio is the median over rounds of the peer's time by ours, above 1 where ours is quicker.

    Raises:
        ConfigError: starts that the window does not have; an environment that cannot be made.
    """
    intervals = {n: state_interval(n, batch, frames, preset) for n in starts}
    folder = venv or default_folder(REQUIREMENT)
    python = installed(REQUIREMENT, folder)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        variants = [
            _variant(preset, batch, frames, n, interval, precision)
            for n, interval in intervals.items()
            for precision in PRECISIONS
        ]
        with PeerProcess([str(python), "-I", str(SCRIPT)], folder.absolute()) as peer:
            wanted = {"batch": batch, "frames": frames, "pixels": PIXELS, "actions": ACTIONS, "threads": threads}
            about = peer.ask(wanted | {"parameters": peer_parameters or variants[0].parameters})
            pairs, peaks = _measure(peer, variants, rounds)
    finally:
        torch.set_num_threads(before)

    replayed = batch * frames
    peer_took = statistics.median(theirs for times in pairs.values() for theirs, _ in times)
    ours = []
    for i, variant in enumerate(variants):
        took = statistics.median(seconds for _, seconds in pairs[i])
        ours.append(
            {
                "starts": variant.starts,
                "state_interval": variant.state_interval,
                "parameters": variant.parameters,
                "precision": variant.precision,
                "seconds_per_update": took,
                "frames_per_s": replayed / took,
                "ratio": statistics.median(theirs / seconds for theirs, seconds in pairs[i]),
            }
        )
    return {
        "window": f"{batch} x {frames}",
        "threads": threads,
        "horizon": HORIZON,
        "torch": torch.__version__,
        "gemm_peak_gflop_per_s": {name: statistics.median(found) / 1e9 for name, found in peaks.items()},
        "peer": {"name": f"{REQUIREMENT.replace('==', ' ')} dreamer_v3"}
        | about
        | {"seconds_per_update": peer_took, "frames_per_s": replayed / peer_took},
        "ours": ours,
    }


def state_interval(starts: int, batch: int, frames: int, preset: str) -> int:
    """The longest interval between States, the preset's at most, at which a window has so many. Raises ConfigError."""
    longest = presets.apply(preset, "image", Config()).worldmodel.state_interval
    fitting = [n for n in range(1, longest + 1) if frames % n == 0 and batch * frames // n >= starts]
    if not fitting:
        raise ConfigError(f"--starts {starts}: a window of {batch} x {frames} has {batch * frames} frames")
    return fitting[-1]


def _variant(preset: str, batch: int, frames: int, starts: int, interval: int, precision: str) -> Variant:
    values = {
        "agent.horizon": HORIZON,
        "agent.imagination_starts": starts,
        "worldmodel.state_interval": interval,
        "replay.batch_size": batch,
        "replay.batch_length": frames,
        "train.precision": precision,
        "train.device": "cpu",
    }
    config = replace(presets.apply(preset, "image", Config()), values)
    torch.manual_seed(0)
    learner = Learner(config, (PIXELS, PIXELS, 3), ACTIONS)
    arrays, state = random_arrays(batch, frames, (PIXELS, PIXELS, 3), ACTIONS), learner.model.initial(batch)
    parameters = sum(p.numel() for m in (learner.model, learner.agent) for p in m.parameters() if p.requires_grad)
    return Variant(starts, precision, interval, parameters, partial(learner.update, arrays, state))


def _measure(
    peer: PeerProcess, variants: Sequence[Variant], rounds: int
) -> tuple[dict[int, list[tuple[float, float]]], dict[str, list[float]]]:
    """Seconds of the peer's update and of ours right after it, by the variant's place; FLOP/s of matrix products."""
    cpu = torch.device("cpu")
    for _ in range(WARM_UP):
        peer.ask("update")
        for variant in variants:
            variant.update()
    pairs: dict[int, list[tuple[float, float]]] = {i: [] for i in range(len(variants))}
    peaks: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for _ in range(rounds):
        for i, variant in enumerate(variants):
            theirs = peer.ask("update")["seconds"]
            pairs[i].append((theirs, seconds(variant.update, cpu)))
        for name, dtype in PRECISIONS.items():
            peaks[name].append(gemm_peak(cpu, dtype))
    return pairs, peaks


def print_table(result: dict[str, Any]) -> None:
    """A line for the peer, and one for each of our updates."""
    peer = result["peer"]
    peaks = ", ".join(f"{name} {peak:.0f}" for name, peak in result["gemm_peak_gflop_per_s"].items())
    print(f"one update of {result['window']} frames, {result['threads']} threads; GEMM peak in GFLOP/s: {peaks}")
    print(f"torch: {peer['torch']} ({peer['name']}, {peer['threads']} threads), {result['torch']} (ours)")
    print(f"{'':24s} {'parameters':>11s} {'precision':>9s} {'imagined':>9s} {'s/update':>9s} {'frames/s':>9s} ratio")
    _print_row(peer["name"], peer, peer["imagined"], "")
    for row in result["ours"]:
        _print_row("ours", row, f"{row['starts']} x {result['horizon']}", f"{row['ratio']:5.2f}")


def _print_row(name: str, row: dict[str, Any], imagined: str, ratio: str) -> None:
    print(
        f"{name:24s} {row['parameters']:11,d} {row['precision']:>9s} {imagined:>9s} "
        f"{row['seconds_per_update']:9.3f} {row['frames_per_s']:9.0f} {ratio}"
    )
