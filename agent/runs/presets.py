"""Presets: named sets of values over the dataclasses' defaults, and what differs by observation, model and agent."""

from typing import Any, Literal

import torch

from agent.baselines.ppo import PPOConfig, is_unread
from agent.runs.config import Config
from agent.runs.fields import fields, replace
from worldmodel.lssvwm_config import LAYER_TYPES, NAMED_CONFIGS

ObsType = Literal["image", "vector"]
"""What an environment shows: frames, or short vectors of numbers."""

Values = dict[str, Any]
"""Values by dotted field name."""


def _values(**sections: Any) -> Values:
    """`steps=1, train={"prefill": 2}` -> {"steps": 1, "train.prefill": 2}"""
    flat: Values = {}
    for name, value in sections.items():
        flat |= {f"{name}.{field}": x for field, x in value.items()} if isinstance(value, dict) else {name: value}
    return flat


PRESETS: dict[str, Values] = {
    # Seconds: everything tiny, evaluation and checkpoints included.
    "debug": _values(
        steps=400,
        envs=2,
        worldmodel=dict(d_model=32, layers=2, d_state=16, hidden=32, state_interval=8)
        | dict(tokenizer_width=32, tokenizer_layers=1, num_categoricals=16, num_classes=8),
        agent=dict(horizon=5, hidden=32),
        replay=dict(batch_size=2, batch_length=16),
        train=dict(prefill=100, replay_ratio=8.0)
        | dict(log_every=5, eval_every=200, eval_episodes=1, save_every=200, video_every=400),
    ),
    # Minutes on two cores.
    "cpu": _values(
        steps=10_000,
        envs=2,
        worldmodel=dict(dynamics_scale=3.0),
        replay=dict(batch_size=16, batch_length=32),
        train=dict(replay_ratio=56.0, learning_rate=1e-3, lr_end_fraction=0.1)
        | dict(eval_every=5_000, eval_episodes=2, save_every=1_000, video_every=2_500),
    ),
    # Three quarters of an hour on two cores: small images, in which something is remembered and chosen. Rewards are
    # rare: their losses count much, and entropy stays high until the world model predicts them.
    "recall": _values(
        steps=120_000,
        envs=32,
        worldmodel=dict(d_model=64, blocks=((1, 1),), state_interval=8, global_frames=32)
        | dict(tokenizer_layers=1, num_categoricals=128, num_classes=16, detach_latents=True)
        | dict(reconstruction_scale=30.0, dynamics_scale=10.0, next_latent_scale=5.0)
        | dict(reward_scale=10.0, next_reward_scale=5.0),
        agent=dict(horizon=8, discount_horizon=20.0, entropy_scale=0.1, learning_rate=5e-4),
        replay=dict(batch_size=4, batch_length=64),
        train=dict(prefill=4_000, replay_ratio=8.0, learning_rate=1e-3, lr_end_fraction=0.3, grad_clip=1_000.0)
        | dict(eval_every=10_000, eval_episodes=50, save_every=10_000, video_every=1_000_000),
    ),
    # Hours on one GPU.
    "gpu": _values(
        steps=1_000_000,
        envs=16,
        worldmodel=dict(d_model=384, layers=6, blocks=((1, 1), (2, 2), (4, 4)), headdim=64, d_state=64, n_heads=8)
        | dict(hidden=512, tokenizer_width=384, tokenizer_layers=4),
        agent=dict(hidden=512),
        replay=dict(batch_size=16, batch_length=128),
        train=dict(prefill=5_000, replay_ratio=64.0, learning_rate=2e-4)
        | dict(log_every=100, eval_every=50_000, eval_episodes=10, save_every=20_000, video_every=100_000),
    ),
}
"""For stacks of `worldmodel.lssvwm` on images; `worldmodel.*` is for these stacks alone."""

