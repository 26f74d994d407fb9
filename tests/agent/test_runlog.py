"""The metrics file outlives kills, and the progress line says what it should."""

import io
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from agent.config import Config
from agent.fields import ConfigError
from agent.progress import Progress, duration
from agent.runlog import RunLog, read_metrics


def open_log(folder: Path) -> RunLog:
    return RunLog(folder, "disabled", Config())


def test_rows_are_on_the_disk_at_once_and_kept_on_reopening(tmp_path: Path):
    with open_log(tmp_path) as log:
        log.log(1, {"loss": 0.5, "tensor": torch.tensor(2.0)})
        assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5, "tensor": 2.0}]
    with open_log(tmp_path) as log:
        log.log(2, {"loss": 0.25})
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_what_is_not_finite_is_null_so_that_any_reader_can_read_it(tmp_path: Path):
    with open_log(tmp_path) as log:
        log.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0})
    text = (tmp_path / "metrics.jsonl").read_text()

    def strict(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(text, parse_constant=strict) == {"step": 1, "a": None, "b": None, "c": None, "d": 1.0}


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b"\xff", b"3", b"[1]", b'{"step": "x"}', b"[" * 100_000])
def test_a_torn_line_is_passed_over_and_the_next_one_stands_alone(tmp_path: Path, torn: bytes):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + torn)
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    with open_log(tmp_path) as log:
        log.log(4, {"loss": 1.0})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 4]


def test_a_line_that_lacks_only_its_end_counts(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}')
    with open_log(tmp_path) as log:
        log.log(3, {})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


def test_truncating_drops_what_comes_after_the_checkpoint(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": null}\n{"step": 5}\n{"step": 3}\n{"step": 9}\n{"st')
    with open_log(tmp_path) as log:
        log.truncate_after(5)
        assert [row["step"] for row in read_metrics(path)] == [1, 5, 3]
        log.log(6, {})
    assert [row["step"] for row in read_metrics(path)] == [1, 5, 3, 6]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_nothing_logged_yet(tmp_path: Path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_wandb_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"^--wandb offline needs a package: pip install 'lssvwm\[wandb\]'$"):
        RunLog(tmp_path, "offline", Config())


class FakeWandb:
    """Stands in for the wandb module and for its run."""

    class errors:
        class Error(Exception):
            pass

    def __init__(self) -> None:
        self.inits: list[dict] = []
        self.logged: list[dict] = []
        self.finished = 0

    def Settings(self, **settings: object) -> dict:
        return settings

    def init(self, **arguments: object) -> "FakeWandb":
        self.inits.append(arguments)
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "step")

    def log(self, row: dict) -> None:
        self.logged.append(row)

    def finish(self) -> None:
        self.finished += 1


def test_wandb_goes_on_with_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for step in (1, 2):
        with RunLog(tmp_path, "online", Config()) as log:
            log.log(step, {"loss": 0.5})
    first, second = fake.inits
    assert first["id"] == second["id"] and first["resume"] == "allow"
    assert first["config"]["worldmodel"]["blocks"] == "2x2"
    assert fake.logged == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}] and fake.finished == 2


def test_wandb_refusing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake = FakeWandb()

    def refuse(**_: object) -> None:
        raise fake.errors.Error("no API key\nconfigured")

    monkeypatch.setattr(fake, "init", refuse)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(ConfigError, match="^--wandb online: no API key configured$"):
        RunLog(tmp_path, "online", Config())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_away_from_a_terminal_a_line_every_half_minute():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(12_000, stream, clock=clock)
    for second in range(41):
        clock.now = float(second)
        progress.update(1000 + 10 * second, 3, 1.25 if second else None, second, 800 * second)
    progress.note("saved")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines == [
        "steps 1000/12000  episodes 3  updates 0",
        "steps 1300/12000  episodes 3  return 1.2  updates 30  frames/s 800  left 17:50",
        "saved",
        "steps 1400/12000  episodes 3  return 1.2  updates 40  frames/s 800  left 17:40",
    ]


def test_on_a_terminal_one_line_lives():
    clock, stream = Clock(), Terminal()
    progress = Progress(100, stream, clock=clock)
    for second in range(3):
        clock.now = float(second)
        progress.update(second, 0, None, 0, 0)
    assert "\n" not in stream.getvalue() and stream.getvalue().count("\r") == 3
    progress.close()
    assert stream.getvalue().endswith("\n")


def test_speed_is_that_of_the_last_minute():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(100_000, stream, every=0, clock=clock)
    for second in range(200):
        clock.now = float(second)
        progress.update(1000 * min(second, 100) + max(0, second - 100), 0, None, 0, 0)
    assert stream.getvalue().splitlines()[-1].endswith("left 0:00") is False
    assert "frames/s 0" in stream.getvalue().splitlines()[-1]


def test_duration():
    assert [duration(seconds) for seconds in (0, 59.6, 250, 7450)] == ["0:00", "1:00", "4:10", "2:04:10"]
