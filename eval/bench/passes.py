"""Forward and backward passes of world models on noise, and what they cost a frame."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import worldmodel
from agent.runs.config import WorldModelConfig
from eval.bench.timing import medians, peak_memory, reset_peak
from worldmodel import SequenceBatch


def random_arrays(batch: int, frames: int, shape: tuple[int, ...], actions: int) -> dict[str, np.ndarray]:
    """Noise (batch, frames, ...) as replay gives it, in which no episode begins or ends."""
    random = np.random.default_rng(0)
    return {
        "observation": random.integers(0, 255, (batch, frames, *shape), dtype=np.uint8),
        "action": np.eye(actions, dtype=np.float32)[random.integers(0, actions, (batch, frames))],
        "reward": np.zeros((batch, frames), np.float32),
        "is_first": np.zeros((batch, frames), bool),
        "terminated": np.zeros((batch, frames), bool),
    }


def random_batch(batch: int, frames: int, shape: tuple[int, ...], actions: int) -> SequenceBatch:
    """`random_arrays` as a batch (batch, frames)."""
    arrays = random_arrays(batch, frames, shape, actions)
    return SequenceBatch(**{name: torch.from_numpy(a) for name, a in arrays.items()}, batch_size=[batch, frames])


def gradient_pass(
    config: WorldModelConfig, batch: int, frames: int, shape: tuple[int, ...], actions: int, device: torch.device
) -> Callable[[], None]:
    """Computes loss and gradient, under bfloat16 autocast, of one batch of windows of noise at each call."""
    torch.manual_seed(0)
    model = worldmodel.make(config, shape, actions).to(device)
    noise = random_batch(batch, frames, shape, actions).to(device)
    state = model.initial(batch)

    def work() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            losses, _, _ = model.loss(noise, state)
        worldmodel.total(losses, model.loss_scales()).backward()

    return work


def costs(
    works: Mapping[Any, Callable[[], Any]], frames: int, device: torch.device, rounds: int
) -> dict[Any, dict[str, float]]:
    """Median seconds of each work, and its peak memory in GB above what is held before it; both also by frame."""
    took = medians(works, device, rounds)
    found = {}
    for name, work in works.items():
        before = reset_peak(device)
        work()
        peak = peak_memory(device) - before
        found[name] = {
            "us_per_frame": took[name] / frames * 1e6,
            "kb_per_frame": peak / frames * 1e6,
            "peak_gb": peak,
        }
    return found