OVERLAYS: dict[tuple[str, ObsType], Values] = {
    # Training begins when an episode has ended in one environment, and a maze's has 1,000 steps.
    ("debug", "image"): _values(steps=2_100, train=dict(replay_ratio=2.0, eval_every=2_100, save_every=1_000)),
    # A small model and many updates, which cost little.
    ("cpu", "vector"): _values(
        steps=6_000,
        envs=4,
        worldmodel=dict(d_model=64, layers=1, blocks=((1, 1),), d_state=16, hidden=128, state_interval=8)
        | dict(tokenizer_width=64, num_categoricals=16, num_classes=16)
        | dict(dynamics_scale=1.0, free_nats=0.1, reconstruction_scale=10.0),
        agent=dict(hidden=128, entropy_scale=1e-3, learning_rate=1e-3),
        replay=dict(batch_size=16, batch_length=32),
        train=dict(prefill=500, replay_ratio=384.0, learning_rate=1e-3, lr_end_fraction=1.0)
        | dict(precision="float32", threads=1, log_every=50, eval_every=1_000, eval_episodes=20),
    ),
    # A vector is one token.
    ("gpu", "vector"): _values(worldmodel=dict(blocks=((1, 1),)), train=dict(replay_ratio=256.0)),
}
"""Over `PRESETS`, by what the environment shows."""

OTHERS: dict[tuple[str, str], Values] = {
    ("debug", "rssm"): _values(worldmodel=dict(hidden=16, state_interval=8)),
    ("cpu", "rssm"): _values(worldmodel=dict(size="1M")),
    ("recall", "rssm"): _values(
        worldmodel=dict(size="1M", state_interval=4, reconstruction_scale=30.0, dynamics_scale=10.0)
        | dict(next_latent_scale=5.0, reward_scale=10.0, next_reward_scale=5.0)
    ),
    ("gpu", "rssm"): _values(worldmodel=dict(size="12M"), train=dict(learning_rate=1e-4)),
}
"""In place of `worldmodel.*` above, for a world model that is no such stack."""

_TINY_PPO = dict(n_steps=16, batch_size=32, n_epochs=1, lstm_hidden_size=16)

MODEL_FREE: dict[tuple[str, ObsType], Values] = {
    ("debug", "image"): _values(steps=400, agent=_TINY_PPO),
    ("debug", "vector"): _values(agent=_TINY_PPO),
    ("cpu", "image"): _values(steps=100_000, envs=8, train=dict(eval_every=20_000, save_every=5_000)),
    ("cpu", "vector"): _values(steps=100_000, envs=8, train=dict(eval_every=20_000, save_every=10_000)),
    ("recall", "image"): _values(envs=8),
    ("recall", "vector"): _values(envs=8),
    ("gpu", "image"): _values(steps=10_000_000, envs=16, train=dict(eval_every=500_000, save_every=100_000)),
    ("gpu", "vector"): _values(steps=1_000_000, train=dict(eval_every=50_000)),
}
"""In place of `agent.*` above, for the baselines: more steps, since each costs little."""

VECTORS = _values(agent=dict(n_epochs=10, learning_rate=1e-3, clip_range=0.2, entropy_scale=0.0))
"""For the baselines on vectors; their defaults are for images."""


def values(name: str, obs_type: ObsType, config: Config) -> Values:
    """The values of a preset for the world model and the agent of `config`, by dotted field name.

    `auto` is gpu where there is a CUDA device and cpu elsewhere. A model of `NAMED_CONFIGS` keeps its own sizes, but
    under debug; so does one of another kind without an entry in `OTHERS`. The schedule is every model's.
    """
    if name == "auto":
        name = "gpu" if torch.cuda.is_available() else "cpu"
    found = PRESETS[name] | OVERLAYS.get((name, obs_type), {})
    model = config.worldmodel.name
    if not (model in LAYER_TYPES and (model not in NAMED_CONFIGS or name == "debug")):
        found = {field: value for field, value in found.items() if not field.startswith("worldmodel.")}
        found |= OTHERS.get((name, model), {})
    if isinstance(config.agent, PPOConfig):
        found = {field: x for field, x in found.items() if not (is_unread(field) or field.startswith("agent."))}
        found |= (VECTORS if obs_type == "vector" else {}) | MODEL_FREE[name, obs_type]
    known = fields(config)
    return {field: value for field, value in found.items() if field in known}


def apply(name: str, obs_type: ObsType, config: Config) -> Config:
    """`config` with a preset's values. Raises ConfigError as `fields.replace`."""
    return replace(config, values(name, obs_type, config))
