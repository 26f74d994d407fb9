"""Cost per frame of a window's forward and backward pass against the window's length, for world models side by side."""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from agent.runs import presets
from agent.runs.config import Config, model_config
from agent.runs.fields import ConfigError, fields, replace
from agent.training.learner import choose_device
from eval.bench.passes import costs, gradient_pass
from eval.output import write_figure

SHAPE, ACTIONS = (32, 32, 3), 6
MODELS = ("lssvwm", "mamba", "gru", "s5", "transformer")
LENGTHS = (64, 256, 512, 1024, 2048, 4096)
FULL_ATTENTION_MOST = 512
"""Windows longer than this are left out for full attention on a CPU: one pass would take minutes."""


def bench_scaling(models: Sequence[str] = MODELS, lengths: Sequence[int] = LENGTHS, rounds: int = 3) -> dict[str, Any]:
    """Times loss and gradient of the debug preset's models, 32x32 pixels.

    Batch x length is the longest length, as nearly as whole windows allow. Full attention has as many frames as the
    window.

    Returns:
        {"frames", "models": {name: {length: {"us_per_frame", "kb_per_frame", "peak_gb"}}}}; memory is the peak above
        what is held before the pass.
    """
    device, frames = choose_device("auto"), max(lengths)
    table: dict[str, Any] = {name: {} for name in models}
    for length in lengths:
        chosen = [n for n in models if n != "transformer" or device.type == "cuda" or length <= FULL_ATTENTION_MOST]
        batch = max(1, frames // length)
        works = {name: _pass(name, batch, length, device) for name in chosen}
        for name, cost in costs(works, batch * length, device, rounds).items():
            table[name][length] = cost
    return {"frames": frames, "models": table}


def _pass(name: str, batch: int, length: int, device: torch.device) -> Callable[[], None]:
    """Loss and gradient of one batch of windows."""
    config = presets.apply("debug", "image", Config(worldmodel=model_config(name)))
    known, values = fields(config), {"worldmodel.global_frames": length, "worldmodel.state_interval": 16}
    config = replace(config, {name: value for name, value in values.items() if name in known})
    return gradient_pass(config.worldmodel, batch, length, SHAPE, ACTIONS, device)


def print_table(result: dict[str, Any]) -> None:
    """A line for each model and length."""
    print(f"forward and backward, {result['frames']} frames in all")
    print(f"{'model':12s} {'window':>7s} {'us/frame':>9s} {'KB/frame':>9s}")
    for name, lengths in result["models"].items():
        for length, row in lengths.items():
            print(f"{name:12s} {length:7d} {row['us_per_frame']:9.1f} {row['kb_per_frame']:9.1f}")


def check_format(path: Path) -> None:
    """Raises ConfigError where `plot` has no format for a name."""
    if path.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise ConfigError(f"--plot {path} is no image's name: want one such as {path.stem}.png")


def plot(result: dict[str, Any], path: Path) -> None:
    """Time and memory per frame against the window, every model on one figure."""
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    labels = {"us_per_frame": "microseconds a frame", "kb_per_frame": "KB a frame"}
    for axes, (key, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        for (name, lengths), marker in zip(result["models"].items(), cycle("os^Dvx"), strict=False):
            axes.plot(list(lengths), [row[key] for row in lengths.values()], marker=marker, label=name)
        axes.set(yscale="log", xlabel="frames in a window", ylabel=label)
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    write_figure(path, figure)
