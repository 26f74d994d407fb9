"""Names: what is made, what is refused and how, and what importing costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import envs


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MemoryMase", "MemoryMaze"),
        ("memorymaze-13x13", "MemoryMaze-13x13"),
        ("CartPole-v1", "gym:CartPole-v1"),
        ("gym:CartPol-v1", "gym:CartPole-v1"),
        ("gym:no_such_module:CartPole-v1", "gym:CartPole-v1"),
    ],
)
@pytest.mark.parametrize("make", [envs.make, lambda name: envs.make_vector(name, 2)])
def test_unknown_name_gives_the_nearest(make, name, nearest):
    with pytest.raises(envs.UnknownEnvironment) as raised:
        make(name)
    assert str(raised.value) == f"unknown environment {name!r}: did you mean {nearest!r}?"
    assert isinstance(raised.value, ValueError)


def test_names_are_known():
    for name in envs.names():
        envs.check_name(name)
    assert "MemoryMaze" in envs.names()


@pytest.mark.parametrize("module", ["envs", "envs.vector", "envs.worker"])
def test_import_is_light(module):
    heavy = ["torch", "mujoco", "dm_control", "memory_maze", "gym"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert ran.stdout.strip() == "[]"
