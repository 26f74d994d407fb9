"""Where dreams begin: States with the memory of replayed episodes, for `worldmodel.env`."""

from itertools import pairwise

import numpy as np
import torch

from agent.runs.fields import ConfigError
from agent.training.learner import Learner
from replay import Episode, Replay
from worldmodel import State

STATES = 256
"""Starts that are held; a State takes some 0.1 MB, many more where attention looks back over hundreds of frames."""
EPISODES = 16
"""Long episodes that they are taken from at the least, where there are so many."""


class ReplayStates:
    """States drawn evenly from a pool. Each has in memory its episode from the first frame up to where it stands.

    Raises ConfigError where replay holds no episode.
    """

    def __init__(self, learner: Learner, replay: Replay, seed: int, states: int = STATES):
        """Reads episodes in random order until there are so many `states`, or no more episodes."""
        if not len(replay):
            raise ConfigError(f"{replay.folder} holds no episodes: dreams have nowhere to begin")
        random = np.random.default_rng(seed)
        names = replay.names()
        parts: list[State] = []
        held = 0
        for index in random.permutation(len(names)):
            found = boundaries(learner, replay.get(names[index]), random)
            wanted = min(len(found), max(1, states // EPISODES), states - held)
            # some of a long episode's, all of a short one's: each frame is about as likely as any other
            parts.append(found[torch.from_numpy(random.permutation(len(found))[:wanted])])
            held += wanted
            if held == states:
                break
        self.states: State = torch.cat(parts)

    def __call__(self, n: int) -> State:
        """n States (n,), drawn by torch's generator."""
        return self.states[torch.randint(len(self.states), (n,))]


@torch.no_grad()
def boundaries(learner: Learner, episode: Episode, random: np.random.Generator) -> State:
    """(K,): the States at an episode's block boundaries, but for a last frame after which nothing follows.

    The first block is of a random length, so that boundaries fall on any frame, the reset's too.
    """
    rows = learner.episodes([episode])
    length, block, window = rows.shape[1], learner.config.worldmodel.state_interval, learner.config.replay.batch_length
    first = int(random.integers(1, min(block, length - 1) + 1))
    state = learner.model.initial(1)
    parts: list[State] = []
    with learner.autocast():
        for begin, end in _spans(length, first, window):
            output = learner.model.observe(rows[:, begin:end], state)
            state = output.last_state
            alive = ~rows.terminated[0, begin + output.start_index]
            parts.append(output.start_states[0][alive].clone())  # a copy: the rest of the window can go
    return torch.cat(parts)


def _spans(length: int, first: int, window: int) -> list[tuple[int, int]]:
    """[0, first), then windows up to `length`."""
    cuts = [0, *range(first, length, window), length]
    return list(pairwise(cuts))
