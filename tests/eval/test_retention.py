"""The command: models taught and measured, taken up, compared again, and what it refuses."""

import json
from pathlib import Path

import pytest

from eval import retention
from eval.retention import main

SMALL = """--preset=debug --replay.batch 2 --replay.frames 16 --replay.first-frames 8 --worldmodel.block-frames 8
    --worldmodel.width 32 --worldmodel.latents 16 --worldmodel.classes 8""".split()
SHORT = "--data 6 --updates 4 --delays 2,4 --episodes 2".split()


def test_it_teaches_measures_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["--worldmodels", "lssvwm,local", "--seeds", "0,1", "--tag", "tiny", "--out", str(tmp_path)]
    main([*command, *SHORT, *SMALL])
    table = capsys.readouterr().out
    results = json.loads((tmp_path / "retention.json").read_text())
    runs = ["lssvwm-tiny-s0", "local-tiny-s0", "lssvwm-tiny-s1", "local-tiny-s1"]
    assert [result["run"] for result in results] == runs
    assert [result["label"] for result in results] == ["lssvwm-tiny", "local-tiny"] * 2
    assert all(run in table for run in runs) and "accuracy" in table
    assert set(results[0]["retention"]) == {"2", "4"}
    # as many parameters, by the number of layers
    assert results[1]["parameters"] == pytest.approx(results[0]["parameters"], rel=0.05)
    assert (tmp_path / "retention.png").stat().st_size > 5_000

    # again: nothing is taught or measured anew; and from the folders alone
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-s?/**/*.safetensors")}
    measured = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-s?/retention.json")}
    assert len(stamps) >= 4 and len(measured) == 4
    main([*command, *SHORT, *SMALL])
    main([str(tmp_path / runs[0]), "--out", str(tmp_path / "one"), *SHORT[4:]])
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in (stamps | measured).items())
    assert len(json.loads((tmp_path / "one" / "retention.json").read_text())) == 1

    # other delays are measured anew
    main([str(tmp_path / runs[0]), "--out", str(tmp_path / "one"), "--delays", "3", "--episodes", "2"])
    assert set(json.loads((tmp_path / runs[0] / "retention.json").read_text())["retention"]) == {"3"}


def test_mazes(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "WALK", 60)
    env = ["--worldmodels", "lssvwm", "--env", "MemoryMaze:time_limit=60", "--out", str(tmp_path)]
    main([*env, "--data", "1", "--updates", "2", "--episodes", "1", *SMALL])
    (result,) = json.loads((tmp_path / "retention.json").read_text())
    assert result["retrieval"]["model"]["frames"] == 31 and result["reasoning"]["model"]["frames"] == 18
    assert set(result["views"]) <= {"1-15", "16-63", "64-255", "256-", "never"}
    assert "retrieval" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["--worldmodels", "lssvwn"], "unknown world model lssvwn: did you mean lssvwm?"),
        (["--worldmodels", "lssvwm", "--env", "gym:CartPole-v1"], "nothing in gym:CartPole-v1 is hidden"),
        (["--worldmodels", "lssvwm", "--worldmodel.widht", "3"], "did you mean --worldmodel.width"),
        (["nowhere"], "nowhere holds no run"),
    ],
)
def test_refusals_are_one_line(command: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as error:
        main([*command, "--out", str(tmp_path)])
    assert error.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and line in said[0]


def test_without_anything_to_do_it_says_what_it_wants(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "name runs, or --worldmodels to teach" in capsys.readouterr().err
