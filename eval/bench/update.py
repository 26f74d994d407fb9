"""Replayed frames per second of one whole update, and what share of the machine's matrix-multiply peak it reaches."""

import statistics
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import worldmodel
from agent.runs import presets
from agent.runs.config import Config
from agent.runs.fields import replace
from agent.training.learner import Learner
from eval.bench.passes import random_arrays
from eval.bench.timing import gemm_peak, peak_memory, seconds

SIZES: dict[str, dict[str, Any]] = {
    "preset": {},
    # much of it in wide heads: what reads a frame costs a sixteenth of what reads a token
    "12M": {
        "worldmodel.d_model": 288,
        "worldmodel.tokenizer_width": 256,
        "worldmodel.layers": 3,
        "worldmodel.hidden": 1024,
        "agent.hidden": 1024,
    },
}
"""Changes to a preset that make a model of so many parameters."""

REFERENCE_PEAK = 820e9
"""bf16 FLOP/s of the 2-core machine that frames/s are also given for."""


def bench_update(
    preset: str = "cpu",
    repeats: int = 10,
    batch: int = 8,
    frames: int = 64,
    size: str = "preset",
    part: str = "all",
    model: str = "lssvwm",
    tokenizer: str = "joint",
) -> dict[str, Any]:
    """Times updates on random 64x64x3 windows with 6 actions, in turns with the GEMM peak of the same precision.

    FLOPs are those that torch's counter finds in matrix products, convolutions and attention, forward and backward.

    Args:
        size: a name in SIZES.
        part: `all`, or `model`: the world model alone, no imagination and no agent.
        model: a stack of mixers, by name.
        tokenizer: `joint`, or `first`: it was taught before, and stays as it is.
    """
    config = presets.apply(preset, "image", Config(worldmodel=worldmodel.find(model)[1]()))
    config = replace(config, SIZES[size] | {"worldmodel.tokenizer_updates": int(tokenizer == "first")})
    config.replay.batch_size, config.replay.batch_length = batch, frames
    learner = Learner(config, (64, 64, 3), 6)
    arrays, state = random_arrays(batch, frames, (64, 64, 3), 6), learner.model.initial(batch)

    def update() -> None:
        learner.update(arrays, state, agent=part == "all")

    for _ in range(8):  # the first ones are slow: memory is still being allocated
        update()
    with FlopCounterMode(display=False) as counter:
        update()
    dtype = torch.bfloat16 if config.train.precision == "bfloat16" else torch.float32
    times, peaks = [], []
    for _ in range(repeats):  # in turns, so that both have the same load of the machine
        times.append(seconds(update, learner.device))
        peaks.append(gemm_peak(learner.device, dtype))
    took, peak, flops = statistics.median(times), statistics.median(peaks), counter.get_total_flops()
    modules = (learner.model, learner.agent) if part == "all" else (learner.model,)
    return {
        "preset": preset,
        "worldmodel": model,
        "tokenizer": tokenizer,
        "size": size,
        "part": part,
        "window": f"{batch} x {frames}",
        "parameters": sum(p.numel() for m in modules for p in m.parameters() if p.requires_grad),
        "precision": config.train.precision,
        "threads": torch.get_num_threads(),
        "seconds_per_update": took,
        "frames_per_s": batch * frames / took,
        "frames_per_s_at_820_gflop_peak": batch * frames / took * REFERENCE_PEAK / peak,
        "peak_memory_gb": peak_memory(learner.device),
        "gflop_per_update": flops / 1e9,
        "gemm_peak_gflop_per_s": peak / 1e9,
        "share_of_gemm_peak": flops / took / peak,
    }


def print_table(result: dict[str, Any]) -> None:
    """A line for each entry."""
    for name, value in result.items():
        print(f"{name:32s} {value:.4g}" if isinstance(value, float) else f"{name:32s} {value}")
