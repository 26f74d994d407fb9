"""Runs with fresh weights, made in a moment, for the tests of the page."""

from pathlib import Path

import numpy as np
import torch

import envs
import worldmodel
from agent.runs import checkpoint, presets
from agent.runs.config import Config
from agent.runs.folder import open_run
from agent.training.learner import Learner, spaces
from replay import EpisodeBuilder, save_episode

ENV = "ObjectRecall:size=32,delay=30"


def made(folder: Path, env: str = ENV, seed: int = 0, rows: int = 40, model: str = "lssvwm") -> Path:
    """A run at step 7 with a checkpoint and one episode of random actions, of so many rows at most."""
    environment = envs.make(env)
    shape, actions, continuous = spaces(environment.observation_space, environment.action_space)
    config = Config(env=env, run_dir=str(folder), worldmodel=worldmodel.find(model)[1](name=model))
    config = presets.apply("debug", "image" if len(shape) == 3 else "vector", config)
    config.train.device, config.train.precision = "cpu", "float32"
    open_run(config)
    torch.manual_seed(seed)
    learner = Learner(config, shape, actions, continuous)
    with torch.no_grad():  # some layers start at zero, and every image would be the same
        for parameter in learner.model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    tensors, meta = learner.snapshot()
    checkpoint.save(folder / "checkpoints", 7, tensors, meta, keep=2)
    environment.action_space.seed(seed)
    builder = EpisodeBuilder(actions)
    frame, _ = environment.reset(seed=seed)
    builder.first(frame)
    over, length = False, 1
    while not over and length < rows:
        action = environment.action_space.sample()
        frame, reward, over, cut, _ = environment.step(action)
        builder.add(action if continuous else int(action), frame, float(reward), over)
        over, length = over or cut, length + 1
    environment.close()
    save_episode(folder / "episodes", builder.finish(), f"00000000-{length}.npz")
    return folder


def one_hot(action: int, actions: int) -> np.ndarray:
    """(A,) float32"""
    return np.eye(actions, dtype=np.float32)[action]
