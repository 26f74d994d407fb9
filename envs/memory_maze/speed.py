"""Makes Memory Maze faster, byte for byte the same.

Most of a stock step is `TargetSphere._update_activation`, a Python loop over all contacts, run 50 times a step for each
target; a tenth is a render scene allocated for each frame; some is sensor readings that no observation uses. `speed_up`
changes these in one environment and leaves the classes of dm_control and memory-maze as they are. To be imported after
`envs.memory_maze.package.import_tasks`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from dm_control.composer.observation.observable import MJCFCamera
from dm_control.locomotion.props.target_sphere import TargetSphere
from dm_control.mujoco.engine import Camera

_CAMERA = "walker/egocentric_camera"
_USED = {_CAMERA, "target_color"}
_USED_BY_LABELS = {"maze_layout", "absolute_position", "absolute_orientation", "target_index"}
_USED_BY_LABELS_PREFIXES = ("walker/target_rel_", "walker/target_abs_")


def speed_up(maze: Any) -> OneSceneCamera:
    """Speeds up one environment of `memory_maze.tasks`; call it before the first reset. Returns its camera."""
    task = maze.task
    for target in task._targets:
        target.__class__ = _SphereTestedByHook
    touch = _TouchTest(task._targets)
    maze.add_extra_hook("initialize_episode", touch.initialize_episode)
    maze.add_extra_hook("after_substep", touch.after_substep)

    observables = task.observables
    camera = observables[_CAMERA]
    camera.__class__ = OneSceneCamera
    with_labels = "maze_layout" in maze.observation_spec()
    for name, observable in observables.items():
        used_by_labels = name in _USED_BY_LABELS or name.startswith(_USED_BY_LABELS_PREFIXES)
        if name not in _USED and not (with_labels and used_by_labels):
            observable.enabled = False
    return camera


class _SphereTestedByHook(TargetSphere):
    """A target whose test after each substep is `_TouchTest`'s."""

    def after_substep(self, physics: Any, unused_random_state: np.random.RandomState) -> None:
        """Empty: dm_control does not call an empty hook."""


class _TouchTest:
    """The spheres' own test, run for spheres in contact; it does not change others."""

    def __init__(self, targets: list[TargetSphere]) -> None:
        self._targets = targets
        self._geom_ids = np.empty((len(targets), 1), np.int32)

    def initialize_episode(self, physics: Any, unused_random_state: np.random.RandomState) -> None:
        """Looks up the geoms' ids, which change with every maze."""
        for row, target in zip(self._geom_ids, self._targets, strict=True):
            row[0] = physics.model.name2id(target.geom.full_identifier, "geom")

    def after_substep(self, physics: Any, unused_random_state: np.random.RandomState) -> None:
        """Runs the test of the spheres in contact."""
        in_contact = self._geom_ids == physics.data.ptr.contact.geom.ravel()  # (targets, 2 * contacts)
        if in_contact.any():
            for target, touched in zip(self._targets, in_contact.any(axis=1), strict=True):
                if touched:
                    target._update_activation(physics)


class OneSceneCamera(MJCFCamera):
    """A camera with one render scene for an episode, not one for each frame."""

    is_paused = False
    """Whether steps draw no frame; they return the one before."""

    def _callable(self, physics: Any) -> Callable[[], np.ndarray]:
        camera: Camera | None = None
        frame: np.ndarray

        def render() -> np.ndarray:
            nonlocal camera, frame
            if camera is None:
                camera = Camera(physics, self.height, self.width, self._mjcf_element.full_identifier)
            if not self.is_paused:
                frame = camera.render()
            return frame

        return render
