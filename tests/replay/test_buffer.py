import warnings
from pathlib import Path

import numpy as np
import pytest

from replay import Replay, save_episode
from replay.estimate import estimate
from tests.replay.samples import assert_same, public_file, vector_episode


def test_add_get_and_scan_again(tmp_path: Path) -> None:
    replay = Replay(tmp_path / "new" / "episodes", 1000)
    episodes = [vector_episode(rows, tag) for tag, rows in enumerate([12, 3, 30])]
    names = tuple(replay.add(episode).name for episode in episodes)
    assert names == ("00000000-12.npz", "00000001-3.npz", "00000002-30.npz")
    for again in (replay, Replay(replay.folder, 1000)):
        assert again.names() == names
        assert (len(again), again.steps, again.episodes) == (3, 11 + 2 + 29, 3)
        for name, episode in zip(names, episodes, strict=True):
            assert_same(again.get(name), episode)
    with pytest.raises(KeyError):
        replay.get("00000003-5.npz")


def test_oldest_are_evicted(tmp_path: Path) -> None:
    replay = Replay(tmp_path, 25)
    for tag in range(6):
        replay.add(vector_episode(11, tag))
    assert replay.names() == ("00000004-11.npz", "00000005-11.npz")
    assert sorted(file.name for file in tmp_path.iterdir()) == list(replay.names())
    assert (replay.steps, replay.episodes) == (20, 6)
    assert Replay(tmp_path, 25).episodes == 6
    replay.add(vector_episode(100))
    assert replay.names() == ("00000006-100.npz",), "the one just added stays, however long"


def test_order_and_count_survive_nine_digits(tmp_path: Path) -> None:
    for name in ("100000000-3.npz", "99999999-3.npz"):
        save_episode(tmp_path, vector_episode(3), name)
    replay = Replay(tmp_path, 1000)
    assert replay.names() == ("99999999-3.npz", "100000000-3.npz")
    assert replay.add(vector_episode(3)).name == "100000001-3.npz"


def test_corrupt_is_set_aside_with_one_line(tmp_path: Path) -> None:
    for tag in range(3):
        Replay(tmp_path, 1000).add(vector_episode(10, tag))
    (tmp_path / "00000002-10.npz").write_bytes(b"broken")
    replay = Replay(tmp_path, 1000)
    with pytest.warns(UserWarning, match="00000002-10.npz") as caught, pytest.raises(KeyError):
        replay.get("00000002-10.npz")
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert (tmp_path / "00000002-10.npz.corrupt").exists()
    assert (len(replay), replay.steps) == (2, 18)
    assert Replay(tmp_path, 1000).add(vector_episode(4)).name == "00000003-4.npz", "no name is used twice"


def test_length_that_the_name_does_not_tell_is_corrupt(tmp_path: Path) -> None:
    save_episode(tmp_path, vector_episode(10), "00000000-12.npz")
    replay = Replay(tmp_path, 1000)
    with pytest.warns(UserWarning, match="10 rows, expected 12"), pytest.raises(KeyError):
        replay.get("00000000-12.npz")


def test_vanished_file_is_forgotten(tmp_path: Path) -> None:
    Replay(tmp_path, 1000).add(vector_episode(10))
    replay = Replay(tmp_path, 1000)
    (tmp_path / "00000000-10.npz").unlink()
    with pytest.warns(UserWarning, match="left out"), pytest.raises(KeyError):
        replay.get("00000000-10.npz")
    assert len(replay) == 0


def test_public_files_come_first_and_are_never_deleted(tmp_path: Path) -> None:
    for name in ("20220920T0234-r1-11.npz", "a.npz"):
        np.savez(tmp_path / name, allow_pickle=False, **public_file())
    (tmp_path / "b.npz").write_bytes(b"broken")
    (tmp_path / "notes.txt").touch()
    with pytest.warns(UserWarning, match="b.npz"):
        replay = Replay(tmp_path, 20)
    assert replay.names() == ("20220920T0234-r1-11.npz", "a.npz")
    assert (replay.steps, replay.episodes) == (20, 0)
    assert replay.get("a.npz").steps == 10
    replay.add(vector_episode(16))
    assert replay.names() == ("00000000-16.npz",)
    assert (tmp_path / "a.npz").exists()


def test_cache_is_bounded_and_least_recently_used(tmp_path: Path) -> None:
    size = vector_episode(10).nbytes
    replay = Replay(tmp_path, 1000, cache_bytes=3 * size)
    names = [replay.add(vector_episode(10, tag)).name for tag in range(5)]
    for name in names + names[::-1]:
        replay.get(name)
        assert replay.cache.nbytes <= 3 * size
    kept = replay.get(names[0])
    for name in (names[3], names[4]):
        replay.get(name)
    assert replay.get(names[0]) is kept
    replay.get(names[1])
    replay.get(names[2])
    replay.get(names[3])
    assert replay.get(names[0]) is not kept
    replay.add(vector_episode(100))
    assert replay.cache.nbytes <= 3 * size, "what is larger than the bound is not kept"


@pytest.mark.parametrize(("rows", "capacity"), [(101, 1000), (401, 4000)])
def test_estimate_bounds_what_noise_takes(tmp_path: Path, rows: int, capacity: int) -> None:
    random = np.random.default_rng(0)
    base = vector_episode(rows)
    replay = Replay(tmp_path, capacity)
    largest = 0
    for _ in range(12):
        noise = random.random((rows, 50), dtype=np.float32)
        reward = random.random(rows, dtype=np.float32)
        reward[0] = 0
        replay.add(type(base)(noise, base.action, reward, base.terminated))
        largest = max(largest, sum(file.stat().st_size for file in tmp_path.iterdir()))
    bound = estimate((50,), np.float32, capacity, actions=3)
    assert largest <= bound
    assert bound < 1.6 * largest


def test_describe(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        line = Replay(tmp_path, 10_000).describe((4,), np.float32, actions=2)
    assert line.startswith("replay: up to 10,000 steps, at most 916 kB on disk (free: ")
    with pytest.warns(UserWarning, match="free"):
        line = Replay(tmp_path, 10**12).describe((64, 64, 3), np.uint8)
    assert "1,000,000,000,000 steps, at most 12," in line and "TB" in line
