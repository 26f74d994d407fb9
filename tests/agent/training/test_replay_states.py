"""Dreams begin where episodes have been, with all of the episode up to there in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch

from agent.runs.fields import ConfigError
from agent.training.learner import Learner
from agent.training.replay_states import ReplayStates, boundary_states
from replay import Episode, Replay
from tests.agent.training.test_learner import ACTIONS, SHAPE, small
from worldmodel import State


@pytest.fixture(scope="module")
def learner() -> Learner:
    return certain()


def certain() -> Learner:
    """A learner whose posterior is sure of itself: latents are drawn, and come out the same each time."""
    torch.manual_seed(0)
    made = Learner(small(unimix=0.0), SHAPE, ACTIONS)
    with torch.no_grad():
        made.model.posterior.weight.mul_(1e7)
    return made


def episode(length: int, seed: int = 0, terminated: bool = True) -> Episode:
    random = np.random.default_rng(seed)
    action = np.eye(ACTIONS, dtype=np.float32)[random.integers(ACTIONS, size=length)]
    action[0] = 0
    ends = np.zeros(length, bool)
    ends[-1] = terminated
    return Episode(random.normal(size=(length, *SHAPE)).astype(np.float32), action, np.zeros(length, np.float32), ends)


@torch.no_grad()
def frame_by_frame(learner: Learner, episode: Episode) -> State:
    """(L,): the State at each frame, one at a time."""
    rows, state, states = learner.episodes([episode]), learner.model.initial(1), []
    for t in range(len(episode)):
        state = learner.model.observe(rows[:, t : t + 1], state, sample=False).last_state
        states.append(state)
    return torch.cat(states)


def frames_of(found: State, states: State) -> list[int]:
    """The frame that each State stands at, by its memory and its latents both."""
    ssm = ("memory", "0", "0", "ssm")
    apart = sum(
        (found[key].flatten(1)[:, None] - states[key].flatten(1)[None]).abs().amax(-1) for key in (ssm, "h", "z")
    )
    assert (apart.amin(1) < 1e-4).all(), apart.amin(1)
    return apart.argmin(1).tolist()


@pytest.mark.parametrize(("length", "terminated"), [(50, True), (50, False), (3, True)])
def test_boundaries_are_the_episodes_states(learner: Learner, length: int, terminated: bool):
    past = episode(length, terminated=terminated)
    states = frame_by_frame(learner, past)
    block, met = learner.config.worldmodel.state_interval, set()
    for seed in range(40):
        at = frames_of(boundary_states(learner, past, np.random.default_rng(seed)), states)
        assert at and at == sorted(at) and (length - 1 not in at or not terminated)
        assert all(step == block for step in np.diff(at[:-1] if not terminated else at))
        met |= set(at)
    assert 0 in met  # an agent will begin there
    assert len(met) > 2 * length // block or length < block


def test_starts_are_drawn_from_many_episodes(learner: Learner, tmp_path: Path):
    replay = Replay(tmp_path, 10_000)
    for seed in range(20):
        replay.add(episode(40, seed))
    states = torch.cat([frame_by_frame(learner, replay.get(name)) for name in replay.names()])
    starts = ReplayStates(learner, replay, seed=0, states=32)
    assert len(starts.states) == 32
    assert len({frame // 40 for frame in frames_of(starts.states, states)}) == 16  # two of each of sixteen
    torch.manual_seed(1)
    drawn = starts(200)
    torch.manual_seed(1)
    assert torch.equal(starts(200)["h"], drawn["h"]) and len(drawn) == 200
    assert len(drawn["h"].flatten(1).unique(dim=0)) > 25


def test_without_episodes_there_is_nowhere_to_begin(learner: Learner, tmp_path: Path):
    with pytest.raises(ConfigError, match="holds no episodes"):
        ReplayStates(learner, Replay(tmp_path, 100), seed=0)
