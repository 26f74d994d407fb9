"""A new run starts from a language model's scans; a resumed or loaded run does not need that file."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Mamba2Config, Mamba2ForCausalLM

from agent.runs import presets
from agent.runs.cli import parse
from agent.runs.config import Config
from agent.runs.fields import ConfigError
from agent.runs.folder import open_run
from agent.training.learner import Learner, check
from agent.training.load import load_run
from agent.training.offline import train_offline
from replay import Episode, Replay

ROOT = Path(__file__).parents[3]
RUN = "--env gym:CartPole-v1 --preset debug --steps 200 --train.save-every 100 --train.eval-every 200".split()


def configured(folder: Path, source: Path) -> Config:
    config = presets.apply("debug", "vector", Config(env="gym:CartPole-v1", run_dir=str(folder)))
    config.train.precision = "float32"
    config.worldmodel.pretrained = str(source)
    return config


def saved(config: Config, folder: Path, **options: int) -> Mamba2ForCausalLM:
    """A language model whose layers fit the configuration's."""
    c = config.worldmodel
    sizes = dict(hidden_size=c.d_model, state_size=c.d_state, expand=c.expand, head_dim=c.headdim)
    sizes |= dict(num_heads=c.expand * c.d_model // c.headdim, n_groups=1, num_hidden_layers=4, vocab_size=64)
    torch.manual_seed(1)
    model = Mamba2ForCausalLM(Mamba2Config(**(sizes | options)))
    model.save_pretrained(folder)
    return model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One episode of noise."""
    random = np.random.default_rng(0)
    action = np.eye(2, dtype=np.float32)[random.integers(0, 2, 60)]
    action[0] = 0
    observation = random.random((60, 4), dtype=np.float32)
    Replay(tmp_path / "data", 1000).add(Episode(observation, action, np.zeros(60, np.float32), np.zeros(60, bool)))
    return tmp_path / "data"


def scan_weight(learner: Learner, name: str) -> torch.Tensor:
    return learner.model.state_dict()[f"backbone.layers.0.mixers.0.layer.{name}"]


def test_the_file_is_needed_once(tmp_path: Path, data: Path) -> None:
    folder, source = tmp_path / "run", tmp_path / "lm"
    config = configured(folder, source)
    layer = saved(config, source).backbone.layers[0].mixer
    learner = Learner(config, (4,), 2)
    assert not torch.equal(scan_weight(learner, "in_proj.weight"), layer.in_proj.weight)
    said = learner.init_weights()
    assert said is not None and said.startswith("pretrained: layers 0..") and f"of 4 from {source}" in said
    assert torch.equal(scan_weight(learner, "in_proj.weight"), layer.in_proj.weight)

    check(config)
    open_run(config)
    lines = io.StringIO()
    train_offline(config, folder, data, 2, stream=lines)
    assert lines.getvalue().splitlines()[0] == said
    (source / "model.safetensors").unlink()
    check(config)
    lines = io.StringIO()
    trained = train_offline(config, folder, data, 4, stream=lines)
    assert trained.updates == 4 and "pretrained" not in lines.getvalue()
    _, loaded, step = load_run(folder)
    assert step == 4
    assert torch.equal(scan_weight(loaded, "in_proj.weight"), scan_weight(trained, "in_proj.weight"))


def test_a_run_that_has_not_begun_needs_the_file(tmp_path: Path, data: Path) -> None:
    config = configured(tmp_path / "run", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="nowhere: no such file"):
        check(config)
    open_run(config)
    with pytest.raises(ConfigError, match="nowhere: no such file"):
        train_offline(config, tmp_path / "run", data, 2)


def test_a_run_from_nothing_takes_nothing() -> None:
    assert Learner(configured(Path("unused"), Path()), (4,), 2).config.worldmodel.pretrained == "."
    assert Learner(presets.apply("debug", "vector", Config()), (4,), 2).init_weights() is None


def command(folder: Path, source: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "train_agent.py", *RUN, "--run-dir", str(folder), "--worldmodel.pretrained", str(source)]
    return subprocess.run(words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, capture_output=True)


def test_the_command_says_what_it_took(tmp_path: Path) -> None:
    saved(parse([*RUN, "--run-dir", str(tmp_path / "run")]), tmp_path / "lm")
    done = command(tmp_path / "run", tmp_path / "lm")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("pretrained: ")]
    assert len(lines) == 1 and f"of 4 from {tmp_path / 'lm'}: " in lines[0]


def test_the_command_refuses_before_it_makes_a_folder(tmp_path: Path) -> None:
    saved(parse([*RUN, "--run-dir", str(tmp_path / "run")]), tmp_path / "lm", state_size=24)
    done = command(tmp_path / "run", tmp_path / "lm")
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "--worldmodel.d_state 24 would fit" in done.stderr
    assert not (tmp_path / "run").exists()


def test_segments_are_whole_blocks_and_may_change_in_a_resumed_run(tmp_path: Path) -> None:
    words = [*RUN, "--run-dir", str(tmp_path / "run")]
    block = parse(words).worldmodel.state_interval
    with pytest.raises(ConfigError, match=rf"remat_frames \({block + 1}\) must be 0 or a multiple of .* \({block}\)"):
        parse([*words, "--worldmodel.remat-frames", str(block + 1)])
    open_run(parse(words))
    open_run(parse([*words, "--worldmodel.remat-frames", str(2 * block)]))
    assert parse(words).worldmodel.remat_frames == 2 * block
