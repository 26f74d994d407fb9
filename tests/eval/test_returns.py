"""The protocol: what it measures, what a reset of memory does to it, and where the results are."""

import json
from pathlib import Path

import numpy as np
import pytest

import train_agent
from agent.runs.config import Config
from agent.training.evaluation import evaluate
from envs.recall.drawing import PALETTE, classify_frame, patches
from eval import returns

CHOICE = "ObjectRecall-Choice:delay=4,shown=2,back=2"  # frames 0 1 shown, 2 to 5 gone, 6 the choice
GAP = 4


class Rememberer:
    """Chooses the patch of the colour that it observed at the last `is_first`."""

    def __init__(self, n: int) -> None:
        self.colour = np.zeros(n, int)

    def __call__(self, observation: np.ndarray, is_first: np.ndarray, info: dict) -> np.ndarray:
        self.colour[is_first] = classify_frame(observation / 255)[0][is_first]
        return np.array([self.choose(frame, colour) for frame, colour in zip(observation, self.colour, strict=True)])

    def choose(self, frame: np.ndarray, colour: int) -> int:
        return int(np.argmax([(frame[patch] == PALETTE[colour]).all(-1).mean() for patch in patches(32, 4)]))


def test_a_reset_in_the_gap_costs_what_memory_is_worth():
    kept, reset, later = (
        np.mean([episode.ret for episode in evaluate(Rememberer, CHOICE, 120, 2, reset_memory_at)])
        for reset_memory_at in (None, GAP, 100)
    )
    assert kept > 0.9 and later == kept
    assert reset == pytest.approx(0.25, abs=0.12)  # chance; three standard deviations of 120 episodes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train_agent.main(["--env", CHOICE, "--preset", "debug", "--steps", "120", "--run-dir", str(folder)])
    return folder


def test_the_results_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]):
    command = [str(run), "--episodes", "12"]
    returns.main(command)
    printed = capsys.readouterr().out
    stored = json.loads((run / "eval.json").read_text())
    assert stored["protocol"] == "returns-1" and stored["seed"] == 1_000_000 and stored["step"] >= 120
    assert stored["command"] == "python -m eval.returns " + " ".join(command)
    assert len(stored["returns"]) == stored["episodes"] == 12 and stored["lengths"] == [8] * 12
    assert set(stored["returns"]) <= {0.0, 1.0}
    assert stored["mean"] == pytest.approx(sum(stored["returns"]) / 12)
    low, high = stored["mean_interval"]
    assert low <= stored["mean"] <= high and f"mean {stored['mean']:.3f} [{low:.3f}, {high:.3f}]" in printed
    assert stored["parameters"]["worldmodel"] > stored["parameters"]["agent"] > 0
    assert "human_normalized" not in stored and "normalized" not in printed

    # the same command, the same results
    returns.main([*command, "--json"])
    assert json.loads(capsys.readouterr().out) == stored | {"command": stored["command"] + " --json"}


def test_controls_are_kept_apart(run: Path, capsys: pytest.CaptureFixture[str]):
    returns.main([str(run), "--episodes", "4"])
    before = (run / "eval.json").read_bytes()
    returns.main([str(run), "--episodes", "4", "--reset-memory-at", str(GAP), "--greedy"])
    assert "memory reset at frame 4" in capsys.readouterr().out
    assert (run / "eval.json").read_bytes() == before
    assert json.loads((run / "eval-reset-memory-at-4.json").read_text())["actions"] == "greedy"

    # what is stored stands for the same protocol alone
    assert returns.stored(run, returns.Protocol(episodes=4)) == json.loads(before)
    assert returns.stored(run, returns.Protocol(episodes=5)) is None
    assert returns.stored(run, returns.Protocol(episodes=4, actions="greedy")) is None
    assert returns.stored(run, returns.Protocol(episodes=4, reset_memory_at=2)) is None


def test_runs_do_not_share_their_luck():
    """Untrained policies are all uniform: with one seed for all, every run would have the same returns."""
    seeds = {returns.sampling_seed(Config(env=env, seed=seed)) for env in (CHOICE, "SceneCut") for seed in range(5)}
    assert len(seeds) == 10


@pytest.mark.parametrize("words", [["--episodes", "0"], ["--envs", "0"], ["--reset-memory-at", "0"]])
def test_wrong_numbers_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        returns.main(["run", *words])
    assert stop.value.code == 2 and words[0] in capsys.readouterr().err


def test_human_normalized_scores():
    found = returns.metrics([0.2, 26.4, 26.4, 26.4], "MemoryMaze:time_limit=60")["human_normalized"]
    assert found["mean"] == pytest.approx(0.75) and found["iqm"] == pytest.approx(1)
    assert found["mean_interval"][0] < 0.75 < found["mean_interval"][1]
    assert returns.human_normalizer("MemoryMaze-11x11") is None  # nobody published a random policy's returns
    assert returns.human_normalizer("gym:CartPole-v1") is None and returns.human_normalizer("Atari/Tutankham") is None
    pong = returns.human_normalizer("Atari/Pong:flicker=0.5")
    assert pong is not None and pong(-20.7) == 0 and pong(14.6) == pytest.approx(1)
