"""What rematerialisation costs in time and saves in memory: worldmodel.remat_frames side by side."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from agent.runs.fields import ConfigError, parse_blocks
from agent.training.learner import choose_device
from eval.bench.passes import costs, gradient_pass
from worldmodel.lssvwm_config import LSSVWMConfig
from worldmodel.tokenizer import GRID

WINDOWS = ("1x1024", "8x128")
SEGMENTS = (0, 16, 64)
ACTIONS = 6


def bench_remat(
    windows: Sequence[str] = WINDOWS, segments: Sequence[int] = SEGMENTS, size: int = 64, rounds: int = 5
) -> dict[str, Any]:
    """Times loss and gradient of the default lssvwm on frames of noise.

    Args:
        windows: `BxT`: batch and frames.
        segments: frames of a segment, multiples of worldmodel.state_interval; 0 keeps all activations.
        size: pixels of a frame's side.

    Returns:
        {"size", "windows": {window: {segment: {"us_per_frame", "kb_per_frame", "peak_gb"}}}}; memory is the peak
        above what is held before the pass.

    Raises:
        ConfigError: an argument cannot be measured; before anything is.
    """
    sizes = {window: _window(window) for window in windows}
    block = LSSVWMConfig.state_interval
    if wrong := [segment for segment in segments if segment < 0 or segment % block]:
        raise ConfigError(f"--segments wants 0 or multiples of {block}, not {wrong[0]}")
    if size % GRID or size < 2 * GRID:
        raise ConfigError(f"--size wants multiples of {GRID} from {2 * GRID}, not {size}")
    device = choose_device("auto")
    table = {}
    for window, (batch, frames) in sizes.items():
        shape = batch, frames, (size, size, 3), ACTIONS, device
        works = {segment: gradient_pass(LSSVWMConfig(remat_frames=segment), *shape) for segment in segments}
        table[window] = costs(works, batch * frames, device, rounds)
    return {"size": size, "windows": table}


def _window(text: str) -> tuple[int, int]:
    """`8x128` -> (8, 128)"""
    with suppress(ValueError):
        ((batch, frames),) = parse_blocks(text)
        if batch and frames:
            return batch, frames
    raise ConfigError(f"--windows wants batch x frames, such as 8x128, not {text!r}")


def print_table(result: dict[str, Any]) -> None:
    """A line for each window and segment."""
    print(f"lssvwm, forward and backward, frames of {result['size']}x{result['size']}")
    print(f"{'window':>8s} {'segment':>8s} {'us/frame':>9s} {'KB/frame':>9s} {'peak GB':>8s}")
    for window, rows in result["windows"].items():
        for segment, row in rows.items():
            costs_a_frame = f"{row['us_per_frame']:9.1f} {row['kb_per_frame']:9.0f}"
            print(f"{window:>8s} {segment or 'all':>8} {costs_a_frame} {row['peak_gb']:8.2f}")
