"""Memory Maze: the Gymnasium contract, seeds, limits, options, and equality to the byte with the package's own."""

import sys

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import envs
from envs.memory_maze.env import BORDER, LABELS, SIZES
from envs.memory_maze.package import import_tasks
from envs.waypoints import Waypoints, cell_of

ACTIONS = np.random.default_rng(0).integers(6, size=20)


def stock(size, seed, **options):
    return getattr(import_tasks(), f"memory_maze_{size}")(seed=seed, global_observables=True, **options)


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
    maze, _ = ours.unwrapped._mazes["9x9"]
    stock_model, model = theirs.physics.model, maze.physics.model
    # The stock environment, though of the same process, has all that the package gives it.
    assert stock_model.ntex > 80 and stock_model.vis.quality.shadowsize > 0
    assert model.ntex < 20 and model.vis.quality.shadowsize == 0
    assert model.ptr.tex_data.nbytes < stock_model.ptr.tex_data.nbytes / 4
    # The next episode chooses among all of them.
    tree = maze.task.root_entity.mjcf_model
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


@pytest.mark.parametrize(("size", "repeat"), [("9x9", 1), ("5x5", 20)])
def test_truncates_at_the_mazes_limit(size, repeat):
    env = make(size, action_repeat=repeat)
    env.reset(seed=0)
    steps = SIZES[size].steps // repeat
    for step in range(1, steps + 1):
        _, _, terminated, truncated, _ = env.step(step % 6)
        assert not terminated and truncated == (step == steps)
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


@pytest.mark.parametrize(("size", "options", "targets"), [("5x5", {}, 3), ("5x5", {"targets": 6}, 6), ("7x7", {}, 3)])
def test_sizes_and_targets(size, options, targets):
    env = make(size, labels=True, **options)
    for seed in (0, None):
        _, info = env.reset(seed=seed)
        assert info["maze_layout"].shape == (SIZES[size].cells, SIZES[size].cells)
        cells = {cell_of(position) for position in info["targets_pos"]}
        assert len(cells) == targets and all(info["maze_layout"][y, x] for x, y in cells)
    env.close()


@pytest.mark.parametrize("pixels", [32, 96])
def test_pixels_and_border(pixels):
    theirs = stock("9x9", 3, camera_resolution=pixels, target_color_in_image=False)
    ours = make("9x9", pixels=pixels)
    image, _ = ours.reset(seed=3)
    expected = theirs.reset().observation
    for action in ACTIONS[:3]:
        inside = np.s_[BORDER:-BORDER, BORDER:-BORDER]
        assert image.shape == ours.observation_space.shape == (pixels, pixels, 3)
        np.testing.assert_array_equal(image[inside], expected["image"][inside])
        is_border = np.ones((pixels, pixels), bool)
        is_border[inside] = False
        assert (image[is_border] == (expected["target_color"] * 255 * 0.7).astype(np.uint8)).all()
        image, *_ = ours.step(action)
        expected = theirs.step(action).observation
    for env in (theirs, ours):
        env.close()


def test_action_repeat_sums_rewards_and_counts_steps():
    repeated = make("5x5", action_repeat=3, time_limit=40, labels=True)
    single = make("5x5", time_limit=120)
    driver, total = Waypoints(), 0.0
    (image, info), (expected, _) = repeated.reset(seed=1), single.reset(seed=1)
    for step in range(1, 41):
        np.testing.assert_array_equal(image, expected)
        action = driver.act(info)
        image, reward, _, truncated, info = repeated.step(action)
        rewards = 0.0
        for _ in range(3):
            expected, added, _, single_truncated, _ = single.step(action)
            rewards += added
        assert reward == rewards and truncated == single_truncated == (step == 40)
        total += reward
    assert total > 1
    for env in (repeated, single):
        env.close()


def test_each_reset_draws_a_size():
    mixed = envs.make("MemoryMaze:size=5x5|7x7,pixels=32")
    for seed, drawn in ((1, "5x5"), (0, "7x7")):
        single = make(drawn, pixels=32)
        np.testing.assert_array_equal(mixed.reset(seed=seed)[0], single.reset(seed=seed)[0])
        single.close()
    drawn = set()
    for _ in range(3):
        mixed.reset()
        drawn.add(mixed.unwrapped._size)
    assert drawn == {"5x5", "7x7"}
    mixed.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=6x6", "unknown Memory Maze size '6x6': one of 5x5, 7x7, 9x9, 11x11, 13x13, 15x15, or several: 5x5|7x7"),
        ("size=5x5|", "unknown Memory Maze size ''"),
        ("size=5x5|7x7,labels=true", "labels need one Memory Maze size, not 5x5|7x7"),
        ("targets=1", "targets must be 2 to 6, not 1"),
        ("targets=many", "targets must be 2 to 6, not 'many'"),
        ("pixels=48", "pixels must be one of 32, 64, 96, not 48"),
        ("action_repeat=0", "action_repeat must be 1 to 20, not 0"),
        ("time_limit=0", "time_limit must be at least 1 step, not 0"),
    ],
)
def test_wrong_values_are_one_line(options, message):
    with pytest.raises(ValueError) as raised:
        envs.make(f"MemoryMaze:{options}")
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


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
