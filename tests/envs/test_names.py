"""Names: what is made, what is refused and how, and what importing costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import envs
from envs.errors import OptionError


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MemoryMase", "MemoryMaze"),
        ("memorymaze-13x13", "MemoryMaze-13x13"),
        ("ObjectRecal:delay=4..9", "ObjectRecall:delay=4..9"),
        ("scenecut", "SceneCut"),
        ("CartPole-v1", "gym:CartPole-v1"),
        ("cartpole", "gym:CartPole-v1"),
        ("Pendulum-v1", "gym:Pendulum-v1"),
        ("gym:CartPol-v1", "gym:CartPole-v1"),
        ("gym:no_such_module:CartPole-v1", "gym:CartPole-v1"),
        ("Pong:flicker=0.5", "Atari/Pong:flicker=0.5"),
        ("atari/pong", "Atari/Pong"),
        ("Atari/Pogn", "Atari/Pong"),
        ("MiniGrid/MemoryS17Randon:a=1", "MiniGrid/MemoryS17Random:a=1"),
        ("POPGym/RepeatPrevEasy", "POPGym/RepeatPreviousEasy"),
    ],
)
def test_unknown_name_gives_the_nearest(name, nearest):
    with pytest.raises(envs.UnknownEnvironment) as raised:
        envs.check_name(name)
    assert str(raised.value) == f"unknown environment {name!r}: did you mean {nearest!r}?"
    assert isinstance(raised.value, ValueError)


def test_names_are_known():
    for name in envs.names():
        envs.check_name(name)
    assert "MemoryMaze" in envs.names()


def test_name_carries_options():
    env = envs.make("ObjectRecall:delay=4..9,size=64,labels=true")
    image, info = env.reset(seed=0)
    assert image.shape == (64, 64, 3) and 4 <= info["delay"] <= 9
    assert envs.make("ObjectRecall:delay=4..9", delay=2, labels=True).reset()[1]["delay"] == 2
    assert envs.obs_type("ObjectRecall:delay=4..9,size=64") == envs.obs_type("MemoryMaze:time_limit=200") == "image"
    assert envs.obs_type("POPGym/RepeatFirstHard") == "vector"
    vector = envs.make_vector("ObjectRecall:delay=5,size=36", 2)
    assert vector.reset()[0].shape == (2, 36, 36, 3)
    vector.close()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("false", False),
        ("4..50", (4, 50)),
        ("4..", "4.."),
        ("4..x", "4..x"),
        ("11x11", "11x11"),
        ("a=b", "a=b"),
    ],
)
def test_values_of_options(monkeypatch, text, value):
    monkeypatch.setitem(envs.REGISTRY, "Pair", ("", {"fixed": 1}))
    given = []
    monkeypatch.setattr(envs, "_constructor", lambda base: lambda option, fixed: given.append((option, fixed)))
    envs.make(f"Pair:option={text}")
    assert given == [(value, 1)] and type(given[0][0]) is type(value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ObjectRecall:dely=5", "ObjectRecall has no option 'dely': did you mean 'delay'?"),
        ("ObjectRecall:delay=5,choices=3", "ObjectRecall has no option 'choices': did you mean 'colours'?"),
        ("ObjectRecall:delay=5,delay=6", "ObjectRecall has the option 'delay' twice in its name"),
        ("MemoryMaze:timelimit=5", "MemoryMaze has no option 'timelimit': did you mean 'time_limit'?"),
        ("MemoryMaze-11x11:size=9x9", "MemoryMaze-11x11 has no option 'size': did you mean 'pixels'?"),
        ("MiniGrid/MemoryS7:size=9", "MiniGrid/MemoryS7 has no option 'size': it has none at all"),
        *[
            (f"SceneCut:{text}", f"SceneCut has an option {part!r} in its name: options are written {form}")
            for form in ["SceneCut:name=value,..."]
            for text, part in [("", ""), ("delay", "delay"), ("delay=", "delay="), ("=5", "=5"), ("delay=5,", "")]
        ],
    ],
)
def test_wrong_options_are_refused(name, message):
    with pytest.raises(OptionError) as raised:
        envs.check_name(name)
    assert str(raised.value) == message and raised.value.args == (message,)


@pytest.mark.parametrize("name", ["MemoryMase", "gym:CartPol-v1", "ObjectRecall:dely=5"])
@pytest.mark.parametrize("use", [envs.obs_type, envs.make, lambda name: envs.make_vector(name, 2)])
def test_all_uses_check_the_name(use, name):
    with pytest.raises(envs.UnknownEnvironment):
        use(name)


@pytest.mark.parametrize("name", ["ObjectRecall:size=33", "ObjectRecall:delay=long", "MemoryMaze:time_limit=long"])
@pytest.mark.parametrize("make", [envs.make, lambda name: envs.make_vector(name, 2)])
def test_wrong_values_are_refused_when_made(make, name):
    envs.check_name(name)
    with pytest.raises(ValueError) as raised:
        make(name)
    assert "\n" not in str(raised.value)


def test_import_is_light():
    heavy = ["torch", "mujoco", "dm_control", "memory_maze", "gym"]
    code = f"""
import sys, envs, envs.vector, envs.worker
envs.check_name("MemoryMaze:time_limit=5")
print([name for name in {heavy} if name in sys.modules])
"""
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert ran.stdout.strip() == "[]"
