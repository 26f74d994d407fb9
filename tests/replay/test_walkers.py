import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay import Replay, SequenceSampler
from tests.replay.samples import ACTIONS, vector_episode


def filled(folder: Path, lengths: Sequence[int], **options: Any) -> Replay:
    """A replay of episodes of `lengths` rows, tagged by their order."""
    replay = Replay(folder, 10**6, **options)
    for tag in range(replay.episodes, len(lengths)):
        replay.add(vector_episode(lengths[tag], tag))
    return replay


def walk(walkers: SequenceSampler, windows: Sequence[int]) -> dict[str, np.ndarray]:
    """All windows end to end: (B, sum of frames, ...)."""
    parts = [walkers.next(frames) for frames in windows]
    return {key: np.concatenate([part[key] for part in parts], axis=1) for key in parts[0]}


def assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].tobytes() == other[key].tobytes(), key


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    windows=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_windows_end_to_end_are_episodes_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], windows: list[int], seed: int
) -> None:
    replay = filled(tmp_path_factory.mktemp("replay"), lengths)
    rows = walk(SequenceSampler(replay, batch=3, seed=seed), windows)
    for b in range(3):
        tags, times = rows["observation"][b].astype(int).T
        expect_first = None  # a window's very first row begins somewhere; after that, all is determined
        for i, (tag, t) in enumerate(zip(tags, times, strict=True)):
            if i == 0 or expect_first:
                assert rows["is_first"][b, i]
                assert i == 0 or t == 0
            else:
                assert not rows["is_first"][b, i]
                assert (tag, t) == (tags[i - 1], times[i - 1] + 1)
            action = np.zeros(ACTIONS) if rows["is_first"][b, i] else np.eye(ACTIONS)[t % ACTIONS]
            np.testing.assert_array_equal(rows["action"][b, i], action)
            assert rows["reward"][b, i] == t, "also at a random start: the reward is the recorded one"
            expect_first = t == lengths[tag] - 1
            assert rows["terminated"][b, i] == expect_first


def test_shapes_and_types(tmp_path: Path) -> None:
    rows = SequenceSampler(filled(tmp_path, [20, 9]), batch=4, seed=0).next(7)
    assert {key: (array.shape, array.dtype.name) for key, array in rows.items()} == {
        "observation": ((4, 7, 2), "float32"),
        "action": ((4, 7, ACTIONS), "float32"),
        "reward": ((4, 7), "float32"),
        "is_first": ((4, 7), "bool"),
        "terminated": ((4, 7), "bool"),
    }


def test_window_sizes_do_not_change_a_walkers_rows(tmp_path: Path) -> None:
    replay = filled(tmp_path, [17, 5, 31, 8])
    whole, cut = ([60], [1, 16, 17, 3, 23])
    assert_equal(walk(SequenceSampler(replay, 1, seed=3), whole), walk(SequenceSampler(replay, 1, seed=3), cut))


def test_starts_are_spread(tmp_path: Path) -> None:
    rows = SequenceSampler(filled(tmp_path, [1000] * 4), batch=64, seed=0).next(1)
    assert rows["is_first"].all()
    tags, times = rows["observation"][:, 0].T
    assert set(tags) == {0, 1, 2, 3}
    assert len(set(times)) > 50 and times.min() < 200 and times.max() > 800


def test_every_episode_is_drawn_evenly_and_new_ones_at_once(tmp_path: Path) -> None:
    replay = filled(tmp_path, [4] * 5)
    walkers = SequenceSampler(replay, batch=2, seed=0)
    tags = walkers.next(2000)["observation"][:, :, 0].astype(int)
    assert np.bincount(tags.ravel()).min() > 600
    replay.add(vector_episode(4, tag=5))
    assert np.count_nonzero(walkers.next(2000)["observation"][:, :, 0] == 5) > 450


def test_restart_leaves_episodes_at_window_boundaries(tmp_path: Path) -> None:
    replay = filled(tmp_path, [10_000])
    rows = walk(SequenceSampler(replay, batch=20, seed=0, restart=0.25), [4] * 40)
    first = rows["is_first"].reshape(20, 40, 4)
    assert first[:, 0, 0].all() and not first[:, :, 1:].any()
    assert 0.15 < first[:, 1:, 0].mean() < 0.35
    t = rows["observation"][:, :, 1]
    np.testing.assert_array_equal(np.diff(t) == 1, ~rows["is_first"][:, 1:])


