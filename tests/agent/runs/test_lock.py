"""One process at a time trains in a run folder; whoever only reads is not kept out."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import train_agent
from agent.runs.cli import parse
from agent.runs.config import Config
from agent.runs.fields import ConfigError
from agent.runs.folder import open_run, stored_config, training
from agent.runs.lock import run_lock
from agent.training import distributed, online

CARTPOLE = "--env gym:CartPole-v1 --preset debug"
REFUSAL = "is being trained by another process: wait until that ends, or use another --run-dir"

HOLD = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run."""
    return open_run(configured(tmp_path / "run"))


def configured(folder: Path, *words: str) -> Config:
    return parse([*CARTPOLE.split(), "--run-dir", str(folder), *words])


def is_held(folder: Path) -> bool:
    """As another process finds it: locks are of descriptors."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-S", "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_a_run_that_another_process_trains_is_refused_until_that_is_gone(folder: Path):
    before = (folder / "config.yaml").read_bytes()
    with held_elsewhere(folder) as process:
        with pytest.raises(ConfigError, match=f"^{folder} {REFUSAL}$"):
            open_run(configured(folder, "--steps", "999"))
        assert (folder / "config.yaml").read_bytes() == before
        assert stored_config(folder) == configured(folder)  # a reader
        process.kill()
        process.wait()
        open_run(configured(folder, "--steps", "999"))


def test_the_command_is_refused_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]):
    with held_elsewhere(folder), pytest.raises(SystemExit) as stop:
        train_agent.main([*CARTPOLE.split(), "--run-dir", str(folder)])
    assert stop.value.code == 2 and capsys.readouterr().err == f"{folder} {REFUSAL}\n"
    assert not list((folder / "episodes").iterdir())


def test_the_command_holds_the_folder_while_it_trains(folder: Path, monkeypatch: pytest.MonkeyPatch):
    found = []
    monkeypatch.setattr(online, "train", lambda _, own: found.append((own, is_held(folder))))
    train_agent.main([*CARTPOLE.split(), "--run-dir", str(folder)])
    assert found == [(folder, True)] and not is_held(folder)


def test_other_processes_of_the_same_run_join(folder: Path, monkeypatch: pytest.MonkeyPatch):
    found = []
    monkeypatch.setattr(online, "train", lambda _, own: found.append(own))
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    with held_elsewhere(folder):
        train_agent.main([*CARTPOLE.split(), "--run-dir", str(folder)])
    assert found == [folder / "processes" / "1"]


def test_within_one_process_a_folder_is_taken_several_times(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    with training(configured(folder)) as own:
        assert own == folder
        open_run(configured(folder))
        with run_lock(Path("run")):
            assert is_held(folder)
        assert is_held(folder)
    assert not is_held(folder)
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "episodes", "checkpoints", "plots", "videos"}


def test_a_forked_child_does_not_keep_the_lock(folder: Path):
    end, go_on = os.pipe()
    begun, begin = os.pipe()
    with run_lock(folder):
        child = os.fork()
        if not child:
            os.close(go_on)
            os.write(begin, b"1")
            os.read(end, 1)
            os._exit(0)
        os.read(begun, 1)
        assert is_held(folder)
    try:
        assert not is_held(folder)
    finally:
        os.close(go_on)
        os.waitpid(child, 0)
        for descriptor in (end, begun, begin):
            os.close(descriptor)


def test_a_file_system_without_locks_is_done_without(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with training(configured(folder)):
        pass
