"""Named sets of values over the dataclasses' defaults: by machine, then by what the environment shows."""

from typing import Any, Literal

import torch

from agent.baselines.ppo import PPOConfig, unread
from agent.runs.config import Config
from agent.runs.fields import fields, replace
from worldmodel.lssvwm import LAYER_TYPES
from worldmodel.neighbours import NEIGHBOURS

Kind = Literal["image", "vector"]
"""What an environment shows: frames, or short vectors of numbers."""

PRESETS: dict[str, dict[str, Any]] = {
    # Everything tiny: the whole loop, evaluation and checkpoints included, in seconds.
    "debug": {
        "steps": 400,
        "envs": 2,
        "worldmodel.d_model": 32,
        "worldmodel.layers": 2,
        "worldmodel.tokenizer_width": 32,
        "worldmodel.tokenizer_layers": 1,
        "worldmodel.num_categoricals": 16,
        "worldmodel.num_classes": 8,
        "worldmodel.state_interval": 8,
        "worldmodel.d_state": 16,
        "worldmodel.hidden": 32,
        "agent.horizon": 5,
        "agent.hidden": 32,
        "replay.batch_size": 2,
        "replay.batch_length": 16,
        "train.prefill": 100,
        "train.replay_ratio": 8.0,
        "train.log_every": 5,
        "train.eval_every": 200,
        "train.eval_episodes": 1,
        "train.save_every": 200,
        "train.video_every": 400,
    },
    # Two cores, minutes.
    "cpu": {
        "steps": 10_000,
        "envs": 2,
        "worldmodel.dynamics_scale": 3.0,
        "replay.batch_size": 16,
        "replay.batch_length": 32,
        "train.replay_ratio": 56.0,
        "train.learning_rate": 1e-3,
        "train.lr_end_fraction": 0.1,
        "train.eval_every": 5_000,
        "train.eval_episodes": 2,
        "train.save_every": 1_000,
        "train.video_every": 2_500,
    },
    # Two cores, three quarters of an hour: small pictures in which something must be remembered and chosen. Rewards are
    # few: they count much, and the policy is kept open until the world model knows what earns them.
    "recall": {
        "steps": 120_000,
        "envs": 32,
        "worldmodel.d_model": 64,
        "worldmodel.detach_latents": True,
        "worldmodel.tokenizer_layers": 1,
        "worldmodel.num_categoricals": 128,
        "worldmodel.num_classes": 16,
        "worldmodel.blocks": ((1, 1),),
        "worldmodel.state_interval": 8,
        "worldmodel.global_frames": 32,
        "worldmodel.reconstruction_scale": 30.0,
        "worldmodel.dynamics_scale": 10.0,
        "worldmodel.next_latent_scale": 5.0,
        "worldmodel.reward_scale": 10.0,
        "worldmodel.next_reward_scale": 5.0,
        "agent.horizon": 8,
        "agent.discount_horizon": 20,
        "agent.entropy_scale": 0.1,
        "agent.learning_rate": 5e-4,
        "replay.batch_size": 4,
        "replay.batch_length": 64,
        "train.prefill": 4_000,
        "train.replay_ratio": 8.0,
        "train.learning_rate": 1e-3,
        "train.lr_end_fraction": 0.3,
        "train.grad_clip": 1_000.0,
        "train.eval_every": 10_000,
        "train.eval_episodes": 50,
        "train.save_every": 10_000,
        "train.video_every": 1_000_000,
    },
    # One card, hours.
    "gpu": {
        "steps": 1_000_000,
        "envs": 16,
        "worldmodel.d_model": 384,
        "worldmodel.layers": 6,
        "worldmodel.tokenizer_width": 384,
        "worldmodel.tokenizer_layers": 4,
        "worldmodel.blocks": ((1, 1), (2, 2), (4, 4)),
        "worldmodel.headdim": 64,
        "worldmodel.d_state": 64,
        "worldmodel.n_heads": 8,
        "worldmodel.hidden": 512,
        "agent.hidden": 512,
        "replay.batch_size": 16,
        "replay.batch_length": 128,
        "train.prefill": 5_000,
        "train.replay_ratio": 64.0,
        "train.learning_rate": 2e-4,
        "train.log_every": 100,
        "train.eval_every": 50_000,
        "train.eval_episodes": 10,
        "train.save_every": 20_000,
        "train.video_every": 100_000,
    },
}

