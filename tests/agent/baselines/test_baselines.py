"""PPO and RecurrentPPO by the same command: folder, steps, evaluation and resuming."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

import envs
import train_agent
from agent.baselines.frame_stack import FrameStack
from agent.baselines.ppo import BASELINES, READ, is_unread
from agent.baselines.same_step import SameStepEnvs
from agent.baselines.sb3_env import Sb3Envs
from agent.baselines.sb3_policy import Player, policy, restore
from agent.logging.sinks import read_metrics
from agent.runs import presets
from agent.runs.checkpoint import load, load_latest
from agent.runs.cli import one_line_errors, parse
from agent.runs.config import Config, agent_config, load_config
from agent.runs.fields import ConfigError, fields
from agent.runs.flatten import CheckpointError
from agent.training.load import load_policy, load_run
from eval import plot, returns

CARTPOLE = "--env gym:CartPole-v1 --agent ppo --preset debug --train.device cpu"
RECALL = "ObjectRecall-Choice:delay=4,shown=2,back=2"


def train(line: str, folder: Path) -> None:
    train_agent.main([*line.split(), "--run-dir", str(folder)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 224 steps, resumed to 416."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(f"{CARTPOLE} --steps 200", folder)
    first = read_metrics(folder / "metrics.jsonl")
    train(f"{CARTPOLE} --steps 400", folder)
    assert read_metrics(folder / "metrics.jsonl")[: len(first)] == first
    return folder


def test_the_folder_of_a_resumed_run(run: Path):
    rows = read_metrics(run / "metrics.jsonl")
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)
    ended = [row for row in rows if "episode/return" in row]
    # CartPole pays 1 a step: lengths are returns, and steps of whole episodes are no more than all steps
    assert all(row["episode/return"] == row["episode/length"] for row in ended)
    assert 300 < sum(row["episode/length"] for row in ended) <= 416
    assert [row["step"] for row in rows if "eval/return" in row] == [224, 416]
    assert any("agent/loss/policy" in row and row["time/learn"] > 0 for row in rows)
    checkpoints = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert checkpoints == ["step-000000224", "step-000000416"]
    assert (run / "plots/returns.png").read_bytes()[:4] == b"\x89PNG"


def test_resuming_continues_training(run: Path):
    (_, before, then), (_, after, now) = (load(run / f"checkpoints/step-000000{step}") for step in (224, 416))
    assert then["updates"] == 7 and now["updates"] == 13  # a rollout is 2 * 16 steps, gone through once
    # one minibatch an update: Adam has counted every one, those before the resumption too
    assert {float(after[name]) for name in after if name.endswith("/step")} == {13.0}
    weights = [name for name in before if name.startswith("policy/") and name.endswith("weight")]
    moved = [float((after[name] - before[name]).abs().max()) for name in weights]
    assert 0 < max(moved) < 0.03  # six steps at a rate of 1e-3, not another network


def test_a_finished_run_has_nothing_to_do(run: Path, capsys: pytest.CaptureFixture[str]):
    before = {path: path.stat().st_mtime_ns for path in (run / "checkpoints").rglob("*")}
    train(CARTPOLE, run)
    assert "nothing to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (run / "checkpoints").rglob("*")} == before


def test_the_config_holds_what_is_read_and_no_more(run: Path):
    tree = yaml.safe_load((run / "config.yaml").read_text())
    assert "worldmodel" not in tree and "replay" not in tree
    assert set(tree["train"]) == {name.removeprefix("train.") for name in READ}
    assert tree["agent"]["name"] == "ppo" and tree["train"]["eval_every"] == 200
    assert load_config(run / "config.yaml") == parse([*CARTPOLE.split(), "--steps", "400", "--run-dir", str(run)])


def test_evaluation_and_plot_take_the_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    returns.main([str(run), "--episodes", "4", "--json"])
    first = capsys.readouterr().out
    returns.main([str(run), "--episodes", "4", "--json"])
    assert capsys.readouterr().out == first
    measured = returns.stored(run, returns.Protocol(episodes=4))
    assert measured is not None and measured["agent"] == "ppo" and measured["worldmodel"] is None
    assert measured["lengths"] == measured["returns"]
    # 4 -> 64 -> 64 for policy and for value, then 2 and 1
    assert measured["parameters"] == {"agent": 2 * (4 * 64 + 64 + 64 * 64 + 64) + (64 * 2 + 2) + (64 + 1)}
    plot.main([str(run), "--out", str(tmp_path / "returns.png")])
    assert (tmp_path / "returns.png").exists()


def test_the_policy_that_is_loaded_is_the_one_that_was_saved(run: Path):
    """Its most likely actions, against the network written out."""
    found = load_latest(run / "checkpoints")
    assert found is not None
    w = {name.removeprefix("policy/"): tensor for name, tensor in found[1].items()}
    observation = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    x = torch.from_numpy(observation)
    for layer in (0, 2):
        x = torch.tanh(
            x @ w[f"mlp_extractor.policy_net.{layer}.weight"].T + w[f"mlp_extractor.policy_net.{layer}.bias"]
        )
    logits = x @ w["action_net.weight"].T + w["action_net.bias"]
    player = load_policy(run).policy(64, True)
    np.testing.assert_array_equal(player(observation, np.ones(64, bool), {}), logits.argmax(-1).numpy())


def test_a_baseline_has_no_world_model_to_look_at(run: Path):
    with pytest.raises(ConfigError, match="was trained by ppo: it has no world model"):
        load_run(run)


def test_another_networks_weights_are_refused(run: Path):
    found = load_latest(run / "checkpoints")
    assert found is not None
    other = policy(replace(agent_config("ppo"), hidden=32), Box(-1, 1, (4,)), Discrete(2))
    with pytest.raises(CheckpointError, match="is \\(64, 4\\), expected \\(32, 4\\)"):
        restore(other, found[1])


@pytest.mark.parametrize("agent", ["ppo", "recurrent-ppo"])
def test_images(agent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Frames of 32 pixels, which the usual network is too large for, stacked or remembered."""
    options = "--preset debug --steps 64 --train.eval-every 64 --train.device cpu"
    train(f"--env {RECALL} --agent {agent} {options}", tmp_path / "run")
    found = load_latest(tmp_path / "run/checkpoints")
    assert found is not None and found[0] == 64
    channels = found[1]["policy/features_extractor.cnn.0.weight"].shape[1]
    assert channels == (12 if agent == "ppo" else 3)
    assert any("lstm" in name for name in found[1]) == (agent == "recurrent-ppo")
    returns.main([str(tmp_path / "run"), "--episodes", "2", "--reset-memory-at", "4"])
    assert "memory reset at frame 4" in capsys.readouterr().out


