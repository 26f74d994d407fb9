"""The real environment beside the imagined one: reset to a seed, some random actions, then the person's actions."""

import threading

import gymnasium
import numpy as np

import envs
from agent.runs.fields import refusals
from envs.policies import RandomPolicy
from eval.play.actions import Actions, describe
from eval.play.past import Past

BUILDING = threading.Lock()
"""Making an environment and resetting it to a seed imports and patches packages: one at a time."""


class RealEnvironment:
    """One environment, for one thread: OpenGL's contexts belong to the thread that made them.

    Raises ConfigError where it cannot be made.
    """

    def __init__(self, name: str):
        with BUILDING, refusals():
            self.environment: gymnasium.Env = envs.make(name)
        self.actions: Actions = describe(name, self.environment)
        self.width = self.actions.continuous or len(self.actions.names)
        self.observation = np.zeros(0)
        self.reward = 0.0
        self.ended = ""
        """How the episode ended; empty while it goes on."""

    def begin(self, seed: int, frames: int) -> Past:
        """Resets, then takes random actions until there are so many frames, or the episode ends."""
        with BUILDING:
            self.observation, _ = self.environment.reset(seed=seed)
        self.reward, self.ended = 0.0, ""
        rows = [(self.observation, np.zeros(self.width, np.float32), 0.0, False)]
        policy = RandomPolicy(self.width, seed, continuous=bool(self.actions.continuous))
        while len(rows) < frames and not self.ended:
            chosen = policy(self.observation[None], np.array([len(rows) == 1]), {})[0]
            action = chosen if self.actions.continuous else np.eye(self.width, dtype=np.float32)[chosen]
            self.step(action)
            rows.append((self.observation, action, self.reward, self.ended == "terminated"))
        observation, actions, reward, terminated = (np.stack(column) for column in zip(*rows, strict=True))
        after = f", then {len(rows) - 1} random actions" if len(rows) > 1 else ""
        words = f"a real environment reset to seed {seed}{after}"
        return Past(observation, actions, reward.astype(np.float32), terminated, words, seed)

    def step(self, action: np.ndarray) -> None:
        """`action` (A,) as world models take it; nothing happens once the episode has ended."""
        if self.ended:
            return
        given = action if self.actions.continuous else int(action.argmax())
        self.observation, reward, terminated, truncated, _ = self.environment.step(given)
        self.reward = float(reward)
        self.ended = "terminated" if terminated else "time limit" if truncated else ""

    def close(self) -> None:
        """In the thread that made it."""
        self.environment.close()
