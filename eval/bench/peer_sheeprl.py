"""One update of sheeprl's DreamerV3, timed: run by the Python of sheeprl's own environment, not imported by ours.

Speaks JSON, a line for each message: a request on stdin, its answer on stdout. The first request is the measurement::

    {"batch": 8, "frames": 64, "pixels": 64, "actions": 6, "threads": 2, "parameters": 2400000}
    -> {"parameters": ..., "width": ..., "imagined": "512 x 15", "precision": "32-true", "torch": ..., "version": ...}
    "update" -> {"seconds": ...}

The process ends with its stdin.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from lightning.fabric import Fabric
from omegaconf import OmegaConf
from sheeprl import __version__
from sheeprl.algos.dreamer_v3.agent import build_agent
from sheeprl.algos.dreamer_v3.dreamer_v3 import train
from sheeprl.algos.dreamer_v3.utils import Moments
from sheeprl.utils.metric import MetricAggregator
from sheeprl.utils.timer import timer
from sheeprl.utils.utils import dotdict
from torch import Tensor
from torch.distributions import Distribution

STEP = 8
"""Widths tried are multiples of it."""


def main() -> None:
    """Answers requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    given = json.loads(sys.stdin.readline())
    torch.set_num_threads(given.pop("threads"))
    MetricAggregator.disabled = timer.disabled = True
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    torch.manual_seed(0)
    width = nearest_width(fabric, given.pop("parameters"), given)
    update, about = prepare(fabric, width, **given)
    answer(about | {"torch": torch.__version__, "threads": torch.get_num_threads(), "version": __version__})
    for _ in sys.stdin:
        started = time.perf_counter()
        update()
        answer({"seconds": time.perf_counter() - started})


def configuration(width: int, batch: int, frames: int, pixels: int, actions: int) -> Any:
    """sheeprl's smallest DreamerV3 (`dreamer_v3_XS`, of width 256), all its widths scaled alike.

    The 32 categoricals of 32 classes, the layers, the losses and the horizon stay.
    """
    sizes = {
        "dense_units": width,
        "world_model.encoder.cnn_channels_multiplier": max(1, round(24 * width / 256)),
        "world_model.recurrent_model.recurrent_state_size": width,
        "world_model.transition_model.hidden_size": width,
        "world_model.representation_model.hidden_size": width,
        "per_rank_batch_size": batch,
        "per_rank_sequence_length": frames,
    }
    overrides = ["exp=dreamer_v3", "algo=dreamer_v3_XS", "env=dummy", "run_name=peer", f"env.screen_size={pixels}"]
    with initialize_config_module("sheeprl.configs", version_base="1.3"):
        tree = compose("config", overrides + [f"algo.{name}={value}" for name, value in sizes.items()])
    config = dotdict(OmegaConf.to_container(tree, resolve=True, throw_on_missing=True))
    Distribution.set_default_validate_args(config.distribution.validate_args)
    torch.set_float32_matmul_precision(config.float32_matmul_precision)
    return config


def build(fabric: Fabric, config: Any, actions: int) -> tuple[Any, Any, Any, Any]:
    """World model, actor, critic and target critic."""
    shape = (3, config.env.screen_size, config.env.screen_size)
    space = gymnasium.spaces.Dict({"rgb": gymnasium.spaces.Box(0, 255, shape, np.uint8)})
    return build_agent(fabric, (actions,), False, config, space)[:4]


def count(*modules: Any) -> int:
    """Trained parameters."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


def nearest_width(fabric: Fabric, parameters: int, shape: dict[str, int]) -> int:
    """The width whose world model, actor and critic have nearest to so many parameters together."""

    def total(width: int) -> int:
        return count(*build(fabric, configuration(width, **shape), shape["actions"])[:3])

    low, high = 1, 2  # in steps
    while total(high * STEP) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle * STEP) < parameters else (low, middle)
    return min((low * STEP, high * STEP), key=lambda width: abs(total(width) - parameters))


def prepare(
    fabric: Fabric, width: int, batch: int, frames: int, pixels: int, actions: int
) -> tuple[Callable[[], None], dict[str, Any]]:
    """One update on random frames, target critic included, and what is updated in words."""
    config = configuration(width, batch, frames, pixels, actions)
    model, actor, critic, target = build(fabric, config, actions)
    settings = (config.algo.world_model.optimizer, config.algo.actor.optimizer, config.algo.critic.optimizer)
    optimizers = fabric.setup_optimizers(
        *(
            instantiate(optimizer, params=module.parameters(), _convert_="all")
            for optimizer, module in zip(settings, (model, actor, critic), strict=True)
        )
    )
    of_returns = config.algo.actor.moments
    moments = Moments(of_returns.decay, of_returns.max, of_returns.percentile.low, of_returns.percentile.high)
    replay, tau = random_replay(batch, frames, pixels, actions), config.algo.critic.tau

    def update() -> None:
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), critic.module.parameters(), strict=True):
                slow.lerp_(fast, tau)
        data = {name: value.float() for name, value in replay.items()}
        train(fabric, model, actor, critic, target, *optimizers, data, None, config, False, (actions,), moments)

    about = {
        "parameters": count(model, actor, critic),
        "width": width,
        "imagined": f"{batch * frames} x {config.algo.horizon}",
        "precision": "float32",
    }
    return update, about


def random_replay(batch: int, frames: int, pixels: int, actions: int) -> dict[str, Tensor]:
    """Noise as sheeprl's buffer gives it, (frames, batch, ...), in which no episode begins or ends."""
    random = torch.Generator().manual_seed(0)
    zeros = torch.zeros(frames, batch, 1)
    chosen = torch.randint(actions, (frames, batch), generator=random)
    return {
        "rgb": torch.randint(256, (frames, batch, 3, pixels, pixels), dtype=torch.uint8, generator=random),
        "actions": torch.nn.functional.one_hot(chosen, actions),
        "rewards": zeros,
        "terminated": zeros,
        "truncated": zeros,
        "is_first": zeros,
    }


if __name__ == "__main__":
    main()
