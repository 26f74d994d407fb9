"""Environments in worker processes: order, seeds, autoreset, and what happens when a worker fails or dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import gymnasium
import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError

import envs
from envs.errors import MakeError
from envs.vector import TRAINING_SEEDS, WorkerError

FAULTY = "gym:faulty_env:Faulty-v0"
DIE, UNPICKLABLE = 2, 3


@pytest.fixture
def make_vector(monkeypatch):
    """`envs.make_vector`, with the test's own environment importable; no process is left afterwards."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    made = []

    def _make(name, n, **options):
        made.append(envs.make_vector(name, n, **options))
        return made[-1]

    yield _make
    for vector in made:
        processes = vector.processes
        vector.close()
        assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize("n", [1, 3])
def test_equals_single_environments(make_vector, n):
    vector = make_vector("gym:CartPole-v1", n)
    assert vector.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.NEXT_STEP
    singles = [gymnasium.make("CartPole-v1") for _ in range(n)]
    observations, _ = vector.reset(seed=5)
    assert observations in vector.observation_space
    np.testing.assert_array_equal(observations, [env.reset(seed=5 + i)[0] for i, env in enumerate(singles)])
    done = [False] * n
    rng = np.random.default_rng(0)
    for _ in range(60):
        actions = rng.integers(2, size=n)
        vector.step_async(actions)
        observations, rewards, terminated, truncated, _ = vector.step_wait()
        for i, env in enumerate(singles):
            # NEXT_STEP autoreset: the step after an end gives the first observation, and no reward.
            expected = (env.reset()[0], 0.0, False, False) if done[i] else env.step(actions[i])[:4]
            np.testing.assert_array_equal(observations[i], expected[0])
            assert (rewards[i], terminated[i], truncated[i]) == expected[1:]
            done[i] = terminated[i] or truncated[i]


def test_infos_follow_gymnasium(make_vector):
    vector = make_vector(FAULTY, 2)
    observations, infos = vector.reset(seed=[3, 4])
    np.testing.assert_array_equal(infos["number"].astype(np.float32), observations[:, 1])
    assert infos["_number"].all()
    first = observations[:, 1]
    np.testing.assert_array_equal(vector.reset(seed=3)[0][:, 1], first)
    assert (vector.reset()[0][:, 1] != first).all()


def _kill(vector, i):
    os.kill(vector.processes[i].pid, signal.SIGKILL)
    vector.processes[i].join()


def _steps_with_a_death(make_vector):
    """What two environments give when worker 1 is killed after two steps."""
    vector = make_vector(FAULTY, 2)
    vector.reset(seed=0)
    noop = np.zeros(2, int)
    steps = [vector.step(noop) for _ in range(2)]
    _kill(vector, 1)
    with pytest.warns(UserWarning, match="worker 1 of .* died .*restart 1"):
        steps.append(vector.step(noop))
    return steps + [vector.step(noop) for _ in range(3)]


