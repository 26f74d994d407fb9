"""The benchmarks' command line, and that what they compare is measured and named; no time is asserted."""

import json
import os
import subprocess
import sys
from unittest.mock import patch

import pytest
import torch
from matplotlib.axes import Axes

from eval.bench import history, passes, scaling
from eval.bench.timing import gemm_peak, medians, peak_memory, reset_peak
from eval.bench.update import bench_update, print_table
from eval.benchmark import main

CPU = torch.device("cpu")


def test_scaling_has_every_model_and_length(tmp_path, capsys):
    words = "scaling --models lssvwm transformer --lengths 16 32 --rounds 1"
    main([*words.split(), "--json", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.png")])
    assert "us/frame" in capsys.readouterr().out
    result = json.loads((tmp_path / "s.json").read_text())
    assert result["frames"] == 32 and "torch" in result["hardware"] and result["kernel"] == "pure torch"
    for name in ("lssvwm", "transformer"):
        assert list(result["models"][name]) == ["16", "32"]
        assert all(row["us_per_frame"] > 0 and row["kb_per_frame"] > 0 for row in result["models"][name].values())
    assert (tmp_path / "s.png").stat().st_size > 1000


@pytest.mark.parametrize("what, counts", [("dream", ["1", "32"]), ("act", ["1", "8", "64"])])
def test_cost_by_history(what, counts, capsys):
    main([what, "--preset", "debug", "--histories", "64", "128", "--rounds", "1", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert list(result["ms_per_frame"]) == counts
    for row in result["ms_per_frame"].values():
        assert all(ms > 0 for ms in row.values())


def test_states_are_of_their_histories():
    """They differ, and are as large after many frames as after few."""
    _, states = history.states_after("lssvwm", (64, 192), "debug")
    assert list(states) == [64, 192]
    assert (states[64]["h"] - states[192]["h"]).abs().max() > 0
    assert states[64].bytes() == states[192].bytes()


def test_full_attention_is_left_out_where_it_would_take_minutes(monkeypatch):
    monkeypatch.setattr(scaling, "FULL_ATTENTION_MOST", 16)
    table = scaling.bench_scaling(["lssvwm", "transformer"], [16, 32], rounds=1)["models"]
    assert list(table["transformer"]) == [16] and list(table["lssvwm"]) == [16, 32]


def test_medians_take_turns():
    order = []
    took = medians({name: lambda name=name: order.append(name) for name in "ab"}, CPU, rounds=3)
    assert order == list("ab" * 4) and set(took) == {"a", "b"}


def test_the_peak_is_that_since_it_was_reset():
    before = reset_peak(CPU)
    x = torch.ones(50_000_000)  # 0.2 GB
    high = peak_memory(CPU)
    assert high - before > 0.19
    del x
    assert reset_peak(CPU) < high - 0.15


def test_remat_has_every_window_and_segment(capsys):
    main("remat --windows 1x32 2x16 --segments 0 16 --size 32 --rounds 1".split())
    assert "KB/frame" in capsys.readouterr().out
    main("remat --windows 2x16 --segments 0 16 --size 32 --rounds 1 --json".split())
    rows = json.loads(capsys.readouterr().out)["windows"]["2x16"]
    assert list(rows) == ["0", "16"] and all(row["us_per_frame"] > 0 for row in rows.values())


@pytest.mark.parametrize(
    "words",
    [
        "remat --windows 1x16 foo",
        "remat --windows 0x16",
        "remat --segments 0 7",
        "remat --segments -16",
        "remat --size 33",
        "dream --histories 65",
        "scaling --plot figure",
    ],
)
def test_refusals_are_one_line_before_anything_is_measured(words, monkeypatch, capsys):
    for module in (passes, history):
        monkeypatch.setattr(module, "medians", _never)
    with pytest.raises(SystemExit) as error:
        main(words.split())
    assert error.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(words.split()[1])


@pytest.mark.parametrize(
    "words",
    ["update --repeats 0", "update --batch 0", "dream --rounds 0", "scaling --lengths 16 -5", "envs --steps 0"],
)
def test_numbers_are_of_1_or_more(words, capsys):
    with pytest.raises(SystemExit) as error:
        main(words.split())
    _, option, *numbers = words.split()
    assert error.value.code == 2
    said = f"error: argument {option}: want a whole number of 1 or more, not '{numbers[-1]}'"
    assert capsys.readouterr().err.splitlines()[-1].endswith(said)


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_folders_are_made_before_anything_is_measured(option, tmp_path, monkeypatch, capsys):
    (tmp_path / "file.png").touch()
    monkeypatch.setattr(passes, "medians", _never)
    for path in (tmp_path / "file.png" / "x.png", tmp_path):
        with pytest.raises(SystemExit) as error:
            main(["scaling", option, str(path)])
        assert error.value.code == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(f"{option} {path}")
    with pytest.raises(AssertionError, match="measured"):
        main(["scaling", option, str(tmp_path / "none" / "x.png")])
    assert (tmp_path / "none").is_dir()


def _never(*_):
    raise AssertionError("measured")


def test_every_model_is_drawn(tmp_path):
    rows = {64: {"us_per_frame": 1.0, "kb_per_frame": 1.0}}
    with patch.object(Axes, "plot", autospec=True, side_effect=Axes.plot) as plot:
        scaling.plot({"models": dict.fromkeys("abcdefgh", rows)}, tmp_path / "s.png")
    assert [call.kwargs["label"] for call in plot.call_args_list] == [*"abcdefgh"] * 2


def test_waiting_threads_leave_the_cores_to_others() -> None:
    """Read when torch is imported."""
    words = "import eval, os, sys; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    given = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", words], env=given, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10000", "False"]


def test_the_metrics_of_an_update_agree_with_each_other(capsys):
    result = bench_update("debug", repeats=1, batch=2, frames=16)
    assert result["frames_per_s"] * result["seconds_per_update"] == pytest.approx(2 * 16)
    share = result["gflop_per_update"] / result["seconds_per_update"] / result["gemm_peak_gflop_per_s"]
    assert abs(result["share_of_gemm_peak"] - share) < 1e-9
    # the frames' matrix products alone are more than this; a forward pass that was not counted would fall below
    assert result["gflop_per_update"] > 0.1
    print_table(result)
    assert "frames_per_s" in capsys.readouterr().out


def test_a_tokenizer_that_was_taught_first_costs_less():
    joint, first = (
        bench_update("debug", repeats=1, batch=1, frames=16, part="model", model="lssvwm-delta", tokenizer=tokenizer)
        for tokenizer in ("joint", "first")
    )
    assert first["gflop_per_update"] < joint["gflop_per_update"] and first["parameters"] < joint["parameters"]


def test_the_peak_is_that_of_a_matrix_product():
    assert 1e9 < gemm_peak(CPU, torch.float32, size=256) < 1e15


def test_the_world_model_alone_is_less_work():
    both, model = (bench_update("debug", repeats=1, batch=1, frames=16, part=part) for part in ("all", "model"))
    assert model["gflop_per_update"] < both["gflop_per_update"] and model["parameters"] < both["parameters"]
