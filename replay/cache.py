"""Recently used episodes in memory, up to a number of bytes."""

from collections import OrderedDict

from replay.episode import Episode


class EpisodeCache:
    """Drops the least recently used first; does not keep an episode larger than the limit."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of uncompressed episodes."""
        self._limit = limit
        self._held: OrderedDict[str, Episode] = OrderedDict()
        self.nbytes = 0

    def get(self, name: str) -> Episode | None:
        """The episode, now the most recently used, or None."""
        episode = self._held.get(name)
        if episode is not None:
            self._held.move_to_end(name)
        return episode

    def put(self, name: str, episode: Episode) -> None:
        """Keeps an episode; drops the least recently used to make room."""
        self.drop(name)
        if episode.nbytes > self._limit:
            return
        self._held[name] = episode
        self.nbytes += episode.nbytes
        while self.nbytes > self._limit:
            self.nbytes -= self._held.popitem(last=False)[1].nbytes

    def drop(self, name: str) -> None:
        """Drops an episode, if held."""
        if name in self._held:
            self.nbytes -= self._held.pop(name).nbytes
