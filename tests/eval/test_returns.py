"""The protocol: what it measures, what forgetting does to it, and where the figures are kept."""

import json
from pathlib import Path

import numpy as np
import pytest

import envs
import train_agent
from agent.runs.config import Config
from agent.training.evaluation import play
from envs.recall.drawing import PALETTE, classify_frame, patches
from eval import returns
from eval.human_normalized import normaliser

CHOICE = "ObjectRecall-Choice:delay=4,shown=2,back=2"  # frames 0 1 shown, 2 to 5 gone, 6 the choice
GAP = 4


class Rememberer:
    """Picks the patch of the colour that it saw when it was last told that an episode begins."""

    def __init__(self) -> None:
        self.colour = np.zeros(2, int)

    def __call__(self, observation: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        self.colour[is_first] = classify_frame(observation / 255)[0][is_first]
        return np.array([self.pick(frame, colour) for frame, colour in zip(observation, self.colour, strict=True)])

    def gather_boundaries(self, frame: np.ndarray, colour: int) -> int:
        return int(np.argmax([(frame[patch] == PALETTE[colour]).all(-1).mean() for patch in patches(32, 4)]))


def test_forgetting_in_the_gap_costs_what_memory_is_worth():
    environments = envs.make_vector(CHOICE, 2)
    try:
        kept, wiped, later = (
            np.mean([episode.ret for episode in play(Rememberer(), environments, 120, forget)])
            for forget in (None, GAP, 100)
        )
    finally:
        environments.close()
    assert kept > 0.9 and later == kept
    assert wiped == pytest.approx(0.25, abs=0.12)  # chance; three standard deviations of 120 episodes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train_agent.main(["--env", CHOICE, "--preset", "debug", "--steps", "120", "--run-dir", str(folder)])
    return folder


def test_the_figures_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]):
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
    assert "normalised" not in stored and "normalised" not in printed

    # the same command, the same figures
    returns.main([*command, "--json"])
    assert json.loads(capsys.readouterr().out) == stored | {"command": stored["command"] + " --json"}


def test_controls_are_kept_apart(run: Path, capsys: pytest.CaptureFixture[str]):
    returns.main([str(run), "--episodes", "4"])
    before = (run / "eval.json").read_bytes()
    returns.main([str(run), "--episodes", "4", "--reset-memory-at", str(GAP), "--greedy"])
    assert "memory wiped at frame 4" in capsys.readouterr().out
    assert (run / "eval.json").read_bytes() == before
    assert json.loads((run / "eval-forget-4.json").read_text())["actions"] == "greedy"

    # what is stored stands for the same protocol alone
    assert returns.measured(run, returns.Protocol(episodes=4)) == json.loads(before)
    assert returns.measured(run, returns.Protocol(episodes=5)) is None
    assert returns.measured(run, returns.Protocol(episodes=4, actions="greedy")) is None
    assert returns.measured(run, returns.Protocol(episodes=4, forget=2)) is None


def test_runs_do_not_share_their_luck():
    """Untrained policies are all uniform: with one seed for all, every run would have the same returns."""
    seeds = {returns.sampling_seed(Config(env=env, seed=seed)) for env in (CHOICE, "SceneCut") for seed in range(5)}
    assert len(seeds) == 10


@pytest.mark.parametrize("words", [["--episodes", "0"], ["--envs", "0"], ["--reset-memory-at", "0"]])
def test_wrong_numbers_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        returns.main(["run", *words])
    assert stop.value.code == 2 and words[0] in capsys.readouterr().err


def test_normalised_scores():
    scores = np.array([0.2, 26.4, 26.4, 26.4])
    found = returns.figures(scores, "MemoryMaze:time_limit=60")["normalised"]
    assert found["mean"] == pytest.approx(0.75) and found["iqm"] == pytest.approx(1)
    assert found["mean_interval"][0] < 0.75 < found["mean_interval"][1]
    assert normaliser("MemoryMaze-11x11") is None  # nobody published a random policy's returns
    assert normaliser("gym:CartPole-v1") is None and normaliser("Atari/Tutankham") is None
    pong = normaliser("Atari/Pong:flicker=0.5")
    assert pong is not None and pong(-20.7) == 0 and pong(14.6) == pytest.approx(1)