def test_memory_begins_anew_with_an_episode():
    config = replace(agent_config("recurrent-ppo"), lstm_hidden_size=8)
    torch.manual_seed(0)
    made = policy(config, Box(-np.inf, np.inf, (3,)), Box(-10, 10, (2,)))
    made.action_net.weight.data *= 100  # which begins a hundred times smaller than the rest
    rows = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    firsts = np.zeros((6, 2), bool)
    firsts[0], firsts[3, 1] = True, True
    player, late = Player(made, config, True), Player(made, config, True)
    acted = [player(row, first, {}) for row, first in zip(rows, firsts, strict=True)]
    fresh = [
        late(row, first, {}) for row, first in zip(rows[3:], firsts[3:] | (np.arange(3) == 0)[:, None], strict=True)
    ]
    np.testing.assert_allclose(acted[5][1], fresh[2][1], atol=1e-5)
    assert np.abs(acted[5][0] - fresh[2][0]).max() > 1e-3  # that one's episode went on: it remembers more


@pytest.mark.parametrize("name", ["gym:CartPole-v1", "gym:Pendulum-v1"])
def test_environments_are_to_sb3_what_its_own_are(name: str):
    """Against DummyVecEnv, over ends of both kinds: CartPole falls, Pendulum's 200 steps run out."""
    ours = Sb3Envs(SameStepEnvs(name, 2))
    theirs = DummyVecEnv([lambda: envs.make(name)] * 2)
    try:
        ours.seed(5)
        theirs.seed(5)
        np.testing.assert_array_equal(ours.reset(), theirs.reset())
        ours.action_space.seed(0)
        ended = 0
        for _ in range(210):
            action = np.stack([ours.action_space.sample() for _ in range(2)])
            got, wanted = ours.step(action), theirs.step(action)
            for a, b in zip(got[:3], wanted[:3], strict=True):
                np.testing.assert_array_equal(a, b)
            for i in np.flatnonzero(got[2]):
                ended += 1
                assert got[3][i]["TimeLimit.truncated"] == wanted[3][i]["TimeLimit.truncated"] == ("Pend" in name)
                np.testing.assert_array_equal(got[3][i]["terminal_observation"], wanted[3][i]["terminal_observation"])
        assert ended >= 2
    finally:
        ours.close()
        theirs.close()


