import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from replay import Replay, atomic
from replay.atomic import remove_leftovers, replace_atomically, write_atomically
from tests.replay.samples import assert_same, vector_episode

ROOT = Path(__file__).parents[2]

# Adds one episode, then stops within the second: before or after its bytes are on disk, but not in place.
STOP_WITHIN_SAVE = """
import os, sys, time
from replay import Replay
from tests.replay.samples import vector_episode

def stop(*_):
    print("stopped", flush=True)
    time.sleep(600)

replay = Replay(sys.argv[1], 1000)
replay.add(vector_episode(30, tag=1))
setattr(os, sys.argv[2], stop)
replay.add(vector_episode(30, tag=2))
"""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_kill_within_save_leaves_no_half_episode(tmp_path: Path, moment: str) -> None:
    command = [sys.executable, "-c", STOP_WITHIN_SAVE, str(tmp_path), moment]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"stopped\n"
            assert len(list(tmp_path.glob(".*.tmp"))) == 1
            Replay(tmp_path, 1000)  # a reader beside a living writer takes nothing from it
            assert len(list(tmp_path.glob(".*.tmp"))) == 1
        finally:
            process.send_signal(signal.SIGKILL)
    replay = Replay(tmp_path, 1000)
    assert [file.name for file in tmp_path.iterdir()] == ["00000000-30.npz"]
    assert_same(replay.get("00000000-30.npz"), vector_episode(30, tag=1))
    assert replay.add(vector_episode(5)).name == "00000001-5.npz"


def test_full_disk_leaves_replay_and_folder_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = Replay(tmp_path, 1000)
    replay.add(vector_episode(5))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError) as caught:
            replay.add(vector_episode(7))
    assert caught.value.errno == errno.ENOSPC
    assert [file.name for file in tmp_path.iterdir()] == ["00000000-5.npz"]
    assert (replay.episodes, replay.steps, len(replay)) == (1, 4, 1)
    assert replay.add(vector_episode(7)).name == "00000001-7.npz"


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_an_interrupt_in_a_zip_stays_an_interrupt(tmp_path: Path) -> None:
    """What numpy's zip raises, where it is interrupted and cannot be closed, is not what happened."""

    def interrupted(_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise ValueError("Can't close the ZIP file")

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", interrupted)
    assert not list(tmp_path.iterdir())


def test_an_error_in_what_is_saved_after_an_interrupt_is_told(tmp_path: Path) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space"):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            write_atomically(tmp_path / "file", full)


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    for name in (".00000000-5.npz.tmp", "notes.tmp", ".hidden"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".hidden", "notes.tmp"]


def test_what_a_killed_writer_left_goes_with_the_next_writing(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        try:
            replace_atomically(tmp_path / "plot.png", lambda out: (out.write_bytes(b"ha"), os.kill(os.getpid(), 9)))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".") and left.suffix == ".png" and left.read_bytes() == b"ha"
    replace_atomically(tmp_path / "plot.png", lambda out: out.write_bytes(b"whole"))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("plot.png", b"whole")]


def test_two_that_write_a_file_do_not_meet(tmp_path: Path) -> None:
    """The second, of another process, is within the first."""
    path = tmp_path / "plot.png"

    def fill(out: Path) -> None:
        out.write_bytes(b"first")
        child = os.fork()
        if not child:
            try:
                replace_atomically(path, lambda other: other.write_bytes(b"second"))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert path.read_bytes() == b"second"

    replace_atomically(path, fill)
    assert path.read_bytes() == b"first" and [file.name for file in tmp_path.iterdir()] == ["plot.png"]


@pytest.mark.parametrize("whole", [True, False])
def test_the_new_name_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(atomic, "sync_folder", synced.append)
    if whole:
        replace_atomically(tmp_path / "file", lambda out: out.write_bytes(b"new"))
    else:
        write_atomically(tmp_path / "file", lambda file: file.write(b"new"))
    assert synced == [tmp_path] and (tmp_path / "file").read_bytes() == b"new"
