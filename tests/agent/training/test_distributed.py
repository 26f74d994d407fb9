"""Two processes on one machine, as torchrun starts them: one model, two shares of experience."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from agent.runs import checkpoint
from agent.training import distributed

AVERAGE = """
import json, sys, torch
from agent.training import distributed
distributed.begin()
mine = [torch.full((2, 2), float(1 + distributed.rank())), torch.arange(3.0) * (1 - distributed.rank())]
distributed.all_mean(mine)
shared = torch.tensor([5.0 + distributed.rank()])
distributed.broadcast([shared])
found = [distributed.processes(), mine[0].unique().tolist(), mine[1].tolist(), shared.item(),
         distributed.all_sum(3 + distributed.rank()), distributed.all_min(-distributed.rank()),
         distributed.all_equal(4), distributed.all_equal(distributed.rank())]
with open(f"{sys.argv[1]}/{distributed.rank()}.json", "w") as file:
    json.dump(found, file)
distributed.end()
"""


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    """Two processes under torchrun, on a port of their own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_what_processes_do_together(tmp_path: Path):
    script = tmp_path / "average.py"
    script.write_text(AVERAGE)
    torchrun(str(script), str(tmp_path))
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found == [2, [1.5], [0.0, 0.5, 1.0], 5.0, 7, -1, True, False]


def test_one_process_alone_does_nothing():
    tensor = torch.ones(2)
    distributed.all_mean([tensor])
    distributed.broadcast([tensor])
    assert tensor.tolist() == [1, 1] and distributed.all_sum(3) == 3 and distributed.processes() == 1
    assert distributed.own_folder(Path("a")) == Path("a") and distributed.own_seed(7) == 7


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that was taken up again once."""
    folder = tmp_path_factory.mktemp("run")
    for steps in ("240", "400"):
        options = {"env": "gym:CartPole-v1", "preset": "debug", "run-dir": str(folder), "steps": steps}
        torchrun("train_agent.py", *(f"--{name}={value}" for name, value in options.items()))
    return folder


def test_processes_keep_one_model(run: Path):
    first, second = (checkpoint.load_latest(folder / "checkpoints") for folder in (run, run / "processes" / "1"))
    assert first is not None and second is not None and first[0] == second[0] >= 400
    names = [name for name in first[1] if name.startswith(("model/", "agent/", "model_optimizer/"))]
    assert len(names) > 50 and first[2]["updates"] == second[2]["updates"] > 20
    for name in names:
        torch.testing.assert_close(first[1][name], second[1][name], rtol=0, atol=0, msg=name)


def test_processes_meet_different_episodes(run: Path):
    first, second = ({path.name for path in (folder / "episodes").iterdir()} for folder in (run, run / "processes/1"))
    assert first and second and first != second
    assert (run / "plots" / "returns.png").exists() and not (run / "processes/1/plots/returns.png").exists()
