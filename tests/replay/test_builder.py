import numpy as np
import pytest

from replay import EpisodeBuilder


def test_rows_are_an_action_and_what_came_of_it() -> None:
    builder = EpisodeBuilder(3)
    frame = np.zeros((2, 2, 1), np.uint8)  # one buffer, as some environments hand out
    builder.first(frame, {"pos": np.array([0.0, 0.0])})
    for t, action in enumerate([2, 0], start=1):
        frame[:] = t
        builder.add(action, frame, reward=10.0 * t, terminated=t == 2, labels={"pos": np.array([t, 0.0])})
    episode = builder.finish()
    np.testing.assert_array_equal(episode.observation[:, 0, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(episode.action, [[0, 0, 0], [0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(episode.reward, [0, 10, 20])
    np.testing.assert_array_equal(episode.terminated, [False, False, True])
    np.testing.assert_array_equal(episode.labels["pos"][:, 0], [0, 1, 2])
    assert (episode.steps, episode.ret) == (2, 30.0)
    with pytest.raises(ValueError, match="at least one step"):
        builder.finish()


def test_first_drops_the_episode_under_way() -> None:
    builder = EpisodeBuilder(2)
    builder.first(np.zeros(4))
    builder.add(1, np.ones(4), 1.0, False)
    builder.first(np.zeros(4))
    builder.add(0, np.ones(4), 5.0, True)
    episode = builder.finish()
    assert (episode.steps, episode.ret, episode.observation.dtype) == (1, 5.0, np.float32)


def test_misuse_is_an_error() -> None:
    builder = EpisodeBuilder(2)
    with pytest.raises(ValueError, match="before first"):
        builder.add(0, np.zeros(4), 0.0, False)
    builder.first(np.zeros(4))
    with pytest.raises(ValueError, match="at least one step"):
        builder.finish()
    with pytest.raises(ValueError, match="action 2 of 2"):
        builder.add(2, np.zeros(4), 0.0, False)
    with pytest.raises(ValueError, match="labels"):
        builder.add(0, np.zeros(4), 0.0, False, {"pos": np.zeros(2)})
