"""One episode and its file: `.npz` in the Memory Maze dataset's layout, whose public files load as they are.

The layout: https://github.com/jurgisp/memory-maze#offline-dataset. A file holds `image` (or `observation`,
for vectors), `action`, `reward`, here also `terminated`, and any labels; all have the leading dimension
L = steps + 1 rows. Row t is action_t and what followed it: observation_t, reward_t, terminated_t. Row 0 is the
reset: a zero action and zero reward.
"""

import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from replay.atomic import write_atomically


class CorruptEpisode(ValueError):
    """A file that holds no episode; the message is one line."""


@dataclass(frozen=True, eq=False)
class Episode:
    """L rows of one episode. Raises ValueError if the arrays do not fit together."""

    observation: np.ndarray  # (L, H, W, C) uint8, or (L, V) float32
    action: np.ndarray  # (L, A) float32: one-hot, or a continuous action; row 0 zero
    reward: np.ndarray  # (L,) float32; row 0 zero
    terminated: np.ndarray  # (L,) bool: True at most in the last row; a time limit does not count
    labels: dict[str, np.ndarray] = field(default_factory=dict)  # each (L, ...): kept, never trained on

    def __post_init__(self) -> None:
        if problem := _problem(self):
            raise ValueError(problem)

    def __len__(self) -> int:
        """L: the rows, one more than the steps."""
        return len(self.reward)

    @property
    def steps(self) -> int:
        """Environment steps: the actions taken."""
        return len(self) - 1

    @property
    def ret(self) -> float:
        """The return: the undiscounted sum of rewards, summed in float64."""
        return float(self.reward.sum(dtype=np.float64))

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(array.nbytes for array in self.arrays().values())

    def take(self, rows: np.ndarray) -> "Episode":
        """The episode of these rows, by index, in their order; its row 0 has no action and no reward."""
        arrays = [self.observation, self.action, self.reward, self.terminated]
        observation, action, reward, terminated = (array[rows] for array in arrays)
        action[0], reward[0] = 0, 0
        return Episode(observation, action, reward, terminated, {k: label[rows] for k, label in self.labels.items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by their key in the file: the observation is `image` or, for vectors, `observation`."""
        key = "image" if self.observation.ndim == 4 else "observation"
        own = {
            key: self.observation,
            "action": self.action,
            "reward": self.reward,
            "terminated": self.terminated,
        }
        return own | self.labels


def _problem(episode: Episode) -> str | None:
    """What is wrong with an episode, or None."""
    observation, action, reward = episode.observation, episode.action, episode.reward
    kind = (observation.ndim, observation.dtype)
    if kind not in ((4, np.dtype(np.uint8)), (2, np.dtype(np.float32))):
        found = f"observations {observation.shape} {observation.dtype}"
        return f"{found}: neither (L, H, W, C) uint8 nor (L, V) float32"
    if action.ndim != 2 or action.dtype != np.float32:
        return f"actions {action.shape} {action.dtype}: not (L, A) float32"
    if reward.ndim != 1 or reward.dtype != np.float32:
        return f"rewards {reward.shape} {reward.dtype}: not (L,) float32"
    if episode.terminated.ndim != 1 or episode.terminated.dtype != np.bool_:
        return f"terminated {episode.terminated.shape} {episode.terminated.dtype}: not (L,) bool"
    if taken := {"image", "observation", "action", "reward", "terminated"} & episode.labels.keys():
        return f"labels named as the episode's own arrays: {sorted(taken)}"
    if unsafe := sorted(key for key, array in episode.labels.items() if array.dtype.hasobject):
        return f"labels of Python objects: {unsafe}"
    rows = {key: len(array) if array.ndim else 0 for key, array in episode.arrays().items()}
    if len(set(rows.values())) > 1:
        return f"leading dimensions differ: {rows}"
    if len(reward) < 2:
        return f"{len(reward)} rows: an episode has the reset's row and at least one step"
    for name, array in (("observation", observation), ("action", action), ("reward", reward)):
        if array.dtype == np.float32 and not np.isfinite(array).all():
            return f"{name} holds NaN or infinity"
    if action[0].any() or reward[0]:
        return "row 0 holds an action or a reward: rows must be action_t -> observation_t, reward_t"
    if episode.terminated[:-1].any():
        return "terminated before the last row"
    return None


def save_episode(folder: Path, episode: Episode, name: str) -> Path:
    """Writes `folder/name` atomically; `name` ends in .npz. Raises OSError, e.g. on a full disk.

    At zlib's default level 1001 maze frames of 64x64x3 (12.3 MB) take 0.2 s and 3.7 MB; at level 1, 0.1 s and 4.1 MB.
    """
    path = Path(folder) / name

    def write(file: IO[bytes]) -> None:
        # In memory first: zipfile seeks, and a full disk then fails in one place.
        archive = BytesIO()
        np.savez_compressed(archive, allow_pickle=False, **episode.arrays())
        file.write(archive.getbuffer())

    write_atomically(path, write)
    return path


def load_episode(path: Path) -> Episode:
    """Reads an episode; runs no code from the file.

    Rewards, actions and vectors of any numeric type become float32, a missing `terminated` is all False, other arrays
    of L rows become labels, and the rest is left out. Raises CorruptEpisode for wrong content, OSError if the file
    cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        return _parse(content)
    except MemoryError:
        raise
    except Exception as error:  # damage makes the decoders raise nearly anything
        raise CorruptEpisode(f"{path}: {_one_line(error)}") from error


def row_count(path: Path) -> int:
    """L of a file, from a few bytes of it. Raises CorruptEpisode or OSError as `load_episode`."""
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive, archive.open("reward.npy") as member:
                return int(_header(member)[0][0])
        except Exception as error:
            raise CorruptEpisode(f"{path}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _parse(content: bytes) -> Episode:
    arrays = _arrays(content)
    if missing := {"action", "reward"} - arrays.keys():
        raise ValueError(f"no {' and no '.join(sorted(missing))}")
    key = "image" if "image" in arrays else "observation"
    if key not in arrays:
        raise ValueError("no image and no observation")
    observation = arrays.pop(key)
    if key == "observation":
        observation = _float32(key, observation)
    action = _float32("action", arrays.pop("action"))
    reward = _float32("reward", arrays.pop("reward"))
    terminated = arrays.pop("terminated", np.zeros(reward.shape, np.bool_))
    if terminated.dtype.kind not in "bui":
        raise ValueError(f"terminated of type {terminated.dtype}")
    labels = {name: array for name, array in arrays.items() if array.shape[:1] == reward.shape[:1]}
    return Episode(np.ascontiguousarray(observation), action, reward, terminated.astype(np.bool_), labels)


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    """Every array in the archive. Refuses a header that claims more than its member holds, before allocating memory."""
    arrays = {}
    with zipfile.ZipFile(BytesIO(content)) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            with archive.open(info) as member:
                shape, dtype = _header(member)
                if prod(shape) * dtype.itemsize > info.file_size:
                    raise ValueError(f"{info.filename} claims {shape} {dtype} in {info.file_size} bytes")
            with archive.open(info) as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
                if member.read(1):  # at the end, where zipfile compares the checksum
                    raise ValueError(f"{info.filename} goes on after its array")
            arrays[info.filename.removesuffix(".npy")] = array
    return arrays


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype


def _float32(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} of type {array.dtype}")
    with np.errstate(over="ignore"):  # an overflow becomes infinity, which the episode's own check refuses
        return np.ascontiguousarray(array, np.float32)
