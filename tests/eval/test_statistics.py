"""Statistics against published numbers of Atari 100k, scipy's own, and what must hold of any scores."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats

from eval import statistics

DATA = json.loads((Path(__file__).parents[1] / "data/atari100k_scores.json").read_text())
SCORES = arrays(
    float, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(-50, 50).map(lambda n: n / 4)
)
FEW = settings(max_examples=40)


def normalised(method: str) -> np.ndarray:
    """(5 runs, 26 games), human-normalised."""
    games, random, human = DATA["runs"][method], DATA["random"], DATA["human"]
    columns = [(np.array(games[g]) - random[g]) / (human[g] - random[g]) for g in games]
    return np.stack(columns, -1)


@pytest.mark.parametrize(
    ("method", "mean", "median", "iqm", "gap"),
    [  # the tables of DIAMOND (arXiv 2405.12399) and IRIS (arXiv 2209.00588)
        ("DIAMOND", 1.459, 0.373, 0.641, 0.480),
        ("IRIS", 1.046, 0.289, 0.501, 0.512),
        ("SimPLe", 0.332, 0.134, 0.130, 0.729),
    ],
)
def test_published_aggregates(method: str, mean: float, median: float, iqm: float, gap: float):
    scores = normalised(method)
    assert scores.shape == (5, 26)
    assert statistics.mean(scores) == pytest.approx(mean, abs=6e-4)
    assert statistics.median(scores) == pytest.approx(median, abs=6e-4)
    assert statistics.iqm(scores) == pytest.approx(iqm, abs=6e-4)
    assert statistics.optimality_gap(scores) == pytest.approx(gap, abs=6e-4)


def test_published_methods_in_order():
    diamond, iris, simple = map(normalised, ("DIAMOND", "IRIS", "SimPLe"))
    for statistic in (statistics.iqm, statistics.mean):
        low, high = statistics.interval(statistic, diamond)
        assert low < statistic(diamond) < high
    assert statistics.interval(statistics.iqm, simple)[1] < statistics.interval(statistics.iqm, iris)[0]
    low, high = statistics.interval(statistics.probability_of_improvement, diamond, simple)
    assert 0.5 < low < statistics.probability_of_improvement(diamond, simple) < high < 1


@given(SCORES, SCORES)
@FEW
def test_probability_of_improvement_is_mann_whitney(x: np.ndarray, y: np.ndarray):
    tasks = min(x.shape[1], y.shape[1])
    x, y = x[:, :tasks], y[:, :tasks]
    u = [stats.mannwhitneyu(a, b).statistic for a, b in zip(x.T, y.T, strict=True)]
    forth, back = statistics.probability_of_improvement(x, y), statistics.probability_of_improvement(y, x)
    assert forth == pytest.approx(np.mean(u) / (len(x) * len(y)))
    assert forth + back == pytest.approx(1)
    assert statistics.probability_of_improvement(x, x) == pytest.approx(0.5)
    assert statistics.probability_of_improvement(x + 100, y) == 1


@given(SCORES, st.randoms(use_true_random=False))
@FEW
def test_aggregates_of_any_scores(scores: np.ndarray, random):
    shuffled = scores.copy()
    runs, tasks = list(range(len(scores))), list(range(scores.shape[1]))
    random.shuffle(tasks)
    for task in tasks:  # runs of different tasks have nothing to do with each other
        random.shuffle(runs)
        shuffled[:, task] = shuffled[runs, task]
    shuffled = shuffled[:, tasks]
    for statistic in (statistics.mean, statistics.median, statistics.iqm):
        value = statistic(scores)
        assert scores.min() - 1e-9 <= value <= scores.max() + 1e-9
        assert statistic(shuffled) == pytest.approx(value)
        assert statistic(3 * scores + 2) == pytest.approx(3 * value + 2)
        low, high = statistics.interval(statistic, scores, resamples=200)
        assert scores.min() - 1e-9 <= low <= high <= scores.max() + 1e-9
    assert statistics.optimality_gap(scores, scores.max()) == pytest.approx(scores.max() - scores.mean())
    assert statistics.optimality_gap(scores, scores.min()) == pytest.approx(0)


@given(SCORES)
@FEW
def test_the_interval_contains_the_point(scores: np.ndarray):
    for statistic in (statistics.mean, statistics.iqm):
        low, high = statistics.interval(statistic, scores, resamples=1000)
        assert low - 1e-9 <= statistic(scores) <= high + 1e-9


def test_the_middle_half_by_hand():
    scores = np.array([[-1e6, 3.0, 5.0, 1e6], [2.0, 4.0, 6.0, 7.0]])  # sorted: -1e6 2 | 3 4 5 6 | 7 1e6
    assert statistics.iqm(scores) == 4.5


def test_intervals_are_scipys_and_shrink_with_runs():
    scores = np.random.default_rng(0).gamma(2.0, size=(30, 1))
    theirs = stats.bootstrap((scores[:, 0],), np.mean, method="percentile", n_resamples=9_999, rng=1)
    ours = statistics.interval(statistics.mean, scores, resamples=9_999)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), rel=0.02)
    few = statistics.interval(statistics.mean, scores[:5])
    assert few[1] - few[0] > ours[1] - ours[0]
    assert statistics.interval(statistics.mean, scores) == statistics.interval(statistics.mean, scores)


def test_resampling_stays_within_tasks():
    """Runs that agree on each task leave nothing uncertain, however far apart the tasks are."""
    scores = np.tile([0.0, 10.0, 50.0], (4, 1))
    assert statistics.interval(statistics.mean, scores) == pytest.approx((20.0, 20.0))


@pytest.mark.parametrize("scores", [np.zeros((0, 1)), np.zeros(3), np.array([[np.nan]])])
def test_what_is_no_table_of_scores_is_refused(scores: np.ndarray):
    with pytest.raises(ValueError, match="runs, tasks"):
        statistics.interval(statistics.iqm, scores)


def test_a_curve_is_the_statistic_at_each_point():
    scores = np.random.default_rng(0).normal(size=(4, 2, 7)) + np.arange(7)
    points, low, high = statistics.curve(scores, resamples=300)
    for i in range(7):
        assert points[i] == statistics.iqm(scores[..., i])
        assert (low[i], high[i]) == statistics.interval(statistics.iqm, scores[..., i], resamples=300)
    assert (low <= points).all() and (points <= high).all()


def test_values_on_a_common_grid():
    steps, values = np.array([3, 10, 11, 20, 41]), np.array([1.0, 2.0, 4.0, 6.0, 8.0])
    found = statistics.on_grid(np.array([2, 10, 20, 30, 40, 50]), steps, values)
    np.testing.assert_array_equal(found, [np.nan, 1.5, 5.0, 5.0, 5.0, 8.0])
    assert np.isnan(statistics.on_grid(np.array([1, 2]), np.array([]), np.array([]))).all()
