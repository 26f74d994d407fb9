import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay import CorruptEpisode, Episode, load_episode, save_episode
from replay.episode import row_count
from tests.replay.samples import assert_same, public_file, vector_episode

once_per_example = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@once_per_example
@given(rows=st.integers(2, 30), image=st.booleans(), terminated=st.booleans(), seed=st.integers(0, 99))
def test_round_trip(tmp_path: Path, rows: int, image: bool, terminated: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    base = vector_episode(rows, terminated=terminated)
    observation = random.integers(0, 256, (rows, 4, 5, 3), dtype=np.uint8) if image else base.observation
    labels = {"agent_pos": random.random((rows, 2)), "maze": random.integers(0, 2, (rows, 3, 3)) > 0}
    episode = Episode(observation, base.action, base.reward, base.terminated, labels)
    path = save_episode(tmp_path, episode, f"00000007-{rows}.npz")
    assert_same(load_episode(path), episode)
    assert row_count(path) == rows
    assert not list(tmp_path.glob(".*"))


def test_rows_are_taken_in_any_order() -> None:
    episode = replace(vector_episode(5), labels={"place": np.arange(5)})
    there_and_back = episode.take(np.array([1, 2, 3, 3, 2]))
    assert there_and_back.observation[:, 1].tolist() == there_and_back.labels["place"].tolist() == [1, 2, 3, 3, 2]
    assert there_and_back.reward.tolist() == [0, 2, 3, 3, 2] and not there_and_back.action[0].any()
    assert_same(episode.take(np.arange(5)), episode)
    assert episode.reward[1] == 1 and episode.action[1].any()  # as it was


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8, np.bool_, ">f8"])
def test_public_layout_loads(tmp_path: Path, dtype: Any) -> None:
    arrays = public_file()
    arrays["action"] = np.asfortranarray(arrays["action"].astype(dtype))
    np.savez_compressed(tmp_path / "public.npz", allow_pickle=False, **arrays)
    episode = load_episode(tmp_path / "public.npz")
    assert (len(episode), episode.steps, episode.ret) == (11, 10, 1.0)
    assert episode.action.dtype == np.float32 and episode.action.flags.c_contiguous
    np.testing.assert_array_equal(episode.observation, arrays["image"])
    np.testing.assert_array_equal(episode.action, arrays["action"])
    assert not episode.terminated.any()
    assert episode.labels.keys() == {"maze_layout", "agent_pos", "targets_vec"}
    np.testing.assert_array_equal(episode.labels["agent_pos"], arrays["agent_pos"])


def test_arrays_of_other_lengths_are_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", allow_pickle=False, **public_file(), seed=np.array(3), palette=np.zeros((4, 3)))
    assert load_episode(tmp_path / "e.npz").labels.keys() == {"maze_layout", "agent_pos", "targets_vec"}


def test_return_is_summed_in_float64() -> None:
    episode = vector_episode(3)
    reward = np.array([0, 2**24, 1], np.float32)
    assert Episode(episode.observation, episode.action, reward, episode.terminated).ret == 2**24 + 1


@once_per_example
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_is_corrupt(tmp_path: Path, share: float) -> None:
    path = save_episode(tmp_path, vector_episode(20), "00000000-20.npz")
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(CorruptEpisode) as caught:
        load_episode(path)
    assert "\n" not in str(caught.value)


@once_per_example
@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_flipped_bits_are_corrupt_or_harmless(tmp_path: Path, place: float, mask: int) -> None:
    episode = vector_episode(20)
    path = save_episode(tmp_path, episode, "00000000-20.npz")
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= mask
    path.write_bytes(content)
    try:
        loaded = load_episode(path)
    except CorruptEpisode:
        return
    for key in ("observation", "action", "reward"):  # checksums guard the content; a name may have changed
        np.testing.assert_array_equal(getattr(loaded, key), getattr(episode, key))


def test_checksum_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "stored.npz"
    np.savez(path, allow_pickle=False, **public_file())
    content = bytearray(path.read_bytes())
    content[20_000] ^= 1  # a pixel, stored uncompressed
    path.write_bytes(content)
    with pytest.raises(CorruptEpisode, match="CRC"):
        load_episode(path)


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("key", ["reward", "label"])
def test_pickles_are_refused_and_never_run(tmp_path: Path, key: str) -> None:
    arrays = public_file() | {key: np.array([Payload(tmp_path / "ran")] * 11, dtype=object)}
    np.savez(tmp_path / "bad.npz", allow_pickle=True, **arrays)
    with pytest.raises(CorruptEpisode):
        load_episode(tmp_path / "bad.npz")
    assert not (tmp_path / "ran").exists()


def test_not_an_episode(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    npy = io.BytesIO()
    np.save(npy, np.zeros(3))
    for content in (b"", b"\x00" * 100, b"PK\x05\x06" + b"\x00" * 18, npy.getvalue()):
        path.write_bytes(content)
        with pytest.raises(CorruptEpisode):
            load_episode(path)
        with pytest.raises(CorruptEpisode):
            row_count(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CorruptEpisode, match="no action and no reward"):
        load_episode(path)


def test_header_that_claims_too_much_asks_for_no_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 50,)})
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("reward.npy", header.getvalue())
    with pytest.raises(CorruptEpisode, match="claims"):
        load_episode(tmp_path / "bad.npz")


def nan(array: np.ndarray) -> np.ndarray:
    array = array.astype(np.float64)
    array[3] = np.nan
    return array


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("image", lambda image: image.astype(np.float32)),
        ("image", lambda image: image[:, 0]),
        ("action", lambda action: action[:-1]),
        ("action", lambda action: action.astype("U1")),
        ("action", lambda action: 1 - action),  # row 0 is not zero
        ("action", lambda action: action.argmax(1)),
        ("reward", lambda reward: reward.astype(complex)),
        ("reward", lambda reward: reward[:, None]),
        ("reward", lambda reward: reward + 1e300),  # does not fit into float32
        ("reward", nan),
        ("terminated", lambda _: np.ones(11, np.bool_)),
        ("terminated", lambda _: np.zeros(11)),
        ("image", None),
        ("action", None),
        ("reward", None),
    ],
)
def test_wrong_content_is_corrupt(tmp_path: Path, key: str, change: Any) -> None:
    arrays = public_file()
    value = arrays.pop(key, None)
    if change is not None:
        arrays[key] = change(value)
    np.savez(tmp_path / "bad.npz", allow_pickle=False, **arrays)
    with pytest.raises(CorruptEpisode):
        load_episode(tmp_path / "bad.npz")


def test_missing_file_is_no_corrupt_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_episode(tmp_path / "none.npz")


def test_labels_must_fit() -> None:
    good = vector_episode(4)
    for labels in ({"reward": np.zeros(4)}, {"x": np.zeros(3)}, {"x": np.array([None] * 4, dtype=object)}):
        with pytest.raises(ValueError, match="label|leading"):
            Episode(good.observation, good.action, good.reward, good.terminated, labels)
