"""Learning curves out of metrics.jsonl, by step and by second."""

import json
from pathlib import Path

import numpy as np
import pytest

from agent.runs.config import Config, save_config
from eval.learning_curves import POINTS, by_second, by_step, learning, speed, time_spent, training_seconds

ROWS = [
    {"step": 10, "episode/return": 1.0},
    {"step": 20, "time/act": 1.0, "time/learn": 3.0, "time/evaluate": 50.0, "updates": 2},
    {"step": 20, "episode/return": 3.0},
    {"step": 30, "eval/return": 9.0},
    {"step": 40, "time/act": 2.0, "time/learn": 6.0, "time/wait": None, "updates": 4},
    # resumed
    {"step": 60, "time/act": 1.0, "time/learn": 1.0, "time/evaluate": 7.0, "updates": 6},
    {"step": 80, "time/act": 1.5, "time/learn": 2.5, "updates": 8, "episode/return": 5.0},
]


def make_run(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir()
    config = Config()
    config.replay.batch_size, config.replay.batch_length = 2, 64
    save_config(config, folder / "config.yaml")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_seconds_go_on_where_a_run_is_resumed_and_leave_evaluation_out():
    steps, seconds = training_seconds(ROWS)
    assert steps.tolist() == [0, 20, 40, 60, 80]
    assert seconds.tolist() == [0, 4, 8, 10, 12]


def test_time_and_speed_of_two_sessions():
    """The second one's clocks begin at zero again."""
    rows = [
        {"step": 10, "updates": 5, "time/act": 1.0, "time/learn": 4.0},
        {"step": 20, "updates": 10, "time/act": 2.0, "time/learn": 8.0},
        {"step": 30, "updates": 20, "time/act": 0.5, "time/learn": 2.0},
        {"step": 30, "episode/return": 1.0},
    ]
    spent = {name: seconds.sum() for name, seconds in time_spent(rows)[1].items()}
    assert spent == {"act": 2.5, "learn": 10.0, "wait": 0.0, "evaluate": 0.0}
    steps, frames = speed(rows, frames=8)
    assert steps.tolist() == [20, 30] and frames.tolist() == [5 * 8 / 5.0, 10 * 8 / 2.5]


def test_a_run(tmp_path: Path):
    found = learning(make_run(tmp_path / "run", ROWS), 80)  # the grid: 4, 8 ... 80
    assert len(found.returns) == POINTS == 20
    assert np.isnan(found.returns[:2]).all()
    np.testing.assert_array_equal(found.returns[2:], [1.0] * 2 + [3.0] * 15 + [5.0])
    assert found.seconds[[4, 9, 14, 19]].tolist() == [4, 8, 10, 12]
    assert found.steps_a_second == pytest.approx(80 / 12)
    assert found.frames_a_second == pytest.approx(8 * 2 * 64 / 12)


def test_curves_of_two_runs(tmp_path: Path):
    rows = [row | {"episode/return": row["episode/return"] + 2} if "episode/return" in row else row for row in ROWS]
    rows[0] = {"step": 16, "episode/return": 3.0}  # its first episode ends later
    slower = [{k: 2 * v if v and k.startswith("time/") else v for k, v in row.items()} for row in rows]
    pair = [[learning(make_run(tmp_path / name, r), 80)] for name, r in (("a", ROWS), ("b", slower))]
    curve = by_step(pair, 80)
    assert curve["at"] == list(range(16, 81, 4))
    assert curve["iqm"] == [2, *[4] * 15, 6]
    # a bootstrap over two runs finds either twice often enough
    assert curve["low"][0] == 1 and curve["high"][0] == 3

    by_time = by_second(pair)
    # b ends its first episode after 16 of its steps, 6.4 of its seconds; a is through after 12
    assert by_time["at"][0] == pytest.approx(6.4) and by_time["at"][-1] == pytest.approx(12)
    # after 12 seconds a has its last return 5, b is at step 30: 3 + 2
    assert by_time["iqm"][-1] == pytest.approx(5)
    assert len(by_time["at"]) == POINTS


def test_runs_without_an_episode_or_without_time_have_no_curve(tmp_path: Path):
    silent = learning(make_run(tmp_path / "a", [{"step": 5, "updates": 0}]), 80)
    assert silent.frames_a_second is silent.steps_a_second is silent.minutes is None
    assert by_step([[silent]], 80)["at"] == by_second([[silent]])["at"] == []
    timeless = learning(make_run(tmp_path / "b", [{"step": 5, "episode/return": 1.0}]), 80)
    assert by_second([[timeless]])["at"] == [] and by_step([[timeless]], 80)["iqm"] == [1.0] * 19
