"""The command: models trained and measured, resumed, compared again, and what it refuses."""

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from agent.runs.config import Config, load_config, save_config
from agent.runs.fields import ConfigError
from eval import retention
from eval.memory import episodes as episodes_of_mazes
from eval.report.sections import _by_view
from eval.retention import main
from replay import Episode, EpisodeBuilder, Replay, load_episode

SMALL = """--preset=debug --replay.batch_size 2 --replay.batch_length 16 --replay.curriculum-start 8
    --worldmodel.state-interval 8
    --worldmodel.d_model 32 --worldmodel.num_categoricals 16 --worldmodel.num_classes 8""".split()
IN_MAZES = [*SMALL, *"--worldmodel.latents categorical --worldmodel.tokenizer-updates 2".split()]
"""With `--policy waypoints` in mazes that end after fewer steps than walks have."""
POLICIES = ("out_and_back", "loops", "waypoints")
SHORT = "--data 6 --updates 4 --delays 2,4 --episodes 2".split()


def test_it_trains_measures_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
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

    # again: nothing is trained or measured anew; and from the folders alone
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
    monkeypatch.setattr(episodes_of_mazes, "STEPS", 60)
    env = ["--worldmodels", "lssvwm", "--env", "MemoryMaze:time_limit=60", "--out", str(tmp_path)]
    main([*env, "--policy", "waypoints", "--data", "1", "--updates", "2", "--episodes", "1", *IN_MAZES])
    (result,) = json.loads((tmp_path / "retention.json").read_text())
    assert result["retrieval"]["model"]["frames"] == 31 and result["reasoning"]["model"]["frames"] == 18
    assert result["loop_revisit"]["single"]["frames"] == 31
    assert set(result["views"]) <= {"1-15", "16-63", "64-255", "256-", "never"}
    said = capsys.readouterr().out
    assert "episodes: held out, MemoryMaze:time_limit=60\nprotocol actions: " in said
    assert "\nloop_revisit (loop revisit): further loops, imagined; protocol actions\n" in said
    kinds = said.split("PSNR of frames whose view was seen in the context, protocol actions\n")[1].splitlines()
    assert re.split(" {2,}", kinds[0].strip()) == ["replay", "loop revisit", "open-domain return"]
    assert [line.split("  ")[0] for line in kinds[1:6]] == [
        f"lssvwm-s0{name}" for name in ("", " single", " mode", " wiped", " reconstruction")
    ]
    assert (tmp_path / "retention.png").stat().st_size > 10_000
    assert all(row in _by_view(result) for row in ("retrieval, wiped", "loop_revisit, single", "reasoning, soon"))

    # the same run in another maze, on another walk, and on episodes without labels: files of their own
    run, before = tmp_path / "lssvwm-s0", (tmp_path / "lssvwm-s0" / "retention.json").read_bytes()
    small = [str(run), "--episodes", "1", "--out", str(tmp_path)]
    main([*small, "--test-env", "MemoryMaze-7x7:time_limit=60", "--walks", "random"])
    stored = json.loads((run / "retention-MemoryMaze-7x7-time_limit-60-random.json").read_text())
    assert stored["second_half"]["single"]["frames"] == 31 and "seen" in stored["second_half"]["mode"]["by_gap"]
    assert "episodes: random, MemoryMaze-7x7:time_limit=60" in capsys.readouterr().out
    (tmp_path / "one" / "episodes").mkdir(parents=True)
    without = replace(load_episode(next((tmp_path / "episodes").glob("*-train/*.npz"))), labels={})
    Replay(tmp_path / "one" / "episodes", 1000).add(without)
    main([*small, "--test-data", str(tmp_path / "one" / "episodes")])
    found = json.loads((run / "retention-one-episodes.json").read_text())["second_half"]
    assert "repeat" in found and not {"heading", "pose_kernel", "nearest_pose"} & set(found)
    assert set(found["model"]["by_gap"]) == {"all"} and "second_half (second half)" in capsys.readouterr().out
    assert (run / "retention.json").read_bytes() == before
    for option, value, words in [
        ("--test-env", "MemoryMaze:time_limit=60,pixels=32", "has observations (32, 32, 3), the run was trained on"),
        ("--test-data", str(tmp_path / "nowhere"), "nowhere is no folder of episodes"),
        ("--test-data", str(tmp_path / "episodes"), "episodes holds 0 episodes, not 1: give another --episodes"),
    ]:
        with pytest.raises(SystemExit) as error:
            main([*small, option, value])
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert error.value.code == 2 and words in line


