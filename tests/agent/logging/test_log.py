"""The metrics file outlives kills, and the progress line says what it should."""

import io
import json
import math
import sys
import time
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agent.logging.log import RunLog
from agent.logging.sinks import read_metrics
from agent.runs.config import Config
from agent.runs.fields import ConfigError
from replay.progress import Progress, duration, track


def open_log(folder: Path) -> RunLog:
    return RunLog(folder, Config())


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
        RunLog(tmp_path, Config(wandb="offline"))


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

    Image = Video = staticmethod(lambda path, format=None: Path(path).name)

    def log(self, row: dict) -> None:
        self.logged.append(row)

    def finish(self) -> None:
        self.finished += 1


def test_wandb_goes_on_with_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for step in (1, 2):
        with RunLog(tmp_path, Config(wandb="online")) as log:
            log.log(step, {"loss": 0.5})
    first, second = fake.inits
    assert first["id"] == second["id"] and first["resume"] == "allow"
    assert first["config"]["worldmodel"]["blocks"] == "2x2"
    assert fake.logged == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}] and fake.finished == 2


def test_wandb_gets_nothing_twice_from_a_run_that_goes_back_to_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with RunLog(tmp_path, Config(wandb="offline")) as log:
        for step in (10, 20, 30, 30):
            log.log(step, {"loss": float(step)})
        log.image(30, "plots/returns", tmp_path / "returns.png")
    with RunLog(tmp_path, Config(wandb="offline")) as log:
        log.truncate_after(20)
        log.log(30, {"loss": 30.5})
        log.log(40, {"loss": 40.0})
    logged = [(row["step"], row.get("loss", row.get("plots/returns"))) for row in fake.logged]
    assert logged == [(10, 10.0), (20, 20.0), (30, 30.0), (30, 30.0), (30, "returns.png"), (40, 40.0)]
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [10, 20, 30, 40]


def test_wandb_takes_metrics_images_and_videos_offline(tmp_path: Path):
    pytest.importorskip("wandb")
    with RunLog(tmp_path, Config(wandb="offline")) as log:
        log.log(7, {"episode/return": 1.5})
        log.image(7, "plots/returns", image(tmp_path / "returns.png"))
        log.video(7, "videos/openloop", video(tmp_path / "openloop.mp4"))
    (run,) = tmp_path.glob("wandb/offline-run-*")
    (stored,) = run.glob("run-*.wandb")
    deadline = time.monotonic() + 60
    while b"episode/return" not in stored.read_bytes():  # on a busy machine W&B's process ends after `close`
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (png,), (mp4,) = run.glob("files/media/images/plots/*.png"), run.glob("files/media/videos/videos/*.mp4")
    assert imageio.imread(png).shape == (30, 40, 3)
    assert imageio.imread(mp4, plugin="pyav").shape == (5, 64, 640, 3)


def image(path: Path) -> Path:
    imageio.imwrite(path, np.full((30, 40, 3), 200, np.uint8))
    return path


def video(path: Path, frames: int = 5, width: int = 640) -> Path:
    """Frames that grow brighter."""
    shades = np.linspace(0, 200, frames).astype(np.uint8)
    pixels = np.broadcast_to(shades[:, None, None, None], (frames, 64, width, 3)).copy()
    imageio.imwrite(path, pixels, plugin="pyav", codec="libx264", fps=8)
    return path


def read_events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def test_tensorboard_reads_the_same_names_and_values(tmp_path: Path):
    with RunLog(tmp_path, Config(tensorboard=True)) as log:
        log.truncate_after(-1)
        log.log(8, {"episode/return": 1.5, "model/loss/dynamics": torch.tensor(2.0), "model/grad_norm": math.nan})
        log.log(16, {"episode/return": 2.5})
        log.image(16, "plots/returns", image(tmp_path / "returns.png"))
        log.video(16, "videos/openloop", video(tmp_path / "openloop.mp4"))
    events = read_events(tmp_path)
    assert {(e.step, e.value) for e in events.Scalars("episode/return")} == {(8, 1.5), (16, 2.5)}
    assert [(e.step, e.value) for e in events.Scalars("model/loss/dynamics")] == [(8, 2.0)]
    assert math.isnan(events.Scalars("model/grad_norm")[0].value)
    assert set(events.Tags()["scalars"]) == set().union(*read_metrics(tmp_path / "metrics.jsonl")) - {"step"}
    (shown,) = events.Images("plots/returns")
    assert shown.step == 16 and imageio.imread(shown.encoded_image_string).shape == (30, 40, 3)
    (played,) = events.Images("videos/openloop")
    frames = imageio.imread(played.encoded_image_string, index=None)
    assert frames.shape == (5, 32, 320, 3) and (played.width, played.height) == (320, 32)
    assert np.abs(frames.mean((1, 2, 3)) - np.linspace(0, 200, 5)).max() < 12


