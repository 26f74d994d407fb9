"""The table and the figure, of runs whose returns are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agent.logging.plots import PALETTE
from agent.runs.config import Config, save_config
from eval.ablate.comparison import Result, compare, plot, table
from eval.ablate.planned import PlannedRun
from eval.returns import metrics

MAZE = "MemoryMaze"  # random 0.2, human 26.4: 0.2 + 2.62 x is a normalized score of x / 10


def make(folder: Path, label: str, env: str, seed: int, ret: float) -> tuple[PlannedRun, list[Result]]:
    """A run whose episodes all have this return, as do half as many with memory reset."""
    run = PlannedRun(label, env, seed, folder / f"{env.replace(':', '-')}-{label}-s{seed}", (), 1000)
    run.folder.mkdir(parents=True)
    save_config(Config(env=env), run.folder / "config.yaml")
    rows = [{"step": s, "episode/return": ret * s / 1000} for s in range(50, 1001, 50)]
    rows += [{"step": 1000, "time/learn": 30.0 * (1 + seed), "updates": 10}]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    protocol = {"protocol": "returns-1", "episodes": 4, "actions": "sampled", "reset_memory_at": None}
    shared = protocol | {"parameters": {"worldmodel": 2_000_000, "agent": 500_000}}
    kept, reset = metrics([ret] * 4, env), metrics([ret / 2] * 4, env)
    return run, [shared | kept, shared | reset | {"reset_memory_at": 7}]


def test_one_environment(tmp_path: Path):
    means = {"good": (4.0, 6.0, 5.0, 9.0, 7.0), "poor": (1.0, 2.0, 5.0)}
    found = compare(dict(make(tmp_path, k, "SceneCut", seed, r) for k, v in means.items() for seed, r in enumerate(v)))
    good, poor = found["models"]["good"], found["models"]["poor"]
    assert found["score"] == "return" and "optimality_gap" not in good
    assert good["iqm"] == 6 and good["mean"] == pytest.approx(6.2) and poor["iqm"] == pytest.approx(8 / 3)
    assert good["memory_reset"]["iqm"] == 3 and found["reset_memory_at"] == 7
    assert good["iqm_interval"][0] < 6 < good["iqm_interval"][1]
    # pairs in which poor is better: 5 over 4, and 5 over 5 by half
    assert poor["improvement"]["probability"] == pytest.approx(1.5 / 15)
    assert good["by_step"]["at"][-1] == 1000 and good["by_step"]["iqm"][-1] == 6
    assert good["minutes"] == 1.5 and poor["minutes"] == 1.0  # medians of 0.5 to 2.5, and to 1.5
    assert good["by_second"]["at"][-1] == 30  # as far as the fastest goes
    lines = table(found).splitlines()
    row = next(line for line in lines if line.startswith("poor"))
    assert "2.667 [" in row and "0.100 [" in row and "2.50M" in row and "reset at 7" in lines[1]
    assert not any("fewer than three seeds" in line for line in lines)


def test_several_environments_are_normalized_and_seeds_are_whole(tmp_path: Path):
    other = f"{MAZE}:time_limit=60"
    runs = [make(tmp_path, "a", env, seed, 0.2 + 2.62 * x) for env, seed, x in [
        (MAZE, 0, 2), (other, 0, 6), (MAZE, 1, 4), (other, 1, 20), (MAZE, 2, 9),
    ]]  # fmt: skip
    found = compare(dict(runs))
    model = found["models"]["a"]
    assert found["score"] == "human-normalized return"
    assert model["seeds"] == [0, 1]  # the third failed on one
    assert np.array(model["scores"]) == pytest.approx(np.array([[0.2, 0.6], [0.4, 2.0]]))
    assert model["iqm"] == pytest.approx(0.5) and model["median"] == pytest.approx((0.3 + 1.3) / 2)
    assert model["optimality_gap"] == pytest.approx((0.8 + 0.4 + 0.6 + 0) / 4)
    assert model["by_step"]["iqm"][-1] == pytest.approx(0.5)
    assert "fewer than three seeds (a)" in table(found)


def test_without_a_whole_seed_there_is_nothing_to_compare(tmp_path: Path):
    runs = [make(tmp_path, "a", MAZE, 0, 1.0), make(tmp_path, "a", f"{MAZE}:time_limit=60", 1, 1.0)]
    assert compare(dict(runs)) == {"models": {}} == compare({})


def test_the_figure_has_a_colour_for_each_model(tmp_path: Path):
    labels = [f"model{index}" for index in range(7)]
    runs = [make(tmp_path, label, "SceneCut", s, i + s) for i, label in enumerate(labels) for s in range(3)]
    plot(compare(dict(runs)), tmp_path / "new" / "ablation.png")
    with Image.open(tmp_path / "new" / "ablation.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for colour in PALETTE:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - rgb) < 6).all(-1).sum() > 50
