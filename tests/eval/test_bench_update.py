"""The update benchmark counts real work and says what it measured."""

import pytest
import torch

from eval.bench.timing import gemm_peak
from eval.bench.update import bench_update, print_table


def test_the_figures_agree_with_each_other(capsys):
    result = bench_update("debug", repeats=1, batch=2, frames=16)
    assert result["frames_per_s"] * result["seconds_per_update"] == pytest.approx(2 * 16)
    share = result["gflop_per_update"] / result["seconds_per_update"] / result["gemm_peak_gflop_per_s"]
    assert abs(result["share_of_gemm_peak"] - share) < 1e-9
    # the frames' matrix products alone are more than this; a forward pass that was not counted would fall below
    assert result["gflop_per_update"] > 0.1
    print_table(result)
    assert "frames_per_s" in capsys.readouterr().out


def test_the_peak_is_that_of_a_matrix_product():
    assert 1e9 < gemm_peak(torch.device("cpu"), torch.float32, size=256) < 1e15


def test_the_world_model_alone_is_less_work():
    both, model = (bench_update("debug", repeats=1, batch=1, frames=16, part=part) for part in ("all", "model"))
    assert model["gflop_per_update"] < both["gflop_per_update"] and model["parameters"] < both["parameters"]
