"""The figure of returns: drawn for full, young, empty and damaged runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import envs
from agent.logging.plots import PALETTE, REFERENCES, draw_returns, plot_returns, references, running_mean
from agent.runs.config import Config, save_config
from eval.plot import main


def make_run(folder: Path, returns: list[float], env: str = "MemoryMaze") -> Path:
    folder.mkdir(parents=True)
    save_config(Config(env=env), folder / "config.yaml")
    rows: list[dict] = [{"step": 0, "loss": 1.0}]
    for index, value in enumerate(returns):
        rows.append({"step": 100 * index, "episode/return": value, "episode/length": 100})
        if index % 4 == 3:
            rows.append({"step": 100 * index, "eval/return": value, "eval/return_std": 0.5})
    rows.append({"step": 9_999, "episode/return": None, "eval/return": None})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "to')
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(image.astype(int) - colour) < 12).all(-1).any())


BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


def test_several_runs_stand_in_one_figure_in_their_own_colours(tmp_path: Path, capsys):
    one = make_run(tmp_path / "a/run", [0.0, 1.0, 2.0, 3.0, 2.0])
    two = make_run(tmp_path / "b/run", [5.0] * 12)
    out = tmp_path / "new folder/returns.png"
    main([str(one), str(two), "--out", str(out)])
    image = pixels(out)
    assert has_colour(image, BLUE) and has_colour(image, ORANGE)
    assert capsys.readouterr().out == f"{out}\n"
    assert [path.name for path in out.parent.iterdir()] == ["returns.png"]


def test_a_single_run_keeps_its_figure_in_its_folder(tmp_path: Path):
    run = make_run(tmp_path / "run", [1.0] * 5)
    main([str(run)])
    image = pixels(run / "plots/returns.png")
    assert has_colour(image, BLUE) and not has_colour(image, ORANGE)


@pytest.mark.parametrize("returns", [[], [0.0], [0.0] * 8, [30.0] * 8, [-500.0, -200.0, -150.0, -140.0]])
def test_any_returns_can_be_drawn(tmp_path: Path, returns: list[float]):
    run = make_run(tmp_path / "run", returns)
    plot_returns([run], tmp_path / "out.png")
    assert pixels(tmp_path / "out.png").std() > 0


def test_a_run_without_a_readable_config_is_drawn_without_references(tmp_path: Path):
    run = make_run(tmp_path / "run", [1.0] * 5)
    (run / "config.yaml").write_text("{")
    plot_returns([run], tmp_path / "out.svg")
    assert "<svg" in (tmp_path / "out.svg").read_text()


def test_a_figure_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(tmp_path / "run", [1.0] * 5)
    out = tmp_path / "out.png"
    plot_returns([run], out)
    before = out.read_bytes()

    def torn(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", torn)
    with pytest.raises(OSError, match="disk full"):
        plot_returns([run], out)
    assert out.read_bytes() == before and sorted(path.name for path in tmp_path.iterdir()) == [
        "out.png",
        "run",
    ]


@pytest.mark.parametrize("arguments", [["nowhere"], ["{run}", "--out", "{run}/returns.nonsense"]])
def test_what_cannot_be_drawn_is_one_line(tmp_path: Path, arguments: list[str], capsys):
    run = make_run(tmp_path / "run", [1.0])
    with pytest.raises(SystemExit) as stop:
        main([argument.format(run=run) for argument in arguments])
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_the_axis_reaches_down_to_a_random_policy(tmp_path: Path):
    run = make_run(tmp_path / "run", [-9.0, -6.0, -3.0, -2.0], "Atari/Pong")
    axes = Figure().add_subplot()
    draw_returns(axes, "Atari/Pong", {0: run})
    assert axes.get_ylim()[0] < -20.7


def test_running_mean():
    assert running_mean(np.array([2.0, 4.0, 6.0, 8.0]), 2).tolist() == [2, 3, 5, 7]
    assert running_mean(np.array([]), 2).tolist() == []


def test_references_are_of_environments_that_exist():
    for name in REFERENCES:
        envs.check_name(name)


@pytest.mark.parametrize(
    ("env", "random"),
    [
        ("Atari/Pong:flicker=0.5", -20.7),
        ("MemoryMaze", 0.2),
        ("MemoryMaze:size=9x9", 0.2),
        ("MemoryMaze:size=7x7", 0.25),
        ("MemoryMaze:size=5x5|9x9", None),
        ("MemoryMaze:action_repeat=2", None),
        ("gym:Pendulum-v1", -1197),
        ("gym:CartPole-v1", None),
        ("Atari/Nothing", None),
    ],
)
def test_references_by_name_with_options_and_without(env: str, random: float | None):
    assert references(env).get("random") == random


def test_each_environment_has_a_panel_of_its_own(tmp_path: Path):
    small, large = (make_run(tmp_path / name, [1.0] * 8, name) for name in ("MemoryMaze", "ObjectRecall"))
    twice = make_run(tmp_path / "again", [1.0] * 8, "ObjectRecall")
    plot_returns([large, twice], tmp_path / "one.png")
    plot_returns([small, large, twice], tmp_path / "two.png")
    one, two = pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png")
    assert two.shape[1] > one.shape[1]
    left, right = two[:, : two.shape[1] // 2], two[:, two.shape[1] // 2 :]
    assert has_colour(left, BLUE) and not has_colour(left, ORANGE)  # one run
    assert has_colour(right, BLUE) and has_colour(right, ORANGE)  # two


def test_runs_whose_colour_comes_again_are_dashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[Figure] = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path: (drawn.append(figure), path.touch()))
    plot_returns([make_run(tmp_path / str(i), [1.0] * 8) for i in range(len(PALETTE) + 1)], tmp_path / "out.png")
    lines = drawn[0].axes[0].get_lines()
    styles = {str(line.get_label()): (line.get_color(), line.get_linestyle()) for line in lines}
    for part in ("training", "evaluation"):
        assert styles[f"0: {part}"] == (PALETTE[0], "-")
        assert styles[f"{len(PALETTE)}: {part}"] == (PALETTE[0], "--")