@pytest.mark.parametrize("restart", [0.0, 0.3])
def test_resumed_walkers_give_the_same_bytes(tmp_path: Path, restart: float) -> None:
    lengths = [17, 5, 31, 8, 64]
    walkers = SequenceSampler(filled(tmp_path, lengths), batch=4, seed=1, restart=restart)
    walk(walkers, [16, 3, 16])
    state = json.loads(json.dumps(walkers.state_dict()))
    expected = walk(walkers, [16, 7, 64, 1])
    resumed = SequenceSampler(Replay(tmp_path, 10**6, cache_bytes=0), batch=4, seed=99, restart=restart)
    resumed.load_state_dict(state)
    assert_equal(walk(resumed, [16, 7, 64, 1]), expected)
    with pytest.raises(ValueError, match="4 walkers for 5"):
        SequenceSampler(filled(tmp_path, lengths), batch=5, seed=1).load_state_dict(state)


def test_a_fresh_state_resumes_too(tmp_path: Path) -> None:
    replay = filled(tmp_path, [17, 5])
    resumed = SequenceSampler(replay, batch=2, seed=7)
    resumed.load_state_dict(json.loads(json.dumps(SequenceSampler(replay, batch=2, seed=1).state_dict())))
    assert_equal(resumed.next(9), SequenceSampler(replay, batch=2, seed=1).next(9))


def test_evicted_under_a_walker(tmp_path: Path) -> None:
    replay = Replay(tmp_path, 100)
    replay.add(vector_episode(101, tag=0))
    walkers = SequenceSampler(replay, batch=3, seed=0)
    walkers.next(5)
    state = walkers.state_dict()
    replay.add(vector_episode(101, tag=1))
    resumed = SequenceSampler(Replay(tmp_path, 100), batch=3, seed=0)
    resumed.load_state_dict(state)
    for rows in (walkers.next(5), resumed.next(5)):
        assert rows["is_first"][:, 0].all()
        assert (rows["observation"][..., 0] == 1).all()
        assert len(set(rows["observation"][:, 0, 1])) == 3, "random rows, not all the beginning"


def test_corrupt_under_a_walker_is_not_fatal(tmp_path: Path) -> None:
    lengths = [50, 50, 50]
    walkers = SequenceSampler(filled(tmp_path, lengths, cache_bytes=0), batch=6, seed=0)
    walkers.next(3)
    (tmp_path / "00000000-50.npz").write_bytes(b"broken")
    (tmp_path / "00000002-50.npz").write_bytes(b"")
    with pytest.warns(UserWarning) as caught:
        rows = walk(walkers, [30] * 10)
    assert (rows["observation"][..., 0] == 1).all()
    assert len(caught) == 2
    (tmp_path / "00000001-50.npz").write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(LookupError, match="no episodes"):
        walk(walkers, [30])


def test_episodes_of_another_environment_are_an_error(tmp_path: Path) -> None:
    replay = filled(tmp_path, [5, 5])
    good = vector_episode(5)
    replay.add(type(good)(good.observation[:, :1], good.action, good.reward, good.terminated))
    with pytest.raises(ValueError, match="one replay holds one environment"):
        SequenceSampler(replay, batch=4, seed=0).next(200)


def test_misuse_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no episodes"):
        SequenceSampler(Replay(tmp_path, 10), batch=1, seed=0).next(4)
    with pytest.raises(ValueError, match="at least one frame"):
        SequenceSampler(filled(tmp_path, [5]), batch=1, seed=0).next(0)


def test_a_batch_is_the_callers_to_change(tmp_path: Path) -> None:
    replay = filled(tmp_path, [20])
    rows = SequenceSampler(replay, batch=1, seed=0).next(40)
    for array in rows.values():
        array[...] = 0
    np.testing.assert_array_equal(replay.get(replay.names()[0]).observation[:, 1], np.arange(20))
