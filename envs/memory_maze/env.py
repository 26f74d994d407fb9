"""Memory Maze as a Gymnasium environment."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Size:
    """Args:
    cells: of a side, without the outer walls.
    targets: how many, each of a colour of its own.
    steps: of an episode, 0.25 s each.
    rooms: up to as many targets as this lie in rooms of their own; with more, rooms hold several.
    layout: further options of the package's generator.
    """

    cells: int
    targets: int
    steps: int
    rooms: int
    layout: dict[str, int] = field(default_factory=dict)


# The package's four, and two smaller ones of the same generator.
SIZES = {
    "5x5": Size(5, targets=3, steps=500, rooms=1),
    "7x7": Size(7, targets=3, steps=500, rooms=3),
    "9x9": Size(9, targets=3, steps=1000, rooms=3),
    "11x11": Size(11, targets=4, steps=2000, rooms=4),
    "13x13": Size(13, targets=5, steps=3000, rooms=5),
    "15x15": Size(15, targets=6, steps=4000, rooms=6, layout={"max_rooms": 9, "room_max_size": 3}),
}
STEPS_PER_SECOND = 4
PIXELS = (32, 64, 96)
# The package's border is as wide at 64 and 96 pixels; below 64 its border covers the image.
BORDER = 2
_EDGES = (np.s_[:BORDER], np.s_[-BORDER:], np.s_[:, :BORDER], np.s_[:, -BORDER:])


class MemoryMaze(gymnasium.Env[np.ndarray, np.int64]):
    """Find the target whose colour the image's border shows; reward 1 for each one found.

    Observation: (pixels, pixels, 3) uint8. Actions: stay, forward, left, right, forward + left, forward + right.
    An episode never terminates; it is truncated at the time limit.

    `reset(seed=s)` gives the episode, and the episodes after it, of the package's environment constructed with
    `seed=s`. A seeded reset builds that environment anew, which takes seconds; a reset without a seed does not.

    Args:
        size: a key of `SIZES`, or several with `|` between them: each reset draws one, all with the same chance. Of
            several, each size has an environment of the package's for itself, seeded alike.
        labels: put `LABELS` in `info` of `reset` and `step`; otherwise `info` is empty.
        time_limit: steps of an episode; by default as many as make the size's own `steps` of 0.25 s.
        targets: how many, 2 to 6; by default the size's.
        pixels: side of the image, one of `PIXELS`.
        action_repeat: how many times 0.25 s an action lasts, 1 to 20. The reward is the sum; only the last image is
            drawn.

    Raises:
        ValueError: an argument outside its range, or labels of several sizes, whose shapes differ.
        RuntimeError: no OpenGL backend works, or the package is missing.
    """

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": STEPS_PER_SECOND}

    def __init__(
        self,
        size: str = "9x9",
        labels: bool = False,
        time_limit: int | None = None,
        targets: int | None = None,
        pixels: int = 64,
        action_repeat: int = 1,
    ) -> None:
        self._sizes = str(size).split("|")
        for name in self._sizes:
            if name not in SIZES:
                raise ValueError(f"unknown Memory Maze size {name!r}: one of {', '.join(SIZES)}, or several: 5x5|7x7")
        if labels and len(set(self._sizes)) > 1:
            raise ValueError(f"labels need one Memory Maze size, not {size}: their shapes differ")
        if time_limit is not None and not _is_whole(time_limit, 1):
            raise ValueError(f"time_limit must be at least 1 step, not {time_limit!r}")
        if targets is not None and not _is_whole(targets, 2, 6):
            raise ValueError(f"targets must be 2 to 6, not {targets!r}")
        if pixels not in PIXELS:
            raise ValueError(f"pixels must be one of {', '.join(map(str, PIXELS))}, not {pixels!r}")
        if not _is_whole(action_repeat, 1, 20):
            raise ValueError(f"action_repeat must be 1 to 20, not {action_repeat!r}")
        self.metadata = self.metadata | {"render_fps": STEPS_PER_SECOND / action_repeat}
        self.observation_space = gymnasium.spaces.Box(0, 255, (pixels, pixels, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(6)
        import_tasks()
        self._labels, self._pixels, self._targets = labels, pixels, targets
        self._time_limit, self._action_repeat = time_limit, action_repeat
        # By size, each with its camera; built at the first reset that draws it, when the seed is known.
        self._mazes: dict[str, tuple[Any, Any]] = {}
        self._seed: int | None = None
        self._size: str | None = None  # of the episode that is running

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.close()
            self._seed = seed
        self._size = self._sizes[self.np_random.integers(len(self._sizes))]
        if self._size not in self._mazes:
            self._mazes[self._size] = self._build(SIZES[self._size])
        return self._split(self._mazes[self._size][0].reset().observation)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._size is None:
            raise ResetNeeded("call reset() before step(): no episode is running")
        if not self.action_space.contains(action):
            raise ValueError(f"Memory Maze has actions 0 to 5, not {action!r}")
        maze, camera = self._mazes[self._size]
        reward = 0.0
        camera.is_paused = True
        for _ in range(self._action_repeat - 1):
            reward += maze.step(action).reward
        camera.is_paused = False
        timestep = maze.step(action)
        if timestep.last():
            self._size = None
        image, info = self._split(timestep.observation)
        return image, reward + float(timestep.reward), False, timestep.last(), info

    def close(self) -> None:
        for maze, _ in self._mazes.values():
            maze.close()
        self._mazes = {}
        self._size = None

    def _build(self, size: Size) -> tuple[Any, Any]:
        # Imported here because they import dm_control, which must come after `import_tasks`.
        from envs.memory_maze.speed import speed_up
        from envs.memory_maze.textures import small_tasks

        targets = self._targets or size.targets
        # Whole steps, so that the package's own limit ends the last one.
        steps = self._time_limit or size.steps // self._action_repeat
        maze = small_tasks(targets_per_room=-(-targets // size.rooms))._memory_maze(
            size.cells,
            targets,
            steps * self._action_repeat / STEPS_PER_SECOND,
            camera_resolution=self._pixels,
            target_color_in_image=False,
            global_observables=self._labels,
            seed=self._seed,
            **size.layout,
        )
        return maze, speed_up(maze)

    def _split(self, observation: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, Any]]:
        """The package's observation as (image, info); paints the border."""
        image = observation["image"]
        for edge in _EDGES:
            image[edge] = observation["target_color"] * 255 * 0.7
        # Copies, since some labels are views on the package's own arrays.
        return image, {name: np.array(observation[name]) for name in LABELS} if self._labels else {}


def _is_whole(value: Any, least: int, most: float = np.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
