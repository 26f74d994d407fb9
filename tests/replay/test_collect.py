"""Collecting episodes: what is in the files, that nothing but the settings decides it, and how it goes on."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import envs
from envs.memory_maze.env import LABELS
from envs.waypoints import cell_of
from replay import Replay, load_episode
from replay.collect import collect, held, main
from replay.record import RecordingError
from tests.replay.samples import assert_same

RECALL = "ObjectRecall:delay=4..9"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.npz"))


def cells(positions: np.ndarray) -> list[tuple[int, int]]:
    """The cells of a trajectory, in order, without repeats."""
    visited = [cell_of(position) for position in positions]
    return [cell for i, cell in enumerate(visited) if i == 0 or cell != visited[i - 1]]


def test_memory_maze_episodes_are_the_environments_own(tmp_path):
    assert collect("MemoryMaze", 2, "waypoints", tmp_path / "one", seed=5, steps=40, workers=1) == 2
    collect("MemoryMaze", 2, "waypoints", tmp_path / "two", seed=5, steps=40, workers=2)
    assert names(tmp_path / "one") == names(tmp_path / "two") == ["00000000-41.npz", "00000001-41.npz"]
    for name in names(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    replay = Replay(tmp_path / "one", 10_000)
    assert replay.steps == 80 and replay.episodes == 2
    first, second = (replay.get(name) for name in replay.names())
    assert set(first.labels) == set(LABELS) and first.labels["maze_layout"].shape == (41, 9, 9)
    assert first.observation.shape == (41, 64, 64, 3) and not first.terminated.any()
    assert (first.labels["maze_layout"][0] != second.labels["maze_layout"][0]).any()
    # The actions lead through the maze as it says: each row's labels are those of its frame.
    environment = envs.make("MemoryMaze", labels=True)
    seed = np.random.SeedSequence(5, spawn_key=(0,)).generate_state(2)[0]
    frame, info = environment.reset(seed=int(seed))
    for row, action in enumerate(first.action):
        if row:
            frame, *_, info = environment.step(int(action.argmax()))
        assert frame.tobytes() == first.observation[row].tobytes()
        assert (info["agent_pos"] == first.labels["agent_pos"][row]).all()
    environment.close()


def test_the_way_back_is_the_way_out_reversed(tmp_path):
    collect("MemoryMaze", 1, "out_and_back", tmp_path, seed=1, steps=240, workers=1)
    episode = load_episode(tmp_path / "00000000-241.npz")
    phase, place = episode.labels["phase"], episode.labels["agent_pos"]
    assert phase.tolist() == [0] * 121 + [1] * 120
    out, back = cells(place[:121]), cells(place[120:])
    assert len(out) > 5 and back == out[::-1]
    # What is seen from the start at the end was seen at the beginning: it looked all around.
    early = np.degrees(np.arctan2(*episode.labels["agent_dir"][:21].T))
    assert np.diff(np.sort(early)).max() < 25


def test_loops_come_back_to_the_start(tmp_path):
    collect("MemoryMaze", 1, "loops", tmp_path, seed=1, steps=400, workers=1)
    visited = cells(load_episode(tmp_path / "00000000-401.npz").labels["agent_pos"])
    assert visited.count(visited[0]) > 2 and len(set(visited)) > 20


def test_goes_on_where_it_stopped(tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert collect(RECALL, 4, "random", whole, seed=3, workers=2) == 4
    assert collect(RECALL, 3, "random", part, seed=3, workers=1) == 3
    removed = next(part.glob("00000001-*.npz"))
    removed.unlink()
    kept = {path: path.stat().st_mtime_ns for path in part.glob("*.npz")}
    assert collect(RECALL, 4, "random", part, seed=3, workers=2) == 2
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert names(part) == names(whole) and removed.exists()
    for name in names(whole):
        assert_same(load_episode(part / name), load_episode(whole / name))
    assert collect(RECALL, 4, "random", part, seed=3) == 0
    lengths = {len(load_episode(whole / name)) for name in names(whole)}
    assert len(lengths) > 1 and "colour" in load_episode(whole / names(whole)[0]).labels


def test_vectors_have_no_labels(tmp_path):
    collect("gym:CartPole-v1", 1, "random", tmp_path, steps=5)
    assert load_episode(tmp_path / "00000000-6.npz").labels == {}


def test_other_settings_are_refused(tmp_path, capsys):
    command = ["--env", RECALL, "--episodes", "1", "--policy", "random", "--out", str(tmp_path)]
    main(command)
    assert json.loads((tmp_path / "collect.json").read_text())["seed"] == 0
    assert capsys.readouterr().out == f"{tmp_path}: 1 episodes collected, 1 held\n"
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--seed", "1"])
    assert capsys.readouterr().err == f"{tmp_path} was collected with seed 0, not 1: give another folder\n"
    (tmp_path / "collect.json").unlink()
    with pytest.raises(RecordingError, match="another origin"):
        collect(RECALL, 1, "random", tmp_path)


@pytest.mark.parametrize("text", ["[1]", "[]", "{", "null"])
def test_damaged_settings_are_refused(tmp_path, text):
    (tmp_path / "collect.json").write_text(text)
    with pytest.raises(RecordingError) as refusal:
        collect(RECALL, 1, "random", tmp_path)
    assert str(refusal.value) == f"{tmp_path / 'collect.json'} cannot be read: give another folder"


@pytest.mark.parametrize(
    ("env", "policy", "options", "words"),
    [
        ("ObjectRecall", "waypoints", {}, "'waypoints' is for Memory Maze, not for ObjectRecall: want 'random' there"),
        ("ObjectRecall", "out_and_back", {}, "'out_and_back' is for Memory Maze"),
        ("MemoryMaze", "out_and_back", {"noise": 0.1}, "takes no noise"),
        ("ObjectRecall", "loops", {}, "'loops' is for Memory Maze, not for ObjectRecall: want 'random' there"),
        ("MemoryMaze", "loops", {"noise": 0.1}, "policy 'loops' takes no noise: 'waypoints' and 'walks' do"),
        ("MemoryMaze", "waypoints", {"noise": 1.5}, "0 to 1, not 1.5"),
        ("MemoryMaze", "out_and_back", {"steps": 1}, "at least 2 steps"),
        (
            "MemoryMaze",
            "waypoint",
            {},
            "unknown policy 'waypoint': one of loops, out_and_back, random, repeated_out_and_back, walks, waypoints",
        ),
        ("ObjectRecall", "random", {"seed": -1}, "at least 0"),
        # What only the environment knows comes from the process that makes it.
        ("ObjectRecall:delay=0", "random", {}, "delay must be"),
        ("MemoryMaze:time_limit=10", "out_and_back", {"steps": 20}, "ends after 10 of the 20 steps of out_and_back"),
    ],
)
def test_refusals_are_one_line(tmp_path, env, policy, options, words):
    with pytest.raises(RecordingError, match=words) as refusal:
        collect(env, 1, policy, tmp_path / "new", **options)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.glob("new/*.npz"))


def test_progress_away_from_a_terminal_is_plain(tmp_path):
    stream = io.StringIO()
    collect(RECALL, 3, "random", tmp_path, workers=1, stream=stream)
    *_, line = stream.getvalue().splitlines()
    assert line.startswith("episodes 3/3  steps/s ") and line.endswith("left 0:00") and "\r" not in stream.getvalue()


def test_it_says_what_is_to_come(tmp_path):
    stream = io.StringIO()
    collect(RECALL, 3, "random", tmp_path, steps=8, workers=1, stream=stream)
    plan, first, _ = stream.getvalue().splitlines()
    assert plan == f"{RECALL}: 3 episodes of random of 8 steps at most, 24 steps in all; processes: 1"
    assert first.startswith("first episode: 8 steps. All: about 24 steps at ") and "B a step on disk, " in first
    collect(RECALL, 5, "random", tmp_path, steps=8, workers=1, stream=(again := io.StringIO()))
    assert again.getvalue().startswith(f"{RECALL}: 2 episodes of random of 8 steps at most, 16 steps in all")
    collect(RECALL, 5, "random", tmp_path, steps=8, stream=(nothing := io.StringIO()))
    assert nothing.getvalue() == ""


def test_a_disk_that_is_too_small_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("replay.collect.shutil.disk_usage", lambda _: SimpleNamespace(free=50))
    collect(RECALL, 2, "random", tmp_path, workers=1, stream=(stream := io.StringIO()))
    assert "(free: 50 B, too little)" in stream.getvalue()
    assert f"{RECALL}: 2 episodes of random of the environment's own length; processes: 1" in stream.getvalue()


def test_ctrl_c_leaves_whole_files_and_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "replay.collect", "--env", RECALL, "--episodes", "1000000", "--policy", "random"]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path), "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        start_new_session=True,
        # what is started in the background ignores interrupts, and so do its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not held(tmp_path):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1].endswith(f"episodes in {tmp_path}: the same command goes on")
    assert "Traceback" not in errors
    for name in names(tmp_path):
        load_episode(tmp_path / name)
    assert collect(RECALL, 1, "random", tmp_path) in (0, 1) and 0 in held(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))
