"""What is not here is refused before it is stored, and a run of another machine is looked at all the same."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train_agent
from agent.runs import machine
from agent.runs.cli import parse
from agent.runs.config import Config, load_config, save_config
from agent.runs.fields import ConfigError
from agent.runs.folder import open_run
from agent.training import online
from agent.training.load import load_policy, load_run
from tests.eval.play_runs import made

ROOT = Path(__file__).parents[3]
CARTPOLE = "--env gym:CartPole-v1 --preset debug --run-dir run"


@pytest.fixture(autouse=True)
def in_an_empty_folder_without_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cards(monkeypatch, 0)


def cards(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


def on(device: str) -> Config:
    return parse([*CARTPOLE.split(), "--train.device", device])


ABSENT = [
    ("--train.device cuda", "--train.device cuda: no such CUDA device on this machine, which has 0: "),
    ("--train.device cuda:1", "--train.device cuda:1: no such CUDA device on this machine, which has 0: "),
    ("--wandb offline", "--wandb offline needs a package: "),
    ("--tensorboard True", "--tensorboard True needs a package: "),
]


@pytest.mark.parametrize(("words", "message"), ABSENT)
def test_the_command_refuses_what_is_not_here_before_it_stores_it(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for there in (False, True):
        if there:
            open_run(parse(CARTPOLE.split()))
        with pytest.raises(SystemExit) as stop:
            train_agent.main([*CARTPOLE.split(), *words.split()])
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.startswith(message) and err.count("\n") == 1
        with pytest.raises(ConfigError):
            open_run(parse([*CARTPOLE.split(), *words.split()]))
        assert Path("run").exists() == there
    assert parse(CARTPOLE.split()).train.device == "auto"


def test_a_run_of_another_machine_is_opened_as_it_is(monkeypatch: pytest.MonkeyPatch):
    """`eval.ablate` opens runs that are done; who trains in them is asked for the device."""
    cards(monkeypatch, 1)
    folder = open_run(on("cuda"))
    cards(monkeypatch, 0)
    open_run(parse(CARTPOLE.split()))
    assert load_config(folder / "config.yaml").train.device == "cuda"
    open_run(on("cpu"))


def test_which_devices_there_are(monkeypatch: pytest.MonkeyPatch):
    cards(monkeypatch, 2)
    assert [machine.has_device(name) for name in ("auto", "cpu", "cuda", "cuda:1", "cuda:2")] == [True] * 4 + [False]


def test_one_card_for_all_of_torchruns_processes_is_refused(monkeypatch: pytest.MonkeyPatch):
    cards(monkeypatch, 2)
    machine.check(on("cuda:1"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    machine.check(on("cuda"))
    with pytest.raises(ConfigError, match="^--train.device cuda:1 is one card for all of torchrun's processes"):
        machine.check(on("cuda:1"))


def test_a_run_of_a_machine_with_a_card_is_looked_at_without_one():
    run = made(Path("run"), "gym:CartPole-v1")
    config = load_config(run / "config.yaml")
    config.train.device = "cuda:1"
    save_config(config, run / "config.yaml")
    config, learner, step = load_run(run)
    assert (config.train.device, learner.device.type, step) == ("auto", "cpu", 7)
    assert load_policy(run).step == 7
    assert load_config(run / "config.yaml").train.device == "cuda:1"


def test_a_run_that_would_end_before_it_trains_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    trained = []
    monkeypatch.setattr(online, "train", lambda config, _: trained.append(config.steps))
    with pytest.raises(SystemExit) as stop:
        train_agent.main([*CARTPOLE.split(), "--steps", "100"])
    assert stop.value.code == 2 and not Path("run").exists()
    assert capsys.readouterr().err == "steps (100) must be more than train.prefill (100), after which training begins\n"
    train_agent.main([*CARTPOLE.split(), "--steps", "101"])
    Path("run/checkpoints/step-000000101").mkdir()
    train_agent.main([*CARTPOLE.split(), "--steps", "50"])  # has nothing to do, and says so
    assert trained == [101, 50]


FREED = """
import resource, torch
from agent.runs import machine

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

machine.configure_threads(2)
faults()
print(torch.get_num_threads(), faults())
machine.configure_threads(0)
print(torch.get_num_threads())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory as it likes")
def test_memory_that_was_freed_is_used_again() -> None:
    """64 MB are 16,384 pages, or 32 huge ones; unless kept, each would be made anew, four times."""
    done = subprocess.run([sys.executable, "-c", FREED], cwd=ROOT, capture_output=True, text=True, check=True)
    threads, faults, left = map(int, done.stdout.split())
    assert threads == left == 2 and faults < 16
