"""Memory Maze as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from envs.memory_maze.package import import_tasks

# Labels of the package's ExtraObs variants: M targets on an S x S maze, positions in cells from bottom left.
LABELS = (
    "maze_layout",  # (S, S) uint8: 1 where the agent can go
    "agent_pos",  # (2,) x and y
    "agent_dir",  # (2,) unit vector
    "targets_pos",  # (M, 2)
    "targets_vec",  # (M, 2) relative to the agent, in its own frame
    "target_pos",  # (2,) of the current target
    "target_vec",  # (2,)
    "target_color",  # (3,) red, green and blue in 0..1
)
EPISODE_STEPS = {"9x9": 1000, "11x11": 2000, "13x13": 3000, "15x15": 4000}


class MemoryMaze(gymnasium.Env[np.ndarray, np.int64]):
    """Find the target whose colour the image's border shows; reward 1 for each one found.

    Observation: (64, 64, 3) uint8. Actions: stay, forward, left, right, forward + left, forward + right.
    An episode never terminates; it is truncated at `EPISODE_STEPS[size]` steps of 0.25 s.

    `reset(seed=s)` gives the episode, and the episodes after it, of the package's environment constructed with
    `seed=s`. A seeded reset builds that environment anew, which takes seconds; a reset without a seed does not.

    Args:
        size: a key of `EPISODE_STEPS`.
        labels: put `LABELS` in `info` of `reset` and `step`; otherwise `info` is empty.
        time_limit: truncate after this many steps, if sooner than the maze's own limit.

    Raises:
        ValueError: unknown size, or a time limit below 1.
        RuntimeError: no OpenGL backend works, or the package is missing.
    """

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 4}

    def __init__(self, size: str = "9x9", labels: bool = False, time_limit: int | None = None) -> None:
        if size not in EPISODE_STEPS:
            raise ValueError(f"unknown Memory Maze size {size!r}: one of {', '.join(EPISODE_STEPS)}")
        if time_limit is not None and time_limit < 1:
            raise ValueError(f"time_limit must be at least 1 step, not {time_limit}")
        self.observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(6)
        import_tasks()
        # Imported here because it imports dm_control, which must come after `import_tasks`.
        from envs.memory_maze.textures import small_tasks

        self._task = getattr(small_tasks(), f"memory_maze_{size}")
        self._labels = labels
        self._time_limit = EPISODE_STEPS[size] if time_limit is None else time_limit
        # Built at the first reset, when the seed is known.
        self._maze: Any = None
        self._steps: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if self._maze is None or seed is not None:
            self.close()
            self._maze = self._build(seed)
        self._steps = 0
        return self._split(self._maze.reset().observation)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._steps is None:
            raise ResetNeeded("call reset() before step(): no episode is running")
        if not self.action_space.contains(action):
            raise ValueError(f"Memory Maze has actions 0 to 5, not {action!r}")
        timestep = self._maze.step(action)
        self._steps += 1
        truncated = bool(timestep.last()) or self._steps >= self._time_limit
        if truncated:
            self._steps = None
        image, info = self._split(timestep.observation)
        return image, float(timestep.reward), False, truncated, info

    def close(self) -> None:
        if self._maze is not None:
            self._maze.close()
        self._maze = None
        self._steps = None

    def _build(self, seed: int | None) -> Any:
        # Imported here because it imports dm_control, which must come after `import_tasks`.
        from envs.memory_maze.speed import speed_up

        maze = self._task(seed=seed, global_observables=self._labels)
        speed_up(maze)
        return maze

    def _split(self, observation: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, Any]]:
        """The package's observation as (image, info)."""
        if not self._labels:
            return observation["image"], {}
        # Copies, since some labels are views on the package's own arrays.
        return observation["image"], {name: np.array(observation[name]) for name in LABELS}
