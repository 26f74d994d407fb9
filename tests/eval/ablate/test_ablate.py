"""The command: models trained, evaluated and compared; resumed; failures and interrupts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.runs.checkpoint import load_latest, save
from agent.runs.cli import parse
from agent.runs.folder import open_run
from eval.ablate import __main__ as ablate

ROOT = Path(__file__).parents[3]
ENV = "ObjectRecall-Choice:delay=4,shown=2,back=2"
SHORT = ["--env", ENV, "--preset", "debug", "--steps", "130", "--jobs", "2", "--train.log-every", "1"]
COMMAND = [*SHORT, "--worldmodels", "lssvwm,local", "--seeds", "0,1", "--episodes", "8"]
LABELS = ("lssvwm-s0", "local-s0", "lssvwm-s1", "local-s1")
NAMES = [f"ObjectRecall-Choice-delay-4-shown-2-back-2-{label}" for label in LABELS]


def stamps(folder: Path, pattern: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def test_it_trains_evaluates_compares_and_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    out = ["--out", str(tmp_path)]
    ablate.main([*COMMAND, *out])
    table, log = capfd.readouterr()
    report = json.loads((tmp_path / "ablation.json").read_text())
    assert report["failed"] == {} and report["episodes"] == 8 and report["steps"] == 130
    assert list(report["models"]) == ["lssvwm", "local"] and all(name in table for name in report["models"])
    assert sorted(path.name for path in tmp_path.glob("*-s?")) == sorted(NAMES)
    # every model's first seed comes before any second
    started = [NAMES.index(line.partition(":")[0]) for line in log.splitlines() if "run folder" in line]
    assert set(started[:2]) == {0, 1} and set(started[2:]) == {2, 3}
    for label, model in report["models"].items():
        stored = [json.loads((tmp_path / name / "eval.json").read_text()) for name in model["runs"]]
        assert model["seeds"] == [0, 1] and [s["worldmodel"] for s in stored] == [label] * 2
        means = [np.mean(s["returns"]) for s in stored]
        assert np.array(model["scores"])[:, 0] == pytest.approx(means)
        assert model["iqm"] == pytest.approx(np.mean(means))  # of two, nothing is trimmed
        assert model["parameters"] == stored[0]["parameters"]
        assert model["by_step"]["at"][-1] == 130 and model["minutes"] > 0 and model["frames_a_second"] > 0
    assert report["models"]["lssvwm"]["improvement"]["probability"] == 0.5
    assert (tmp_path / "ablation.png").stat().st_size > 20_000

    # again: nothing is trained; the control is evaluated, the rest as it was
    trained, evaluated = stamps(tmp_path, "*-s?/checkpoints/**/*"), stamps(tmp_path, "*-s?/eval.json")
    assert len(trained) >= 8 and len(evaluated) == 4
    ablate.main([*COMMAND, *out, "--reset-memory-at", "4"])
    assert stamps(tmp_path, "*-s?/checkpoints/**/*") == trained and stamps(tmp_path, "*-s?/eval.json") == evaluated
    assert "reset at 4" in capfd.readouterr().out
    reset = json.loads((tmp_path / "ablation.json").read_text())["models"]["local"]["memory_reset"]
    assert 0 <= reset["iqm_interval"][0] <= reset["iqm"] <= reset["iqm_interval"][1] <= 1


def test_a_run_that_fails_is_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    devices = ["--devices", "cpu,cuda:77", "--seeds", "0", "--episodes", "2"]
    with pytest.raises(SystemExit) as stop:
        ablate.main([*SHORT, "--worldmodels", "lssvwm,local", "--out", str(tmp_path), *devices])
    assert stop.value.code == 1
    report = json.loads((tmp_path / "ablation.json").read_text())
    assert list(report["models"]) == ["lssvwm"] and list(report["failed"]) == [NAMES[1]]
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert NAMES[1] in line and report["failed"][NAMES[1]] in line and f"{NAMES[1]}.log" in line
    assert "CUDA" in line


def test_an_interrupt_saves_the_runs_and_says_how_to_go_on(tmp_path: Path):
    words = [*SHORT, "--worldmodels", "lssvwm", "--seeds", "0,1", "--out", str(tmp_path), "--steps", "4000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "eval.ablate", *words, "--jobs", "1"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    said = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if "state-space scan" in line:  # printed at the first update
            process.send_signal(signal.SIGINT)
    assert process.wait() == 130, said
    assert said[-1] == "interrupted: the same command goes on from here\n"
    assert "interrupted and saved at step" in said[-2]
    assert load_latest(tmp_path / NAMES[0] / "checkpoints") is not None
    assert load_latest(tmp_path / NAMES[2] / "checkpoints") is None


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--worldmodels", "lssvwn"], "unknown world model lssvwn: did you mean lssvwm?"),
        (["--worldmodels", "lssvwm", "--worldmodel.d-modle", "3"], "did you mean --worldmodel.d-model"),
        (["--worldmodels", "lssvwm", "--worldmodel.d_model", "31"], "worldmodel.d_model (31)"),
        (["--worldmodels", "lssvwm", "--seed", "3"], "--seed is set for each run by this command: use --seeds"),
        (["--worldmodels", "lssvwm", "--env", "gym:CartPole-v1"], "no human-normalized scores"),
    ],
)
def test_refusals_are_one_line_before_any_training(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stop:
        ablate.main(["--env", ENV, "--preset", "debug", *words, "--out", str(tmp_path)])
    assert stop.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and line in said[0]
    assert not list(tmp_path.glob("**/checkpoints/*")) and not (tmp_path / "logs").exists()


def test_a_longer_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    open_run(parse(["--env", ENV, "--preset", "debug", "--steps", "130", "--run-dir", str(tmp_path / NAMES[0])]))
    save(tmp_path / NAMES[0] / "checkpoints", 132, {}, {}, keep=1)
    with pytest.raises(SystemExit):
        ablate.main([*SHORT, "--worldmodels", "lssvwm", "--out", str(tmp_path)])
    assert "has 132 steps already, not 130: use another --out or --steps" in capsys.readouterr().err


def test_a_run_made_otherwise_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    open_run(parse(["--env", ENV, "--preset", "debug", "--run-dir", str(tmp_path / NAMES[0])]))
    with pytest.raises(SystemExit):
        ablate.main([*SHORT, "--worldmodels", "lssvwm", "--out", str(tmp_path), "--train.replay-ratio", "3"])
    assert "--train.replay-ratio 2.0, this command says --train.replay-ratio 3.0" in capsys.readouterr().err
