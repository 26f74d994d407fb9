"""PPO of Stable-Baselines3 and RecurrentPPO of sb3-contrib: the algorithm, its policy, and how that acts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Space
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecTransposeImage
from torch import Tensor, nn

from agent.baselines.frame_stack import FrameStack
from agent.baselines.ppo import PPOConfig
from agent.runs.checkpoint import match
from agent.runs.flatten import flatten, unflatten

SMALLEST = 36
"""Pixels, each way, that the convolutions of Mnih et al. 2015 need at least."""


class EnlargedCNN(NatureCNN):
    """NatureCNN on frames enlarged twofold, for frames smaller than `SMALLEST`."""

    def __init__(self, observation_space: Box, features_dim: int = 512, normalized_image: bool = False):
        channels, height, width = observation_space.shape
        super().__init__(Box(0, 255, (channels, 2 * height, 2 * width), np.uint8), features_dim, normalized_image)

    def forward(self, observations: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, features_dim)"""
        return super().forward(nn.functional.interpolate(observations, scale_factor=2))


def algorithm(config: PPOConfig, environments: VecEnv, seed: int, device: torch.device) -> PPO | RecurrentPPO:
    """PPO on these environments, their newest `config.frame_stack` images stacked."""
    space = environments.observation_space
    if _is_image(space):
        environments = VecFrameStack(environments, config.frame_stack, channels_order="last")
    return _kind(config)(
        _name(config, space),
        environments,
        learning_rate=config.learning_rate,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.lam,
        clip_range=config.clip_range,
        ent_coef=config.entropy_scale,
        vf_coef=config.value_scale,
        max_grad_norm=config.grad_clip,
        policy_kwargs=_options(config, space),
        seed=seed,
        device=device,
    )


def policy(config: PPOConfig, observations: Box, actions: Space) -> ActorCriticPolicy:
    """The policy that `algorithm` trains, before training; spaces are those of one environment."""
    name, options = _name(config, observations), _options(config, observations)
    if _is_image(observations):
        height, width, channels = observations.shape
        observations = VecTransposeImage.transpose_space(
            Box(0, 255, (height, width, channels * config.frame_stack), np.uint8)
        )
    made = _kind(config).policy_aliases[name](observations, actions, lambda _: config.learning_rate, **options)
    assert isinstance(made, ActorCriticPolicy)
    return made


def restore(policy: ActorCriticPolicy, tensors: Mapping[str, Tensor]) -> None:
    """Loads the tensors `policy/...` of a checkpoint. Raises CheckpointError where they do not fit."""
    own = {name: tensor for name, tensor in tensors.items() if name.startswith("policy/")}
    match(own, flatten("policy", policy.state_dict()))
    policy.load_state_dict(unflatten("policy", own))


class Player:
    """An `envs.policies.Policy` that keeps the network's memory: newest frames, or the LSTM's state."""

    def __init__(self, policy: ActorCriticPolicy, config: PPOConfig, greedy: bool = False):
        self.policy, self.greedy = policy, greedy
        self._stack = FrameStack(config.frame_stack)
        self._memory: tuple[np.ndarray, ...] | None = None

    def __call__(self, observation: np.ndarray, is_first: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
        """See `Policy`; `info` is not read."""
        stacked = self._stack(observation, is_first) if observation.ndim == 4 else observation
        actions, self._memory = self.policy.predict(stacked, self._memory, is_first, self.greedy)
        return actions


def _kind(config: PPOConfig) -> type[PPO] | type[RecurrentPPO]:
    return RecurrentPPO if config.recurrent else PPO


def _is_image(space: Space) -> bool:
    return len(space.shape or ()) == 3


def _name(config: PPOConfig, space: Space) -> str:
    return f"{'Cnn' if _is_image(space) else 'Mlp'}{'Lstm' if config.recurrent else ''}Policy"


def _options(config: PPOConfig, space: Space) -> dict[str, Any]:
    """Keyword arguments of the policy's networks."""
    options: dict[str, Any] = {"lstm_hidden_size": config.lstm_hidden_size} if config.recurrent else {}
    if not _is_image(space):
        return options | {"net_arch": [config.hidden, config.hidden]}
    assert space.shape is not None
    return options | {"features_extractor_class": NatureCNN if min(space.shape[:2]) >= SMALLEST else EnlargedCNN}
