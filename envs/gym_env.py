"""Any registered Gymnasium environment with image or flat-vector observations and discrete or bounded actions."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import RescaleAction, TransformObservation

from envs.errors import MakeError
from envs.images import IMAGE_SHAPE, to_image


def make_gym(id: str, **options: Any) -> gymnasium.Env:
    """`gymnasium.make(id, **options)` with observations and actions as world models take them.

    Images, (H, W), (H, W, 1) or (H, W, 3) uint8, become (64, 64, 3) uint8; vectors, (D,) of any numeric type, (D,)
    float32. Continuous actions, (A,) between bounds, are scaled to -1..1.

    Raises:
        ValueError: observations that are neither images nor vectors, or actions that are neither discrete from 0 nor
            vectors of bounded floats.
        MakeError: Gymnasium cannot make the environment; the message is Gymnasium's.
    """
    try:
        env = gymnasium.make(id, **options)
    except (gymnasium.error.Error, ImportError) as error:
        raise MakeError(f"gym:{id} cannot be made: {' '.join(str(error).split())}") from error
    return adapt(env, f"gym:{id}")


def adapt(env: gymnasium.Env, name: str) -> gymnasium.Env:
    """As `make_gym`, for an environment that is made; `name` is for the message of the ValueError."""
    problem = _problem(env)
    if problem:
        env.close()
        raise ValueError(f"{name} {problem}")
    if isinstance(env.action_space, Box):
        env = RescaleAction(env, np.float32(-1), np.float32(1))
    space = env.observation_space
    assert isinstance(space, Box)
    if len(space.shape) > 1:
        return TransformObservation(env, to_image, Box(0, 255, IMAGE_SHAPE, np.uint8))
    return TransformObservation(env, _float32, _float32_space(space))


def _problem(env: gymnasium.Env) -> str | None:
    """Why the environment's spaces are not supported, as the rest of a sentence; None where they are."""
    action, observation = env.action_space, env.observation_space
    if isinstance(action, Box):
        if len(action.shape) != 1 or not action.is_bounded() or not np.issubdtype(action.dtype, np.floating):
            return f"has actions {action}: only vectors of bounded floats are supported"
    elif not isinstance(action, Discrete):
        return f"has actions {action}: only discrete actions and vectors (Box) are supported"
    elif action.start != 0:
        return f"has actions that start at {action.start}: only actions numbered from 0 are supported"
    if not isinstance(observation, Box):
        return f"has observations {observation}: only images and flat vectors (Box) are supported"
    shape = observation.shape
    is_image = observation.dtype == np.uint8 and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))
    if not is_image and len(shape) != 1:
        return (
            f"has observations of shape {shape} and type {observation.dtype}: "
            "only uint8 images (height, width, 1 or 3) and flat vectors are supported"
        )
    return None


def _float32(observation: np.ndarray) -> np.ndarray:
    return np.asarray(observation, dtype=np.float32)


def _float32_space(space: Box) -> Box:
    # Bounds beyond float32 become infinite.
    with np.errstate(over="ignore"):
        return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
