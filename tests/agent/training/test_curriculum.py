"""Windows that grow: their sizes, when they change, and that they go on where they stopped."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agent.runs.config import ReplayConfig
from agent.training.curriculum import LengthCurriculum
from replay import Episode, Replay
from worldmodel import State


@pytest.fixture
def replay(tmp_path):
    made = Replay(tmp_path, 10_000)
    for index in range(3):
        rows = 70
        action = np.eye(2, dtype=np.float32)[np.arange(rows) % 2]
        action[0] = 0
        observation = np.stack([np.full(rows, index), np.arange(rows)], 1).astype(np.float32)
        made.add(Episode(observation, action, np.zeros(rows, np.float32), np.zeros(rows, bool)))
    return made


def made(replay: Replay, **options: float) -> LengthCurriculum:
    return LengthCurriculum(replay, ReplayConfig(**options), 0, lambda n: State({"h": torch.zeros(n, 2)}, [n]))


def read(windows: LengthCurriculum, progress: float) -> dict[str, np.ndarray]:
    """The next rows; the State counts the windows."""
    rows, state = windows.next(progress)
    windows.carry(State({"h": state["h"] + 1}, state.batch_size))
    return rows


def sizes(windows: LengthCurriculum, progress: float) -> tuple[int, ...]:
    return read(windows, progress)["reward"].shape


def test_windows_double_by_half_of_training(replay):
    windows = made(replay, batch_size=2, batch_length=64, curriculum_start=16)
    assert [sizes(windows, at) for at in (0.0, 0.24, 0.25, 0.49, 0.5, 1.0)] == [
        (8, 16),
        (8, 16),
        (4, 32),
        (4, 32),
        (2, 64),
        (2, 64),
    ]


def test_without_growth_windows_stay(replay):
    windows = made(replay, batch_size=2, batch_length=32)
    assert sizes(windows, 0.0) == sizes(windows, 1.0) == (2, 32)


def test_the_first_row_of_a_new_stage_begins_memory(replay):
    windows = made(replay, batch_size=2, batch_length=32, curriculum_start=16)
    read(windows, 0.0)
    assert not read(windows, 0.0)["is_first"][:, 0].all()
    assert read(windows, 0.5)["is_first"][:, 0].all()


def test_restart_cuts_every_window_off_from_the_one_before(replay):
    windows = made(replay, batch_size=4, batch_length=16, random_start_prob=1.0)
    assert all(read(windows, 0.0)["is_first"][:, 0].all() for _ in range(5))


def test_a_restored_curriculum_goes_on(replay):
    options = {"batch_size": 2, "batch_length": 32, "curriculum_start": 8}
    windows, other = made(replay, **options), made(replay, **options)
    read(windows, 0.3)
    other.restore(*windows.snapshot())
    for progress in (0.3, 0.3, 0.6, 0.6):
        (here, state), (there, same) = windows.next(progress), other.next(progress)
        assert all(np.array_equal(here[name], there[name]) for name in here)
        assert torch.equal(state["h"], same["h"])
        windows.carry(state)
        other.carry(same)


@given(batch=st.integers(1, 9), frames=st.integers(1, 300), first=st.integers(0, 300))
def test_stages_keep_the_rows_of_a_batch(batch, frames, first):
    stages = ReplayConfig(batch_size=batch, batch_length=frames, curriculum_start=first).stages()
    assert stages[-1] == (batch, frames)
    assert {b * t for b, t in stages} == {batch * frames}
    assert all(later == 2 * earlier for (_, earlier), (_, later) in zip(stages, stages[1:], strict=False))
    assert first == 0 or len(stages) == 1 or stages[0][1] >= first
