"""The one place where the memory-maze package is imported.

The package imports old `gym` in its `__init__`, to register itself, and fails without it. `gym` is unmaintained, and
the dm_env tasks used here (`memory_maze.tasks`) do not need it. An empty stand-in takes its place in `sys.modules`
during the import only; a real `gym` that is loaded is put back.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from envs.rendering import HELP, choose_gl

_NOISE = "Cannot set velocity on Entity with no free joint."


def import_tasks() -> ModuleType:
    """The module `memory_maze.tasks`, imported with a rendering backend chosen and without `gym`.

    Raises RuntimeError where no OpenGL backend works or the package is missing; the message gives the command to run.
    """
    if "memory_maze.tasks" in sys.modules:
        return sys.modules["memory_maze.tasks"]
    backend = choose_gl()
    try:
        with _gym_stand_in():
            tasks = importlib.import_module("memory_maze.tasks")
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"Memory Maze needs the package {error.name!r}: run "
            "`pip install dm-control labmaze && pip install --no-deps memory-maze`"
        ) from error
    except (ImportError, AttributeError) as error:
        # PyOpenGL raises either one where the library of the platform is absent.
        raise RuntimeError(f"MUJOCO_GL={backend} does not work here ({error}); {HELP}") from error
    # dm_control logs this line at every reset; the agent has no free joint by design.
    logging.getLogger("absl").addFilter(lambda record: _NOISE not in record.getMessage())
    return tasks


@contextmanager
def _gym_stand_in() -> Iterator[None]:
    """`gym`, `gym.envs.registration` and `gym.spaces` are empty stand-ins in the block."""
    gym, envs, registration, spaces = (
        ModuleType(name) for name in ("gym", "gym.envs", "gym.envs.registration", "gym.spaces")
    )
    vars(gym).update(Env=object, Space=object, envs=envs, spaces=spaces)
    vars(envs).update(registration=registration)
    vars(registration).update(register=lambda **_: None)

    stand_ins = {module.__name__: module for module in (gym, envs, registration, spaces)}
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
