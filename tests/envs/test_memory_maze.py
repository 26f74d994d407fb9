"""Memory Maze: the Gymnasium contract, seeds, limits, and equality to the byte with the package's own."""

import sys

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import envs
from envs.memory_maze.env import EPISODE_STEPS, LABELS
from envs.memory_maze.package import import_tasks
from envs.waypoints import Waypoints

ACTIONS = np.random.default_rng(0).integers(6, size=20)


def stock(size, seed):
    return getattr(import_tasks(), f"memory_maze_{size}")(seed=seed, global_observables=True)


def make(size, **options):
    return envs.make("MemoryMaze" if size == "9x9" else f"MemoryMaze-{size}", **options)


def assert_same(info, image, expected):
    """Observation and labels equal the package's to the byte."""
    assert image.tobytes() == expected["image"].tobytes() and image.dtype == expected["image"].dtype
    assert set(info) == set(LABELS)
    for name in LABELS:
        assert info[name].dtype == expected[name].dtype, name
        assert info[name].tobytes() == np.ascontiguousarray(expected[name]).tobytes(), name


def count_touches(maze):
    """A list that grows with each touch of a target: the task resets a target only when it was touched."""
    touches = []
    for number, target in enumerate(maze.task._targets):

        def reset(physics, number=number, original=target.reset):
            touches.append(number)
            original(physics)

        target.reset = reset
    return touches


def compare(size, steps, seed):
    """Step the package's, ours with labels and ours without together, and assert that they are the same.

    Returns how often the current target was reached and how often another one was touched.
    """
    theirs, ours, plain = stock(size, seed), make(size, labels=True), make(size)
    touches = count_touches(theirs)
    driver = Waypoints(noise=0.1, seed=seed)
    rng = np.random.default_rng(seed)
    reached, goal = 0, None
    expected, truncated = theirs.reset(), False
    image, info = ours.reset(seed=seed)
    plain_image, plain_info = plain.reset(seed=seed)
    for _ in range(steps):
        assert_same(info, image, expected.observation)
        assert plain_image.tobytes() == image.tobytes() and plain_info == {}
        if truncated:
            expected, truncated, goal = theirs.reset(), False, None
            (image, info), (plain_image, plain_info) = ours.reset(), plain.reset()
            continue
        action = driver.act(info, goal)
        expected = theirs.step(action)
        image, reward, terminated, truncated, info = ours.step(action)
        plain_image, plain_reward, _, plain_truncated, plain_info = plain.step(action)
        assert (reward, terminated, truncated) == (expected.reward, False, expected.last())
        assert (plain_reward, plain_truncated) == (reward, truncated)
        rewarded = float(reward) > 0
        reached += rewarded
        # In turns to the current target and to any one, so that targets are touched without reward too.
        if goal is not None and np.linalg.norm(info["agent_pos"] - goal) < 0.3:
            goal = None
        elif goal is None and rewarded:
            goal = rng.choice(info["targets_pos"])
    assert_same(info, image, expected.observation)
    for env in (theirs, ours, plain):
        env.close()
    return reached, len(touches) - reached


def test_same_as_the_package():
    reached, others = compare("9x9", 250, seed=3)
    assert reached > 0 and others > 0


@pytest.mark.slow
@pytest.mark.parametrize(("size", "steps"), [("9x9", 1300), ("11x11", 1100), ("13x13", 1100), ("15x15", 1100)])
def test_same_as_the_package_for_long(size, steps):
    reached, others = compare(size, steps, seed=1)
    print(f"{size}: {steps} steps, current target reached {reached} times, others touched {others} times")
    assert reached > 0 and others > 0


def test_compiles_the_used_textures_only():
    theirs, ours = stock("9x9", 3), make("9x9")
    theirs.reset()
    ours.reset(seed=3)
    stock_model, model = theirs.physics.model, ours.unwrapped._maze.physics.model
    # The stock environment, though of the same process, has all that the package gives it.
    assert stock_model.ntex > 80 and stock_model.vis.quality.shadowsize > 0
    assert model.ntex < 20 and model.vis.quality.shadowsize == 0
    assert model.ptr.tex_data.nbytes < stock_model.ptr.tex_data.nbytes / 4
    # The next episode chooses among all of them.
    tree = ours.unwrapped._maze.task.root_entity.mjcf_model
    assert len(tree.find_all("texture")) == stock_model.ntex
    for env in (theirs, ours):
        env.close()


def test_passes_the_checker():
    env = make("9x9", labels=True)
    check_env(env, skip_render_check=True)
    env.close()


def test_seeds_give_the_packages_episodes():
    theirs, ours = stock("9x9", 11), make("9x9", labels=True)
    ours.reset(seed=2)
    ours.step(1)
    image, info = ours.reset(seed=11)
    assert_same(info, image, theirs.reset().observation)
    # The reset after a seeded one, in the middle of an episode, goes on as the package's does.
    for action in ACTIONS:
        theirs.step(action)
        ours.step(action)
    image, info = ours.reset()
    assert_same(info, image, theirs.reset().observation)
    for env in (theirs, ours):
        env.close()


def test_truncates_at_the_mazes_limit():
    env = make("9x9")
    env.reset(seed=0)
    for step in range(1, EPISODE_STEPS["9x9"] + 1):
        _, _, terminated, truncated, _ = env.step(step % 6)
        assert not terminated and truncated == (step == EPISODE_STEPS["9x9"])
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.close()


def test_time_limit_comes_sooner():
    env = make("9x9", time_limit=3)
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(3)] == [False, False, True]
    with pytest.raises(ValueError, match="actions 0 to 5"):
        env.reset()
        env.step(6)
    env.close()


def test_package_is_imported_without_gym():
    import_tasks()
    assert "gym" not in sys.modules


def test_in_worker_processes():
    vector = envs.make_vector("MemoryMaze", 2, labels=True, time_limit=4)
    ours = make("9x9", labels=True)
    observations, infos = vector.reset(seed=4)
    image, info = ours.reset(seed=5)
    np.testing.assert_array_equal(observations[1], image)
    np.testing.assert_array_equal(infos["agent_pos"][1], info["agent_pos"])
    truncated = np.zeros(2, bool)
    for _ in range(4):
        observations, _, _, truncated, infos = vector.step(np.array([1, 1]))
        image, *_, info = ours.step(1)
        np.testing.assert_array_equal(observations[1], image)
        np.testing.assert_array_equal(infos["targets_vec"][1], info["targets_vec"])
    assert truncated.all()
    vector.close()
    ours.close()
