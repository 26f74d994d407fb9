"""The command: a run from beginning to end, resumed after SIGKILL, and read by the evaluators."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.logging.sinks import read_metrics
from agent.runs.checkpoint import load_latest
from eval import returns

ROOT = Path(__file__).parents[2]
RUN = "--env gym:CartPole-v1 --preset debug --steps 300 --train.save-every 60 --train.eval-every 150".split()


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "train_agent.py", *RUN, "--run-dir", str(folder), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # tests that run in the background of a shell have SIGINT ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process: subprocess.Popen[str]) -> str:
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed with SIGKILL after its second checkpoint, then resumed to its end."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    process = start(folder)
    checkpoints = folder / "checkpoints"
    while process.poll() is None and len(list(checkpoints.glob("step-*"))) < 2:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.wait()
    episodes = {path.name: path.read_bytes() for path in (folder / "episodes").glob("[0-9]*.npz")}
    found = load_latest(checkpoints)
    assert found is not None
    output = finish(start(folder))
    assert f"resumed at step {found[0]}" in output
    for name, data in episodes.items():
        assert (folder / "episodes" / name).read_bytes() == data
    return folder


def test_a_killed_run_ends_with_all_its_steps(run: Path):
    found = load_latest(run / "checkpoints")
    assert found is not None
    step, _, meta = found
    assert step >= 300
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert any("eval/return" in row for row in rows)
    assert any("model/loss/dynamics" in row for row in rows)
    assert meta["nonfinite_updates"] == 0
    # updates keep to the schedule whatever was lost: frames replayed = ratio * steps after the prefill
    assert meta["updates"] == pytest.approx((step - 100) * 8 / 32, abs=2)


def test_the_run_folder_is_whole(run: Path):
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "metrics.jsonl",
        "episodes",
        "checkpoints",
        "plots",
        "videos",
    }
    assert (run / "plots" / "returns.png").read_bytes()[:4] == b"\x89PNG"
    assert len(list((run / "checkpoints").glob("step-*"))) == 2


def test_a_finished_run_has_nothing_to_do(run: Path):
    assert "nothing to do" in finish(start(run))


def test_another_seed_in_the_same_folder_is_refused(run: Path):
    process = start(run, "--seed", "3")
    output = process.communicate()[0]
    assert process.returncode == 2
    assert len(output.strip().splitlines()) == 1
    assert "--seed 0" in output and "--seed 3" in output


def test_a_checkpoint_is_evaluated(run: Path, capsys: pytest.CaptureFixture[str]):
    returns.main([str(run), "--episodes", "3", "--envs", "2", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((run / "eval.json").read_text())
    assert printed["episodes"] == len(printed["returns"]) == 3
    assert printed["mean"] == pytest.approx(sum(printed["returns"]) / 3)


def test_evaluating_what_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        returns.main([str(tmp_path)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_sigint_saves_and_says_how_to_go_on(tmp_path: Path):
    process = start(tmp_path / "run", "--steps", "100000")
    while process.poll() is None and not list((tmp_path / "run" / "episodes").glob("*.npz")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130, output
    assert "the same command resumes" in output
    assert "Traceback" not in output
    assert load_latest(tmp_path / "run" / "checkpoints") is not None
