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


def sampler(replay: Replay, batch: int, seed: int, random_start_prob: float = 0.0) -> SequenceSampler:
    """One whose State is the number of windows that each sequence has gone through."""
    return SequenceSampler(replay, batch, seed, lambda n: [0] * n, random_start_prob)


def read(given: SequenceSampler, frames: int) -> dict[str, np.ndarray]:
    """The next rows, with the State carried."""
    rows, state = given.next(frames)
    given.carry([count + 1 for count in state])
    return rows


def walk(given: SequenceSampler, windows: Sequence[int]) -> dict[str, np.ndarray]:
    """All windows end to end: (B, sum of frames, ...)."""
    parts = [read(given, frames) for frames in windows]
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
    rows = walk(sampler(replay, batch=3, seed=seed), windows)
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
    rows = sampler(filled(tmp_path, [20, 9]), batch=4, seed=0).next(7)[0]
    assert {key: (array.shape, array.dtype.name) for key, array in rows.items()} == {
        "observation": ((4, 7, 2), "float32"),
        "action": ((4, 7, ACTIONS), "float32"),
        "reward": ((4, 7), "float32"),
        "is_first": ((4, 7), "bool"),
        "terminated": ((4, 7), "bool"),
    }


def test_window_sizes_do_not_change_a_sequences_rows(tmp_path: Path) -> None:
    replay = filled(tmp_path, [17, 5, 31, 8])
    whole, cut = ([60], [1, 16, 17, 3, 23])
    assert_equal(walk(sampler(replay, 1, seed=3), whole), walk(sampler(replay, 1, seed=3), cut))


def test_starts_are_spread(tmp_path: Path) -> None:
    rows = sampler(filled(tmp_path, [1000] * 4), batch=64, seed=0).next(1)[0]
    assert rows["is_first"].all()
    tags, times = rows["observation"][:, 0].T
    assert set(tags) == {0, 1, 2, 3}
    assert len(set(times)) > 50 and times.min() < 200 and times.max() > 800


def test_every_episode_is_drawn_evenly_and_new_ones_at_once(tmp_path: Path) -> None:
    replay = filled(tmp_path, [4] * 5)
    sequences = sampler(replay, batch=2, seed=0)
    tags = read(sequences, 2000)["observation"][:, :, 0].astype(int)
    assert np.bincount(tags.ravel()).min() > 600
    replay.add(vector_episode(4, tag=5))
    assert np.count_nonzero(read(sequences, 2000)["observation"][:, :, 0] == 5) > 450


def test_restart_leaves_episodes_at_window_boundaries(tmp_path: Path) -> None:
    replay = filled(tmp_path, [10_000])
    rows = walk(sampler(replay, batch=20, seed=0, random_start_prob=0.25), [4] * 40)
    first = rows["is_first"].reshape(20, 40, 4)
    assert first[:, 0, 0].all() and not first[:, :, 1:].any()
    assert 0.15 < first[:, 1:, 0].mean() < 0.35
    t = rows["observation"][:, :, 1]
    np.testing.assert_array_equal(np.diff(t) == 1, ~rows["is_first"][:, 1:])


@pytest.mark.parametrize("chance", [0.0, 0.3])
def test_resumed_sequences_give_the_same_bytes(tmp_path: Path, chance: float) -> None:
    lengths = [17, 5, 31, 8, 64]
    sequences = sampler(filled(tmp_path, lengths), batch=4, seed=1, random_start_prob=chance)
    walk(sequences, [16, 3, 16])
    state, sequences_state = json.loads(json.dumps(sequences.state_dict())), sequences.state
    assert sequences_state == [3] * 4
    expected = walk(sequences, [16, 7, 64, 1])
    resumed = sampler(Replay(tmp_path, 10**6, cache_bytes=0), batch=4, seed=99, random_start_prob=chance)
    resumed.load_state_dict(state, sequences_state)
    assert_equal(walk(resumed, [16, 7, 64, 1]), expected)
    with pytest.raises(ValueError, match="4 sequences for 5"):
        sampler(filled(tmp_path, lengths), batch=5, seed=1).load_state_dict(state, [])


def test_a_fresh_state_resumes_too(tmp_path: Path) -> None:
    replay = filled(tmp_path, [17, 5])
    resumed = sampler(replay, batch=2, seed=7)
    resumed.load_state_dict(json.loads(json.dumps(sampler(replay, batch=2, seed=1).state_dict())), [0, 0])
    assert_equal(read(resumed, 9), read(sampler(replay, batch=2, seed=1), 9))


def test_evicted_under_a_sequence(tmp_path: Path) -> None:
    replay = Replay(tmp_path, 100)
    replay.add(vector_episode(101, tag=0))
    sequences = sampler(replay, batch=3, seed=0)
    read(sequences, 5)
    state = sequences.state_dict()
    replay.add(vector_episode(101, tag=1))
    resumed = sampler(Replay(tmp_path, 100), batch=3, seed=0)
    resumed.load_state_dict(state, sequences.state)
    for rows in (read(sequences, 5), read(resumed, 5)):
        assert rows["is_first"][:, 0].all()
        assert (rows["observation"][..., 0] == 1).all()
        assert len(set(rows["observation"][:, 0, 1])) == 3, "random rows, not all the beginning"


def test_corrupt_under_a_sequence_is_not_fatal(tmp_path: Path) -> None:
    lengths = [50, 50, 50]
    sequences = sampler(filled(tmp_path, lengths, cache_bytes=0), batch=6, seed=0)
    read(sequences, 3)
    (tmp_path / "00000000-50.npz").write_bytes(b"broken")
    (tmp_path / "00000002-50.npz").write_bytes(b"")
    with pytest.warns(UserWarning) as caught:
        rows = walk(sequences, [30] * 10)
    assert (rows["observation"][..., 0] == 1).all()
    assert len(caught) == 2
    (tmp_path / "00000001-50.npz").write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(LookupError, match="no episodes"):
        walk(sequences, [30])


def test_episodes_of_another_environment_are_an_error(tmp_path: Path) -> None:
    replay = filled(tmp_path, [5, 5])
    good = vector_episode(5)
    replay.add(type(good)(good.observation[:, :1], good.action, good.reward, good.terminated))
    with pytest.raises(ValueError, match="one replay holds one environment"):
        sampler(replay, batch=4, seed=0).next(200)


def test_misuse_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no episodes"):
        sampler(Replay(tmp_path, 10), batch=1, seed=0).next(4)
    with pytest.raises(ValueError, match="at least one frame"):
        sampler(filled(tmp_path, [5]), batch=1, seed=0).next(0)


def test_without_carry_the_same_rows_come_again(tmp_path: Path) -> None:
    sequences = sampler(filled(tmp_path, [17, 5, 31]), batch=3, seed=2, random_start_prob=0.3)
    read(sequences, 8)
    before = sequences.state_dict()
    rows, state = sequences.next(8)
    again, same_state = sequences.next(8)
    assert_equal(rows, again)
    assert state is same_state and sequences.state_dict() == before
    sequences.carry([7, 7, 7])
    assert sequences.next(8)[1] == [7, 7, 7] and sequences.state_dict() != before


def test_a_batch_is_the_callers_to_change(tmp_path: Path) -> None:
    replay = filled(tmp_path, [20])
    rows = sampler(replay, batch=1, seed=0).next(40)[0]
    for array in rows.values():
        array[...] = 0
    np.testing.assert_array_equal(replay.get(replay.names()[0]).observation[:, 1], np.arange(20))
