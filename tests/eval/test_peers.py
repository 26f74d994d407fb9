"""The benchmark beside another package: its arguments, the lines between the processes, and the peer's environment.

A stand-in of a few lines answers in the peer's place: nothing is installed.
"""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from agent.runs.fields import ConfigError
from eval.bench import peer_process, peers
from eval.bench.peer_process import PeerProcess, default_folder, installed, torch_version
from eval.benchmark import main

STAND_IN = """
import json, sys
given = json.loads(sys.stdin.readline())
starts = given["batch"] * given["frames"]
about = {"parameters": given["parameters"], "threads": given["threads"], "width": 8, "imagined": f"{starts} x 15"}
print(json.dumps(about | {"precision": "float32", "torch": "0.0", "version": "0", "given": given}), flush=True)
for line in sys.stdin:
    assert json.loads(line) == "update"
    print(json.dumps({"seconds": 0.5}), flush=True)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    script = tmp_path / "peer.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(peers, "SCRIPT", script)
    monkeypatch.setattr(peers, "installed", lambda requirement, folder: Path(sys.executable))
    monkeypatch.setattr(peers, "WARM_UP", 1)
    return f"peers --preset debug --batch 2 --frames 16 --threads 1 --rounds 2 --venv {tmp_path}"


def test_each_number_of_starts_in_each_precision_beside_the_peer(stand_in, capsys):
    threads = torch.get_num_threads()
    main([*stand_in.split(), "--starts", "4", "32", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert torch.get_num_threads() == threads

    peer = result["peer"]
    assert peer["seconds_per_update"] == 0.5 and peer["frames_per_s"] == 64 and peer["imagined"] == "32 x 15"
    shape = {"batch": 2, "frames": 16, "pixels": 64, "actions": 6, "threads": 1}
    assert peer["given"] == shape | {"parameters": result["ours"][0]["parameters"]}

    rows = [(row["starts"], row["state_interval"], row["precision"]) for row in result["ours"]]
    assert rows == [(4, 8, "bfloat16"), (4, 8, "float32"), (32, 1, "bfloat16"), (32, 1, "float32")]
    assert len({row["parameters"] for row in result["ours"]}) == 1
    for row in result["ours"]:
        assert row["frames_per_s"] * row["seconds_per_update"] == pytest.approx(32)
        assert row["ratio"] > 0
    assert set(result["gemm_peak_gflop_per_s"]) == {"bfloat16", "float32"}
    peers.print_table(result)
    assert len(capsys.readouterr().out.splitlines()) == 3 + 1 + 4


def test_parameters_of_the_peer_can_be_asked_for(stand_in, capsys):
    main([*stand_in.split(), "--starts", "4", "--peer-parameters", "1234", "--json"])
    assert json.loads(capsys.readouterr().out)["peer"]["parameters"] == 1234


def test_the_peer_and_ours_take_turns(monkeypatch):
    order = []
    peer = SimpleNamespace(ask=lambda message: order.append(message) or {"seconds": 1.0})
    ours = [peers.Variant(1, "float32", 1, 1, lambda name=name: order.append(name)) for name in "ab"]
    monkeypatch.setattr(peers, "gemm_peak", lambda *_: 1e9)
    monkeypatch.setattr(peers, "WARM_UP", 0)
    pairs, peaks = peers._measure(peer, ours, rounds=2)
    assert order == ["update", "a", "update", "b"] * 2
    assert [len(times) for times in pairs.values()] == [2, 2] and peaks["float32"] == [1e9, 1e9]


@pytest.mark.parametrize("starts, interval", [(1, 16), (32, 16), (33, 8), (128, 4), (500, 1), (512, 1)])
def test_states_stand_as_far_apart_as_starts_allow(starts, interval):
    assert peers.state_interval(starts, 8, 64, "cpu") == interval


def test_more_starts_than_frames_are_refused_before_anything_is_installed(monkeypatch, capsys):
    monkeypatch.setattr(peers, "installed", None)
    with pytest.raises(SystemExit) as error:
        main(["peers", "--starts", "32", "513"])
    assert error.value.code == 2
    assert capsys.readouterr().err == "--starts 513: a window of 8 x 64 has 512 frames\n"


def test_a_peer_that_ends_says_why(tmp_path):
    words = "import sys; sys.stdin.readline(); sys.exit('no such algorithm')"
    with PeerProcess([sys.executable, "-c", words], tmp_path) as peer:
        with pytest.raises(ConfigError, match="the peer's process ended: no such algorithm"):
            peer.ask("update")


def test_the_peer_ends_with_the_benchmark(tmp_path):
    with PeerProcess([sys.executable, "-c", "import sys; sys.stdin.read()"], tmp_path) as peer:
        process = peer._process
        assert process.poll() is None
    assert process.poll() is not None


@pytest.fixture
def pip(monkeypatch):
    """Commands of pip, which are not run; environments are empty folders with a file in Python's place."""
    commands = []

    def create(folder, clear, with_pip):
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin" / "python").touch()

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, commands[0] == "fail", "", "Looking\nERROR: no network\n")

    monkeypatch.setattr(peer_process.venv, "create", create)
    monkeypatch.setattr(peer_process.subprocess, "run", run)
    return commands


def test_an_environment_is_made_once(pip, tmp_path, capsys):
    folder = tmp_path / "peer"
    assert installed("thing==1", folder) == folder / "bin" / "python"
    assert [command[-1] for command in pip] == [f"torch=={torch_version()}", "thing==1"]
    assert len(capsys.readouterr().err.splitlines()) == 1
    installed("thing==1", folder)
    assert len(pip) == 2 and not capsys.readouterr().err
    installed("thing==2", folder)
    assert len(pip) == 4 and pip[-1][-1] == "thing==2"


def test_a_half_made_environment_is_made_anew(pip, tmp_path):
    pip.append("fail")
    with pytest.raises(ConfigError, match=r"pip install torch==\S+ failed: ERROR: no network"):
        installed("thing==1", tmp_path / "peer")
    pip.clear()
    installed("thing==1", tmp_path / "peer")
    assert len(pip) == 2


def test_a_folder_of_other_things_is_kept(pip, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds other things"):
        installed("thing==1", tmp_path)
    assert (tmp_path / "thesis.tex").exists() and not pip


def test_environments_lie_in_the_cache_by_versions(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder("thing==1") == tmp_path / "lssvwm" / f"thing-1-torch-{torch_version()}"