def test_environments_that_wait_a_step_to_reset_are_refused():
    environments: VectorEnv = envs.make_vector("gym:CartPole-v1", 1)
    try:
        with pytest.raises(ValueError, match="SAME_STEP"):
            Sb3Envs(environments)
    finally:
        environments.close()


def test_frames_are_stacked_as_in_training():
    """Against VecFrameStack, over the ends of episodes."""
    environments = DummyVecEnv([lambda: envs.make(RECALL)] * 2)
    stacked, ours = VecFrameStack(environments, 3, channels_order="last"), FrameStack(3)
    observation, first = stacked.reset(), np.ones(2, bool)
    ends = 0
    for _ in range(20):
        np.testing.assert_array_equal(ours(observation[..., -3:], first), observation)
        observation, _, first, _ = stacked.step(np.zeros(2, int))
        ends += int(first.sum())
    assert ends >= 4


def test_presets_speak_of_fields_that_baselines_read():
    obs_types: tuple[presets.ObsType, ...] = ("image", "vector")
    for name in BASELINES:
        known = {field for field in fields(Config(agent=agent_config(name))) if not is_unread(field)}
        assert known >= presets.VECTORS.keys()
        for preset in presets.PRESETS:
            for obs_type in obs_types:
                assert known >= presets.MODEL_FREE[preset, obs_type].keys()
                config = presets.apply(preset, obs_type, Config(agent=agent_config(name)))
                assert config.agent.learning_rate == (1e-3 if obs_type == "vector" else 2.5e-4)
                assert config.worldmodel == Config().worldmodel  # of no use, and so left as it is


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--agent pppo", "unknown agent pppo: did you mean ppo?"),
        ("--agent ppo --agent.horizon 3", "--agent.horizon is not read by ppo: dreamer reads it"),
        (
            "--agent ppo --envs 3 --agent.batch_size 256",
            "agent.batch_size (256) must divide envs * agent.n_steps (3 * 128",
        ),
        ("--agent ppo --agent.gamma 1.5", "agent.gamma is a share: at most 1, got 1.5"),
    ],
)
def test_a_wrong_command_is_one_line(line: str, message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit), one_line_errors():
        parse(line.split())
    err = capsys.readouterr().err
    assert err.startswith(message) and err.count("\n") == 1


def test_another_agent_in_the_same_folder_is_refused(run: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        train(CARTPOLE.replace("--agent ppo", "--agent dreamer"), run)
    assert "made with --agent ppo, this command says --agent dreamer" in capsys.readouterr().err


def test_a_folder_is_named_after_the_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    train_agent.main([*CARTPOLE.split(), "--steps", "32", "--seed", "3"])
    assert load_latest(Path("runs/gym-CartPole-v1-ppo-s3/checkpoints")) is not None


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sb3_contrib" else find(name))
    with pytest.raises(SystemExit) as stop:
        train_agent.main(CARTPOLE.split())
    assert stop.value.code == 2
    assert capsys.readouterr().err == "--agent ppo needs sb3_contrib: pip install -e '.[baselines]'\n"