def test_poses_and_exact_reversal(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episodes_of_mazes, "STEPS", 60)
    env = ["--worldmodels", "lssvwm", "--env", "MemoryMaze-7x7:time_limit=60", "--pose", "--out", str(tmp_path)]
    main([*env, "--policy", "waypoints", "--data", "2", "--updates", "2", "--episodes", "1", *IN_MAZES])
    (result,) = json.loads((tmp_path / "retention-pose.json").read_text())
    assert result["run"] == "lssvwm-pose-s0" and result["protocol"] == "poses"
    assert result["retrieval"]["model"]["frames"] == 30 and result["reasoning"]["model"]["frames"] == 18
    # every frame of the way back is one of the context
    assert result["retrieval"]["best_frame"]["psnr"] == result["retrieval"]["nearest_pose"]["psnr"] == 60
    assert "never" not in result["retrieval"]["model"]["by_gap"]
    said = capsys.readouterr().out
    assert "\nprotocol poses: poses are the conditions, and retrieval is the context in exact reverse order" in said
    assert "\nretrieval (exact reversal): the context in reverse, imagined; protocol poses\n" in said
    published = said.split("\npublished in arXiv 2505.20171, protocol poses; ")[1].splitlines()
    assert published[4].split() == "LSSVWM 0.898 / 30.8 0.855 / 28.2".split()

    run = tmp_path / "lssvwm-pose-s0"
    main([str(run), "--pose", "--walks", "random", "--episodes", "1", "--out", str(tmp_path)])
    assert json.loads((run / "retention-random-pose.json").read_text())["second_half"]["wiped"]["frames"] == 31
    for command, words in [
        ([str(run)], "(a run trained with --pose is measured with --pose)"),
        ([str(run_of(tmp_path / "new", "MemoryMaze")), "--pose"], "new has no whole checkpoint yet"),
    ]:
        with pytest.raises(SystemExit) as error:
            main([*command, "--out", str(tmp_path)])
        assert error.value.code == 1 and words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["--worldmodels", "lssvwn"], "unknown world model lssvwn: did you mean lssvwm?"),
        (["--worldmodels", "lssvwm", "--env", "gym:CartPole-v1"], "nothing in gym:CartPole-v1 is hidden"),
        (["--worldmodels", "lssvwm", "--worldmodel.d-modle", "3"], "did you mean --worldmodel.d-model"),
        (["nowhere"], "nowhere holds no run"),
        (["--worldmodels", "lssvwm", "--pose"], "--pose is for Memory Maze, not for ObjectRecall"),
        (["--worldmodels", "lssvwm", "--walks", "random"], "--walks is for Memory Maze, not for ObjectRecall"),
        (["--worldmodels", "lssvwm", "--env", "MemoryMaze", "--test-env", "SceneCut"], "--test-env is for Memory Maze"),
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
    assert "name runs, or --worldmodels to train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("--delays", "5,0"),
        ("--episodes", "-3"),
        ("--data", "0"),
        ("--updates", "0"),
        ("--seeds", "0,-1"),
        ("--decay-scale", "0"),
    ],
)
def test_numbers_are_checked_before_any_training(
    option: str, wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_train", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit) as error:
        main(["--worldmodels", "lssvwm", option, wrong, "--out", str(tmp_path / "out")])
    assert error.value.code == 2 and not (tmp_path / "out").exists()
    assert option in capsys.readouterr().err.splitlines()[-1]


def run_of(folder: Path, env: str = "ObjectRecall") -> Path:
    """A run folder as far as it is read where nothing is loaded or measured."""
    folder.mkdir(parents=True)
    save_config(Config(env=env), folder / "config.yaml")
    return folder


def test_decays_are_scaled_in_a_second_measurement(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--decay-scale", "0.25", "--out", str(tmp_path)]
    main(["--worldmodels", "lssvwm", *options, *SHORT, *SMALL])
    run = tmp_path / "lssvwm-s0"
    plain, slower = json.loads((tmp_path / "retention.json").read_text())
    assert (plain["run"], slower["run"]) == ("lssvwm-s0", "lssvwm-s0-decay0.25")
    assert plain["retention"] != slower["retention"]
    assert json.loads((run / "retention.json").read_text()) == plain
    assert json.loads((run / "retention-decay0.25.json").read_text()) == slower
    assert "lssvwm-s0-decay0.25" in capsys.readouterr().out
    main([str(run), "--out", str(tmp_path), *SHORT[4:]])
    assert json.loads((tmp_path / "retention.json").read_text()) == [plain]


def test_decays_of_a_model_without_them_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--worldmodels", "local", "--decay-scale", "0.25", "--out", str(tmp_path), *SHORT, *SMALL])
    assert "--decay-scale is of the scans of Mamba-2" in capsys.readouterr().err


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be trained, loaded and measured, in order."""
    done = []

    def train(arguments: argparse.Namespace, options: list[str], name: str, seed: int) -> Path:
        done.append(f"trained {name}-s{seed}")
        return run_of(arguments.out / f"{name}-s{seed}")

    def load(run: Path) -> tuple[Config, SimpleNamespace, int]:
        done.append(f"loaded {run.name}")
        return load_config(run / "config.yaml"), SimpleNamespace(model=torch.nn.Linear(1, 1)), 4

    def measure(*_: object) -> dict[str, dict[str, float]]:
        done.append("measured")
        return {moment: {"kl": 1.0, "psnr": 20.0} for moment in ("return", "just_seen", "reset")}

    monkeypatch.setattr(retention, "_train", train)
    monkeypatch.setattr(retention, "load_run", load)
    monkeypatch.setattr(retention.recall, "measure", measure)
    return done


def test_each_run_is_loaded_once_and_measured_as_soon_as_it_is_trained(tmp_path: Path, steps: list[str]) -> None:
    train = ["--worldmodels", "gru,s5", "--env", "ObjectRecall"]
    main([str(run_of(tmp_path / "old")), *train, "--delays", "2", "--out", str(tmp_path)])
    each = [["trained gru-s0", "loaded gru-s0", "measured"], ["trained s5-s0", "loaded s5-s0", "measured"]]
    assert steps == ["loaded old", "measured", *each[0], *each[1]]


def test_labels_are_names_without_the_seed(tmp_path: Path, steps: list[str]) -> None:
    runs = [str(run_of(tmp_path / name)) for name in ("gru-small", "gru-slow", "gru-slow-s0", "gru-s12")]

    def labels() -> list[str]:
        main([*runs, "--delays", "2", "--out", str(tmp_path)])
        return [result["label"] for result in json.loads((tmp_path / "retention.json").read_text())]

    assert labels() == ["gru-small", "gru-slow", "gru-slow", "gru"]
    # results that were stored under another label are not measured anew
    stored = json.loads((tmp_path / "gru-small" / "retention.json").read_text())
    (tmp_path / "gru-small" / "retention.json").write_text(json.dumps(stored | {"label": "gru"}))
    assert labels()[0] == "gru-small" and steps.count("measured") == 4


def test_one_figure_is_of_one_environment(tmp_path: Path, steps: list[str], capsys: pytest.CaptureFixture) -> None:
    one, other = (str(run_of(tmp_path / env, env)) for env in ("ObjectRecall", "SceneCut"))
    for command in ([one, other], [one, "--worldmodels", "gru", "--env", "SceneCut"]):
        with pytest.raises(SystemExit) as error:
            main([*command, "--out", str(tmp_path)])
        assert error.value.code == 2 and not steps
        (said,) = capsys.readouterr().err.splitlines()
        assert "ObjectRecall" in said and "SceneCut" in said
    # each delay is measured in its turn, whatever the training's
    far = str(run_of(tmp_path / "far", "ObjectRecall:delay=2..50"))
    main([one, far, "--delays", "2", "--out", str(tmp_path)])
    assert steps.count("measured") == 2


def episode() -> Episode:
    builder = EpisodeBuilder(2)
    builder.first(np.zeros((8, 8, 3), np.uint8))
    builder.add(1, np.zeros((8, 8, 3), np.uint8), 0.0, True)
    return builder.finish()


def add(env: str, episodes: int, policy: str, folder: Path, **_: object) -> None:
    """In place of `replay.collect.collect`."""
    replay = Replay(folder, 1000)
    for _ in range(replay.episodes, episodes):
        replay.add(episode())


def test_as_many_episodes_are_measured_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes_of_mazes, "collect", add)
    monkeypatch.setattr(retention, "check_fit", lambda *_: None)
    monkeypatch.setattr(retention.maze, "continued", lambda learner, episodes, share: len(episodes))
    monkeypatch.setattr(retention.maze, "by_view", lambda learner, episodes: len(episodes))
    for n in (3, 2, 3):
        found = retention._in_maze(None, "MemoryMaze", n, asked(tmp_path))
        assert found == {"retrieval": n, "loop_revisit": n, "reasoning": n, "views": 2 * n}


@pytest.mark.parametrize("env", ["MemoryMaze", "ObjectRecall:delay=2"])
def test_more_episodes_than_to_train_on_are_refused(env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes_of_mazes, "collect", add)
    every = retention._episodes(env, asked(tmp_path, data=3, policy="waypoints"))[0]
    assert len(Replay(every, 1000)) == 3
    with pytest.raises(ConfigError, match="holds 3 episodes, not 2: give another --out, or --data 3"):
        retention._episodes(env, asked(tmp_path, data=2, policy="waypoints"))


def asked(out: Path, **given: object) -> argparse.Namespace:
    """Of what is measured in mazes."""
    return argparse.Namespace(**{"out": out, "test_env": None, "walks": None, "test_data": None, "pose": False} | given)


def test_mazes_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = []

    def collect(env: str, n: int, policy: str, folder: Path, **_: object) -> None:
        folders.append((env, folder.name))
        add(env, n, policy, folder)

    monkeypatch.setattr(episodes_of_mazes, "collect", collect)
    monkeypatch.setattr(retention, "check_fit", lambda *_: None)
    for task in ("continued", "by_view"):
        monkeypatch.setattr(retention.maze, task, lambda *_: {})
    retention._in_maze(None, "MemoryMaze", 1, asked(tmp_path))
    retention._in_maze(None, "MemoryMaze", 1, asked(tmp_path, test_env="MemoryMaze-11x11"))
    retention._in_maze(None, "MemoryMaze", 1, asked(tmp_path, walks="random"))
    assert folders == [
        *((env, f"{env}-{policy}-test") for env in ("MemoryMaze", "MemoryMaze-11x11") for policy in POLICIES),
        ("MemoryMaze", "MemoryMaze-random-test"),
    ]


@pytest.mark.parametrize(
    "policy, of",
    [
        ("walks", "MemoryMaze-walks"),
        ("waypoints", "MemoryMaze-waypoints"),
        ("loops", "MemoryMaze-loops"),
        ("repeated_out_and_back", "MemoryMaze-repeated_out_and_back"),
    ],
)
def test_each_policy_has_folders_of_its_own(
    policy: str, of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected = []
    monkeypatch.setattr(episodes_of_mazes, "collect", lambda env, n, *given, **_: collected.append((n, *given)))
    given = asked(tmp_path, data=9, policy=policy)
    train, held_out = retention._episodes("MemoryMaze", given)
    assert collected == [(9, policy, train), (4, policy, held_out)]
    assert (train.name, held_out.name) == (f"{of}-train", f"{of}-val")


def test_policies_of_mazes_are_refused_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--worldmodels", "lssvwm", "--policy", "repeated_out_and_back", "--out", str(tmp_path)])
    assert error.value.code == 2
    assert capsys.readouterr().err.startswith(
        "--policy repeated_out_and_back is for Memory Maze, not for ObjectRecall:delay=2..50"
    )


def test_episodes_of_another_origin_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    add("", 1, "", tmp_path / "episodes" / "MemoryMaze-walks-train")
    with pytest.raises(SystemExit) as error:
        main(
            [
                "--worldmodels",
                "lssvwm",
                "--env",
                "MemoryMaze",
                "--no-match-parameters",
                "--out",
                str(tmp_path),
                *IN_MAZES,
            ]
        )
    assert error.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "MemoryMaze-walks-train holds episodes of another origin" in said
