"""Cost per frame of a window's forward and backward pass against the window's length, for world models side by side."""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

import worldmodel
from agent.runs import presets
from agent.runs.config import Config, WorldModelConfig, model_config
from agent.runs.fields import ConfigError, fields, replace
from agent.training.learner import choose_device
from eval.bench.timing import medians, peak_memory, reset_peak
from eval.bench.update import random_batch
from replay.atomic import replace_atomically

SHAPE, ACTIONS = (32, 32, 3), 6
MODELS = ("lssvwm", "mamba", "gru", "s5", "transformer")
LENGTHS = (64, 256, 512, 1024, 2048, 4096)
FULL_ATTENTION_MOST = 512
"""Windows longer than this are left out for full attention on a CPU: one pass would take minutes."""


def bench_scaling(
    models: Sequence[str] = MODELS, lengths: Sequence[int] = LENGTHS, rounds: int = 3, frames: int | None = None
) -> dict[str, Any]:
    """Times loss and gradient of the debug preset's models, 32x32 pixels, batch x length held constant.

    Full attention keeps as many frames as the window has.

    Args:
        frames: batch x length, as nearly as whole windows allow; None: the longest length.

    Returns:
        {"frames", "models": {name: {length: {"us_per_frame", "kb_per_frame"}}}}; memory is the peak above what was
        held before the pass.
    """
    device = choose_device("auto")
    frames = frames or max(lengths)
    table: dict[str, Any] = {name: {} for name in models}
    for length in lengths:
        chosen = [n for n in models if n != "transformer" or device.type == "cuda" or length <= FULL_ATTENTION_MOST]
        batch = max(1, frames // length)
        works = {name: _pass(name, batch, length, device) for name in chosen}
        took = medians(works, device, rounds)
        for name, work in works.items():
            before = reset_peak(device)
            work()
            table[name][length] = {
                "us_per_frame": took[name] / (batch * length) * 1e6,
                "kb_per_frame": (peak_memory(device) - before) / (batch * length) * 1e6,
            }
    return {"frames": frames, "models": table}


def _pass(name: str, batch: int, length: int, device: torch.device) -> Callable[[], None]:
    """Loss and gradient of one batch of windows."""
    config = presets.apply("debug", "image", Config(worldmodel=model_config(name)))
    known, values = fields(config), {"worldmodel.global_frames": length, "worldmodel.state_interval": 16}
    config = replace(config, {name: value for name, value in values.items() if name in known})
    return gradient_pass(config.worldmodel, batch, length, SHAPE, device)


def gradient_pass(
    config: WorldModelConfig, batch: int, length: int, shape: tuple[int, ...], device: torch.device
) -> Callable[[], None]:
    """Loss and gradient, under bfloat16 autocast, of one batch of windows of noise."""
    torch.manual_seed(0)
    model = worldmodel.make(config, shape, ACTIONS).to(device)
    rows = random_batch(batch, length, shape, ACTIONS).to(device)
    state = model.initial(batch)

    def work() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            losses, _, _ = model.loss(rows, state)
        worldmodel.total(losses, model.loss_scales()).backward()

    return work


def print_table(result: dict[str, Any]) -> None:
    """A line for each model and length."""
    print(f"forward and backward, {result['frames']} frames in all")
    print(f"{'model':12s} {'window':>7s} {'us/frame':>9s} {'KB/frame':>9s}")
    for name, lengths in result["models"].items():
        for length, row in lengths.items():
            print(f"{name:12s} {length:7d} {row['us_per_frame']:9.1f} {row['kb_per_frame']:9.1f}")


def check_format(path: Path) -> None:
    """Raise ConfigError where `plot` has no format for a name."""
    from matplotlib.backend_bases import FigureCanvasBase

    if path.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise ConfigError(f"--plot {path} is no picture's name: want one such as {path.stem}.png")


def plot(result: dict[str, Any], path: Path) -> None:
    """Time and memory per frame against the window, every model on one figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key, label in zip(
        figure.subplots(1, 2), ("us_per_frame", "kb_per_frame"), ("microseconds a frame", "KB a frame"), strict=True
    ):
        for name, marker in zip(result["models"], cycle("os^Dvx"), strict=False):
            lengths = result["models"][name]
            axes.plot(list(lengths), [row[key] for row in lengths.values()], marker=marker, label=name)
        axes.set(xscale="log", yscale="log", xlabel="frames in a window", ylabel=label)
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    replace_atomically(path, lambda out: figure.savefig(out, dpi=110))
