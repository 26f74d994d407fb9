"""MiniGrid: the agent's view against the package's own rendering, actions, and all names."""

import gymnasium
import numpy as np
import pytest
from minigrid.core.world_object import Ball, Key

import envs
from envs.grid import members


@pytest.mark.parametrize("name", ["MemoryS7", "MemoryS17Random", "DoorKey-5x5", "Dynamic-Obstacles-6x6", "Playground"])
def test_images_are_the_packages_own(name):
    env = envs.make(f"MiniGrid/{name}")
    image, _ = env.reset(seed=3)
    env.action_space.seed(3)
    carried = False
    for _ in range(300):
        wanted = env.unwrapped.get_pov_render(tile_size=9)
        assert wanted.shape == (63, 63, 3)
        np.testing.assert_array_equal(image[:63, :63], wanted)
        assert not image[63:].any() and not image[:, 63:].any()
        image, _, terminated, truncated, _ = env.step(env.action_space.sample())
        carried |= env.unwrapped.carrying is not None
        if terminated or truncated:
            image, _ = env.reset()
    assert carried == (name in ("DoorKey-5x5", "Playground"))


def test_the_cue_is_seen_at_the_start_and_not_at_the_fork():
    env = envs.make("MiniGrid/MemoryS13")
    env.reset(seed=0)
    world, left = env.unwrapped, 0
    middle = world.height // 2
    at_start, at_fork = set(), set()
    for cue in (Key, Ball):
        world.grid.set(1, middle - 1, cue("green"))
        for place, seen in (((2, middle), at_start), ((world.success_pos[0], middle), at_fork)):
            world.agent_pos, world.agent_dir = place, 3
            seen.add(env.step(left)[0].tobytes())
    assert len(at_start) == 2 and len(at_fork) == 1


def test_memory_has_moves_alone():
    env, package = envs.make("MiniGrid/MemoryS7"), gymnasium.make("MiniGrid-MemoryS7-v0")
    assert env.action_space.n == 3
    assert envs.make("MiniGrid/KeyCorridorS3R1").action_space.n == 7
    env.reset(seed=5)
    package.reset(seed=5)
    for action in (0, 1, 2, 2, 1, 2):
        ours, theirs = env.step(action), package.step(action)
        assert ours[1:4] == theirs[1:4]
        assert env.unwrapped.agent_dir == package.unwrapped.agent_dir
        np.testing.assert_array_equal(env.unwrapped.agent_pos, package.unwrapped.agent_pos)
    with pytest.raises(ValueError, match="not action 3"):
        env.step(3)


@pytest.mark.parametrize(("place", "rewarded"), [("success_pos", True), ("failure_pos", False)])
def test_the_matching_object_is_rewarded(place, rewarded):
    env = envs.make("MiniGrid/MemoryS7")
    env.reset(seed=0)
    world = env.unwrapped
    x, y = getattr(world, place)
    middle = world.height // 2
    world.agent_pos, world.agent_dir = (x, middle), 3 if y < middle else 1
    _, reward, terminated, truncated, _ = env.step(2)
    assert terminated and not truncated
    assert reward == (pytest.approx(1 - 0.9 / world.max_steps) if rewarded else 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_name_works():
    assert {"MemoryS7", "MemoryS9", "MemoryS11", "MemoryS13", "MemoryS13Random", "MemoryS17Random"} <= set(members())
    for name in members():
        env = envs.make(f"MiniGrid/{name}")
        assert env.reset(seed=0)[0] in env.observation_space
        assert env.step(env.action_space.n - 1)[0] in env.observation_space
