"""Steps per second of Memory Maze: the package as it is and ours, side by side in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import envs
from envs.memory_maze.package import import_tasks

SEGMENT_STEPS = 100
WARM_UP_STEPS = 20
SEGMENTS_AN_EPISODE = 9
"""Both mazes begin a new episode after so many segments, before the shortest limit (1000 steps) is reached."""

Result = dict[str, dict[str, float]]


def bench_envs(steps: int = 400, sizes: Sequence[str] = ("9x9",)) -> Result:
    """Measures both on the same seeded episodes with the same random actions, in turns of 100 steps.

    In turns, so that both have the same load of the machine. Resets are not counted.

    Args:
        steps: steps of each; at least one turn is taken.
        sizes: of the maze, e.g. "9x9".

    Returns:
        environment name -> {"stock_steps_per_s", "ours_steps_per_s", "ratio"}: medians over turns, and their ratio.
    """
    names = {"MemoryMaze" if size == "9x9" else f"MemoryMaze-{size}": size for size in sizes}
    return {name: _bench(name, size, max(1, steps // SEGMENT_STEPS)) for name, size in names.items()}


def _bench(name: str, size: str, segments: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    stock = getattr(import_tasks(), f"memory_maze_{size}")(seed=0, image_only_obs=True)
    ours = envs.make(name)
    rates: dict[str, list[float]] = {"stock": [], "ours": []}
    for segment in range(segments):
        if segment % SEGMENTS_AN_EPISODE == 0:
            stock.reset()
            ours.reset(seed=0 if segment == 0 else None)
            warm_up = rng.integers(6, size=WARM_UP_STEPS)
            _steps_per_s(stock.step, warm_up)
            _steps_per_s(ours.step, warm_up)
        actions = rng.integers(6, size=SEGMENT_STEPS)
        rates["stock"].append(_steps_per_s(stock.step, actions))
        rates["ours"].append(_steps_per_s(ours.step, actions))
    stock.close()
    ours.close()
    stock_rate, ours_rate = statistics.median(rates["stock"]), statistics.median(rates["ours"])
    return {"stock_steps_per_s": stock_rate, "ours_steps_per_s": ours_rate, "ratio": ours_rate / stock_rate}


def _steps_per_s(step: Callable[[Any], Any], actions: np.ndarray) -> float:
    start = time.perf_counter()
    for action in actions:
        step(action)
    return len(actions) / (time.perf_counter() - start)


def print_table(result: Result) -> None:
    """A line for each environment."""
    print(f"{'environment':20s} {'stock steps/s':>14s} {'ours steps/s':>14s} {'ratio':>7s}")
    for name, row in result.items():
        print(f"{name:20s} {row['stock_steps_per_s']:14.1f} {row['ours_steps_per_s']:14.1f} {row['ratio']:7.2f}")
