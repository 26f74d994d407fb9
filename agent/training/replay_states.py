"""Start states for `worldmodel.env`: States with the memory of replayed episodes."""

import numpy as np
import torch

from agent.runs.fields import ConfigError
from agent.training.learner import Learner
from replay import Episode, Replay
from worldmodel import State
from worldmodel.rollout import observe_episode

STATES = 256
"""States that are held; one takes some 0.1 MB, many more where attention looks back over hundreds of frames."""
EPISODES = 16
"""Long episodes that they are taken from at the least, where there are so many."""


class ReplayStates:
    """States drawn uniformly from a pool. Each has in memory its episode from the first frame up to where it stands.

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
            found = boundary_states(learner, replay.get(names[index]), random)
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
def boundary_states(learner: Learner, episode: Episode, random: np.random.Generator) -> State:
    """(K,): the States at an episode's boundaries, without those after which nothing follows.

    The first interval is of a random length, so that boundaries fall on any frame, the reset's too.
    """
    batch = learner.episodes([episode])
    length, interval = batch.shape[1], learner.config.worldmodel.state_interval
    first = int(random.integers(1, min(interval, length - 1) + 1))
    model = learner.model
    with learner.autocast():
        begin = model.observe(batch[:, :first], model.initial(1))
        rest = observe_episode(model, batch[:, first:], begin.last_state, learner.config.replay.batch_length)
    states = torch.cat([begin.start_states, rest.start_states], 1)[0]
    index = torch.cat([begin.start_index, rest.start_index + first])
    return states[~batch.terminated[0, index]].clone()
