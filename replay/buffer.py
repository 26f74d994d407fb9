"""Episodes on disk, up to a number of steps."""

import os
import re
import warnings
from pathlib import Path

from numpy.typing import DTypeLike

from replay.atomic import remove_leftovers
from replay.cache import EpisodeCache
from replay.episode import CorruptEpisode, Episode, load_episode, row_count, save_episode
from replay.estimate import describe, estimate

OWN_NAME = re.compile(r"(\d{8,})-(\d+)\.npz")  # {index}-{rows}.npz: order and length without opening the file
SET_ASIDE = ".corrupt"


class Replay:
    """A folder of episodes; the oldest are evicted once it holds more than `capacity_steps`.

    One process adds to a folder; others may read it. Files not written by `add`, such as the public Memory Maze data,
    count as the oldest; eviction forgets them without deleting them. A corrupt file is renamed to `<name>.corrupt`,
    with a warning, and forgotten.

    `steps`: environment steps held. `episodes`: how many were ever added; the file names keep it over restarts.
    """

    def __init__(self, folder: Path, capacity_steps: int, cache_bytes: int = 2 << 30) -> None:
        """Scans `folder`, made if missing; `cache_bytes` of uncompressed episodes stay in memory."""
        self.folder = Path(folder)
        self.capacity_steps = capacity_steps
        self.cache = EpisodeCache(cache_bytes)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        self._rows: dict[str, int] = {}  # by name, oldest first
        self._names: tuple[str, ...] | None = None
        self.episodes = 0
        self.steps = 0
        self._scan()

    def _scan(self) -> None:
        own: list[tuple[int, str, int]] = []
        for path in sorted(self.folder.iterdir()):
            match = OWN_NAME.fullmatch(path.name.removesuffix(SET_ASIDE))
            if match:
                self.episodes = max(self.episodes, int(match[1]) + 1)
            if path.suffix != ".npz" or path.name.startswith("."):
                continue
            if match:
                own.append((int(match[1]), path.name, int(match[2])))
                continue
            try:
                self._insert(path.name, row_count(path))
            except (CorruptEpisode, OSError) as error:
                self._lose(path.name, error)
        for _, name, rows in sorted(own):
            self._insert(name, rows)

    def __len__(self) -> int:
        """Episodes held."""
        return len(self._rows)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def names(self) -> tuple[str, ...]:
        """The names of the episodes held, oldest first."""
        if self._names is None:
            self._names = tuple(self._rows)
        return self._names

    def add(self, episode: Episode) -> Path:
        """Writes an episode, then evicts the oldest beyond the capacity, never this one.

        Raises OSError if it cannot be written, e.g. on a full disk; the replay is then unchanged.
        """
        path = save_episode(self.folder, episode, f"{self.episodes:08d}-{len(episode)}.npz")
        self._insert(path.name, len(episode))
        self.cache.put(path.name, episode)
        self.episodes += 1
        self._evict(keep=path.name)
        return path

    def get(self, name: str) -> Episode:
        """An episode by name, shared with other callers: do not write to it.

        Raises KeyError if it is not held, or no longer, because its file is corrupt or gone.
        """
        if name not in self._rows:
            raise KeyError(name)
        episode = self.cache.get(name)
        if episode is not None:
            return episode
        try:
            episode = load_episode(self.folder / name)
            if len(episode) != self._rows[name]:
                raise CorruptEpisode(f"{self.folder / name}: {len(episode)} rows, expected {self._rows[name]}")
        except (CorruptEpisode, OSError) as error:
            self._lose(name, error)
            raise KeyError(name) from error
        self.cache.put(name, episode)
        return episode

    def describe(self, observation_shape: tuple[int, ...], dtype: DTypeLike, actions: int = 18) -> str:
        """One line for the start of a run: capacity, size on disk, free space; warns if it is too little."""
        worst = estimate(observation_shape, dtype, self.capacity_steps, actions)
        held = sum(path.stat().st_size for path in self.folder.glob("*.npz"))
        return describe(self.folder, self.capacity_steps, worst, held)

    def _insert(self, name: str, rows: int) -> None:
        self._rows[name] = rows
        self._names = None
        self.steps += rows - 1

    def _forget(self, name: str) -> None:
        rows = self._rows.pop(name, None)
        if rows is not None:
            self._names = None
            self.steps -= rows - 1
        self.cache.drop(name)

    def _evict(self, keep: str) -> None:
        while self.steps > self.capacity_steps:
            oldest = next(iter(self._rows))
            if oldest == keep:
                return
            self._forget(oldest)
            if OWN_NAME.fullmatch(oldest):
                try:
                    (self.folder / oldest).unlink(missing_ok=True)
                except OSError as error:
                    warnings.warn(f"replay: cannot delete {self.folder / oldest}: {error}", stacklevel=3)

    def _lose(self, name: str, error: Exception) -> None:
        """Forgets a file that cannot be used, and sets it aside if its content is corrupt."""
        self._forget(name)
        done = "left out"
        if isinstance(error, CorruptEpisode):
            try:
                os.replace(self.folder / name, self.folder / (name + SET_ASIDE))
                done = f"renamed to *{SET_ASIDE}"
            except OSError:
                done = "left out, and cannot be renamed"
        warnings.warn(f"replay: {done}: {error}", stacklevel=3)