def test_dead_worker_is_restarted_and_its_episode_truncated(make_vector):
    steps = _steps_with_a_death(make_vector)
    before, at, after = steps[1], steps[2], steps[3]
    np.testing.assert_array_equal(at[0][1], before[0][1])
    assert (at[1][1], at[2][1], at[3][1]) == (0.0, False, True)
    np.testing.assert_array_equal(at[4]["worker_restarted"], [False, True])
    # The other environment goes on; the restarted one begins a new episode.
    np.testing.assert_array_equal([step[0][0, 0] for step in steps], [1, 2, 3, 4, 5, 0])
    np.testing.assert_array_equal([step[0][1, 0] for step in steps], [1, 2, 2, 0, 1, 2])
    assert not after[3].any() and "worker_restarted" not in after[4]
    assert after[0][1, 1] != before[0][1, 1]
    again = _steps_with_a_death(make_vector)
    for one, other in zip(steps, again, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_worker_that_dies_once_in_a_while_is_always_restarted(make_vector):
    vector = make_vector(FAULTY, 1)
    vector.reset(seed=0)
    for restart in range(1, 4):
        with pytest.warns(UserWarning, match=rf"exit code 7.*restart {restart}"):
            vector.step([DIE])
        *_, infos = vector.step([0])
        assert 0 <= infos["seed"][0] < TRAINING_SEEDS
        assert vector.step([0])[1] == 1.0


def test_worker_that_keeps_dying_is_given_up(make_vector):
    vector = make_vector(FAULTY, 2)
    vector.reset(seed=0)
    for _ in range(2):
        with pytest.warns(UserWarning, match="worker 1"):
            vector.step([0, DIE])
        vector.step([0, 0])
    with pytest.raises(WorkerError, match=r"^environment 1 \(.*\) died 3 times without a step .*exit code 7\)$"):
        vector.step([0, DIE])


def test_worker_that_dies_during_a_step_is_noticed(make_vector):
    vector = make_vector(FAULTY, 2)
    vector.reset(seed=0)
    os.kill(vector.processes[0].pid, signal.SIGSTOP)
    vector.step_async(np.zeros(2, int))
    os.kill(vector.processes[0].pid, signal.SIGKILL)
    with pytest.warns(UserWarning, match="worker 0"):
        *_, truncated, _ = vector.step_wait()
    np.testing.assert_array_equal(truncated, [True, False])


def test_worker_that_dies_before_a_reset_keeps_its_seed(make_vector):
    vector = make_vector(FAULTY, 2)
    expected, _ = vector.reset(seed=7)
    _kill(vector, 1)
    with pytest.warns(UserWarning, match="worker 1"):
        observations, _ = vector.reset(seed=7)
    np.testing.assert_array_equal(observations, expected)


def test_exceptions_come_with_the_workers_traceback(make_vector):
    vector = make_vector(FAULTY, 2)
    vector.reset(seed=0)
    with pytest.raises(WorkerError, match=r"environment 1 (.|\n)*faulty_env.py(.|\n)*the test asked for this"):
        vector.step(np.array([0, 1]))
    # The one that failed begins a new episode, the other goes on.
    observations, *_ = vector.step(np.zeros(2, int))
    np.testing.assert_array_equal(observations[:, 0], [2, 0])


def test_an_answer_that_cannot_be_pickled_is_an_error(make_vector):
    vector = make_vector(FAULTY, 2)
    vector.reset(seed=0)
    processes = vector.processes
    with pytest.raises(WorkerError, match=r"environment 1 (.|\n)*pickle local object"):
        vector.step([0, UNPICKLABLE])
    observations, *_ = vector.step([0, 0])
    np.testing.assert_array_equal(observations[:, 0], [2, 0])
    assert vector.processes == processes


def test_refusals_are_the_environments_own(make_vector):
    with pytest.raises(
        ValueError, match=r"^gym:FrozenLake-v1 has observations .*only images and flat vectors \(Box\) are supported$"
    ):
        make_vector("gym:FrozenLake-v1", 2)
    with pytest.raises(MakeError, match="^gym:faulty_env:Lacking-v0 cannot be made: a box is not installed, you"):
        make_vector("gym:faulty_env:Lacking-v0", 1)
    with pytest.raises(ValueError, match="at least 1"):
        make_vector("gym:CartPole-v1", 0)


def test_calls_out_of_order(make_vector):
    vector = make_vector("gym:CartPole-v1", 1)
    with pytest.raises(NoAsyncCallError):
        vector.step_wait()
    vector.step_async(np.zeros(1, int))
    with pytest.raises(AlreadyPendingCallError):
        vector.reset()
    vector.close()
    with pytest.raises(ClosedEnvironmentError):
        vector.step_wait()


# A program as ours are: its main module must not be imported again by the workers.
PROGRAM = """
import sys
print("imported as", __name__, flush=True)
if __name__ == "__main__":
    import envs
    vector = envs.make_vector("gym:CartPole-v1", 2)
    vector.reset(seed=0)
    print("ready", flush=True)
    sys.stdin.read()
    vector.close()
"""


@pytest.mark.parametrize("ending", ["closed", "killed"])
def test_workers_of_a_program(tmp_path, ending):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "imported as __main__\n"
        assert program.stdout.readline() == "ready\n"
        if ending == "killed":
            program.kill()
        # The workers hold the other end of stdout, so this returns once all of them have ended.
        rest, _ = program.communicate(timeout=60)
    assert rest == ""