@pytest.mark.parametrize(("checkpoint", "kept"), [(16, [8, 16, 24, 40]), (-1, [24, 40])])
def test_tensorboard_shows_nothing_twice_of_a_run_that_goes_back(tmp_path: Path, checkpoint: int, kept: list[int]):
    with RunLog(tmp_path, Config(tensorboard=True)) as log:
        log.truncate_after(-1)
        for step in (8, 16, 24, 32):
            log.log(step, {"loss": 0.0})
    with RunLog(tmp_path, Config(tensorboard=True)) as log:
        log.truncate_after(checkpoint)
        for step in (24, 40):
            log.log(step, {"loss": 1.0})
    rows = [(row["step"], row["loss"]) for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert [(e.step, e.value) for e in read_events(tmp_path).Scalars("loss")] == rows
    assert [step for step, _ in rows] == kept


def test_tensorboard_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"^--tensorboard True needs a package: pip install 'lssvwm\[tensorboard\]'$"):
        RunLog(tmp_path, Config(tensorboard=True))


def test_wandb_refusing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake = FakeWandb()

    def refuse(**_: object) -> None:
        raise fake.errors.Error("no API key\nconfigured")

    monkeypatch.setattr(fake, "init", refuse)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(ConfigError, match="^--wandb online: no API key configured$"):
        RunLog(tmp_path, Config(wandb="online"))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_away_from_a_terminal_a_line_every_half_minute():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(12_000, stream=stream, clock=clock)
    for second in range(41):
        clock.now = float(second)
        progress.update(1000 + 10 * second, "episodes 3", f"updates {second}", frames=800 * second)
    progress.note("saved")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines == [
        "steps 1300/12000  episodes 3  updates 30  frames/s 800  left 17:50",
        "saved",
        "steps 1400/12000  episodes 3  updates 40  frames/s 800  left 17:40",
    ]


def test_on_a_terminal_one_line_lives():
    clock, stream = Clock(), Terminal()
    progress = Progress(4, "updates", name="probe", stream=stream, clock=clock)
    for second in range(3):
        clock.now = float(second)
        progress.update(second)
    lines = stream.getvalue().split("\r")[1:]
    assert "\n" not in stream.getvalue() and lines == [
        "[                    ] probe  updates 0/4\x1b[K",
        "[=====               ] probe  updates 1/4  updates/s 1.0  left 0:03\x1b[K",
        "[==========          ] probe  updates 2/4  updates/s 1.0  left 0:02\x1b[K",
    ]
    progress.close()
    assert stream.getvalue().endswith("\n")


def test_short_work_prints_its_end_alone():
    stream = io.StringIO()
    assert list(track("abc", "letters", "reading", stream)) == ["a", "b", "c"]
    assert list(track("", "letters", "reading", stream)) == []
    assert stream.getvalue().startswith("reading  letters 3/3") and stream.getvalue().count("\n") == 1


def test_slow_pieces_are_averaged_over_more_than_a_minute():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(40, "episodes", stream=stream, every=0, clock=clock)
    for second in range(0, 1001, 10):
        clock.now = float(second)
        progress.update(second // 50, steps=second)
    # An episode takes 50 s: a minute holds one or two, and the time left would jump by half.
    assert stream.getvalue().splitlines()[-1].startswith("episodes 20/40  steps/s 1.0  left 1")
    seconds = [line.rpartition("left ")[2] for line in stream.getvalue().splitlines()[-5:]]
    assert all(15 * 60 <= 60 * int(m) + int(s) <= 18 * 60 for m, s in (text.split(":") for text in seconds))


def test_the_time_left_goes_by_what_takes_the_time():
    """Updates that are owed at the start hold the steps up: by steps, hours would be left."""
    clock, stream = Clock(), io.StringIO()
    progress = Progress(1_000, stream=stream, every=0, clock=clock)
    for second in range(100):
        clock.now = float(second)
        progress.update(2 if second > 50 else 1, last=8_000, frames=80 * second)
    assert stream.getvalue().splitlines()[-1] == "steps 2/1000  frames/s 80  left 0:01"
    assert stream.getvalue().splitlines()[10].endswith("left 1:30")


def test_speed_is_that_of_the_last_minute():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(101_000, stream=stream, every=0, clock=clock)
    for second in range(200):
        clock.now = float(second)
        progress.update(1000 * min(second, 100) + max(0, second - 100))
    # 1000 steps a second for 100 seconds, then 1: 901 are left
    assert stream.getvalue().splitlines()[-1] == "steps 100099/101000  steps/s 1.0  left 15:01"


def test_duration():
    assert [duration(seconds) for seconds in (0, 59.6, 250, 7450)] == ["0:00", "1:00", "4:10", "2:04:10"]
