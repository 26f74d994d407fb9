"""Experience: episodes on disk, and windows of them in order."""

from replay.buffer import Replay
from replay.builder import EpisodeBuilder
from replay.episode import CorruptEpisode, Episode, load_episode, save_episode
from replay.sampler import SequenceSampler

__all__ = [
    "CorruptEpisode",
    "Episode",
    "EpisodeBuilder",
    "Replay",
    "SequenceSampler",
    "load_episode",
    "save_episode",
]