OVERLAYS: dict[tuple[str, Kind], dict[str, Any]] = {
    # A maze's episodes are 1,000 steps: one of each environment's must end before there is anything to learn from.
    ("debug", "image"): {
        "steps": 2_100,
        "train.replay_ratio": 2.0,
        "train.eval_every": 2_100,
        "train.save_every": 1_000,
    },
    # A small model, taught often: vectors cost little, and each update's overhead is most of its time.
    ("cpu", "vector"): {
        "steps": 6_000,
        "envs": 4,
        "worldmodel.d_model": 64,
        "worldmodel.layers": 1,
        "worldmodel.tokenizer_width": 64,
        "worldmodel.num_categoricals": 16,
        "worldmodel.num_classes": 16,
        "worldmodel.state_interval": 8,
        "worldmodel.d_state": 16,
        "worldmodel.hidden": 128,
        "worldmodel.blocks": ((1, 1),),
        "worldmodel.dynamics_scale": 1.0,
        "worldmodel.free_nats": 0.1,
        "worldmodel.reconstruction_scale": 10.0,
        "agent.hidden": 128,
        "agent.entropy_scale": 1e-3,
        "agent.learning_rate": 1e-3,
        "replay.batch_size": 16,
        "replay.batch_length": 32,
        "train.prefill": 500,
        "train.replay_ratio": 384.0,
        "train.learning_rate": 1e-3,
        "train.lr_end_fraction": 1.0,
        "train.precision": "float32",
        "train.threads": 1,
        "train.log_every": 50,
        "train.eval_every": 1_000,
        "train.eval_episodes": 20,
    },
    # A vector is one token: blocks have nothing to cut.
    ("gpu", "vector"): {"worldmodel.blocks": ((1, 1),), "train.replay_ratio": 256.0},
}

OTHERS: dict[tuple[str, str], dict[str, Any]] = {
    ("debug", "rssm"): {"worldmodel.hidden": 16, "worldmodel.state_interval": 8},
    ("cpu", "rssm"): {"worldmodel.size": "1M"},
    ("recall", "rssm"): {"worldmodel.size": "1M", "worldmodel.state_interval": 4},
    ("gpu", "rssm"): {"worldmodel.size": "12M", "train.learning_rate": 1e-4},
}
"""By preset and world model: what is said, in place of `worldmodel.*` above, for models that are no such stack."""

MODEL_FREE: dict[tuple[str, Kind], dict[str, Any]] = {
    ("debug", "image"): {
        "steps": 400,
        "agent.n_steps": 16,
        "agent.batch_size": 32,
        "agent.n_epochs": 1,
        "agent.lstm_hidden_size": 16,
    },
    ("debug", "vector"): {
        "agent.n_steps": 16,
        "agent.batch_size": 32,
        "agent.n_epochs": 1,
        "agent.lstm_hidden_size": 16,
    },
    ("cpu", "image"): {"steps": 100_000, "envs": 8, "train.eval_every": 20_000, "train.save_every": 5_000},
    ("cpu", "vector"): {"steps": 100_000, "envs": 8, "train.eval_every": 20_000, "train.save_every": 10_000},
    ("recall", "image"): {"envs": 8},
    ("recall", "vector"): {"envs": 8},
    ("gpu", "image"): {"steps": 10_000_000, "envs": 16, "train.eval_every": 500_000, "train.save_every": 100_000},
    ("gpu", "vector"): {"steps": 1_000_000, "train.eval_every": 50_000},
}
"""By preset: what is said for the baselines, in place of `agent.*` above. They take more steps, and quicker ones."""

VECTORS: dict[str, Any] = {
    "agent.n_epochs": 10,
    "agent.learning_rate": 1e-3,
    "agent.clip_range": 0.2,
    "agent.entropy_scale": 0.0,
}
"""For the baselines, with vectors; their defaults are for images."""


def apply(name: str, kind: Kind, config: Config) -> Config:
    """`config` with a preset's values; `auto` is gpu where there is a CUDA device and cpu elsewhere.

    `worldmodel.*` of `PRESETS` and `OVERLAYS` are for the stacks of `worldmodel.lssvwm` alone. A neighbour
    (`worldmodel.neighbours`) keeps its own but under debug; any other model has those of `OTHERS`, or keeps its own.
    Lengths of training are every model's. Values for fields that are not there (another agent's) are left out.
    """
    if name == "auto":
        name = "gpu" if torch.cuda.is_available() else "cpu"
    values = PRESETS[name] | OVERLAYS.get((name, kind), {})
    model = config.worldmodel.name
    if not (model in LAYER_TYPES or (model in NEIGHBOURS and name == "debug")):
        values = {field: value for field, value in values.items() if not field.startswith("worldmodel.")}
        values |= OTHERS.get((name, model), {})
    if isinstance(config.agent, PPOConfig):
        values = {field: value for field, value in values.items() if not (unread(field) or field.startswith("agent."))}
        values |= (VECTORS if kind == "vector" else {}) | MODEL_FREE[name, kind]
    known = fields(config)
    return replace(config, {field: value for field, value in values.items() if field in known})
