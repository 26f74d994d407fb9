"""Baselines in worlds of which the right answer is known by hand."""

import numpy as np
import pytest
import torch

from agent.logging.predictions import psnr
from eval.memory import predictors
from replay import Episode

STEPS = 9
"""Frames of a lap: 40 degrees each."""


def ring_world(laps: str) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Frames and labels of laps on an inner ("i") and an outer ("o") ring, the agent facing along the ring.

    The image is random by angle, the same on both rings; the inner ring's is 0.05 darker, the outer's 0.05 brighter.
    A heading thus determines all but the ring.
    """
    angle = np.arange(STEPS) * 2 * np.pi / STEPS
    direction = np.stack([-np.sin(angle), np.cos(angle)], -1)
    image = np.random.default_rng(0).choice(np.float32([0.2, 0.8]), (STEPS, 8, 8, 3))
    radius, shade = {"i": 2.0, "o": 4.0}, {"i": -0.05, "o": 0.05}
    place = np.stack([np.cos(angle), np.sin(angle)], -1)
    labels = {
        "agent_pos": np.concatenate([radius[lap] * place for lap in laps]),
        "agent_dir": np.concatenate([direction] * len(laps)),
    }
    return torch.from_numpy(np.concatenate([image + np.float32(shade[lap]) for lap in laps])), labels


def corridor(x: list[float], directions: list[tuple[float, float]] | None = None) -> torch.Tensor:
    """Poses on a line, facing east unless directions are given."""
    labels = {
        "agent_pos": np.array([(at, 0.0) for at in x]),
        "agent_dir": np.array(directions or [(1.0, 0.0)] * len(x)),
    }
    return predictors.poses(labels)


def grey(values: list[float]) -> torch.Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 4, 4, 3)


@pytest.fixture(scope="module")
def ring():
    """Inner, outer, inner and outer lap as context, then the inner ring again."""
    frames, labels = ring_world("ioioi")
    context = 4 * STEPS
    return frames, labels, context, predictors.predictions(frames, labels, context)


def test_every_baseline_predicts_frames(ring):
    frames, _, context, found = ring
    assert list(found) == ["repeat", "mean", "heading", "nearest_pose", "pose_kernel", "best_frame"]
    assert all(predicted.shape == frames[context:].shape for predicted in found.values())


def test_without_poses_frames_alone_are_read(ring):
    frames, _, context, found = ring
    alone = predictors.predictions(frames, {}, context)
    assert list(alone) == ["repeat", "mean", "best_frame"]
    assert all(torch.equal(predicted, found[name]) for name, predicted in alone.items())


def test_repeat_and_mean(ring):
    frames, _, context, found = ring
    assert torch.equal(found["repeat"][5], frames[context - 1])
    torch.testing.assert_close(found["mean"][5], frames[:context].mean(0))


def test_a_heading_alone_mixes_the_places(ring):
    frames, _, context, found = ring
    # the mean of both rings at this angle: 0.05 too bright in every pixel, which is 26 dB
    torch.testing.assert_close(found["heading"], frames[context:] + 0.05, atol=0.01, rtol=0)
    assert psnr(found["heading"], frames[context:]).mean() == pytest.approx(26, abs=0.3)


@pytest.mark.parametrize("name", ["nearest_pose", "best_frame"])
def test_copies_are_exact_on_the_same_path(ring, name):
    frames, _, context, found = ring
    assert torch.equal(found[name], frames[context:])


def test_a_pose_kernel_separates_the_rings(ring):
    frames, _, context, found = ring
    assert psnr(found["pose_kernel"], frames[context:]).min() > 40


def test_best_frame_bounds_every_copy():
    random = torch.Generator().manual_seed(0)
    context, truth = torch.rand(30, 8, 8, 3, generator=random), torch.rand(20, 8, 8, 3, generator=random)
    best = psnr(predictors.best_frame(context, truth), truth)
    every = psnr(context, truth[:, None])  # (20, 30)
    torch.testing.assert_close(best, every.max(-1).values)


def test_a_kernel_interpolates_and_a_copy_does_not():
    # brightness grows along the corridor; frames between the places of the context are the mean of their neighbours
    context, pose = grey([i / 20 for i in range(21)]), corridor([i / 5 for i in range(21)])
    future, truth = corridor([1.9, 2.1]), grey([0.475, 0.525])
    torch.testing.assert_close(predictors.pose_kernel(context, pose, future), truth, atol=1e-4, rtol=0)
    copied = predictors.nearest_pose(context, pose, future) - truth
    torch.testing.assert_close(copied.abs(), torch.full_like(truth, 0.025))


def test_bandwidths_follow_the_context():
    # eleven frames at each place and noise from frame to frame: the wider kernel takes its mean
    random = np.random.default_rng(0)
    x = [float(i) for i in range(10) for _ in range(11)]
    noise = torch.from_numpy(random.normal(0, 0.1, (110, 4, 4, 3))).float()
    future, truth = corridor([3.0, 7.0]), grey([0.3, 0.7])
    predicted = predictors.pose_kernel(grey([i / 10 for i in x]) + noise, corridor(x), future)
    assert (predicted - truth).square().mean() < 0.1**2 / 5  # of one frame 0.1 ** 2, of the mean of eleven a tenth


def test_poses_are_near_in_place_and_direction():
    north, east, nearly_east = (0.0, 1.0), (1.0, 0.0), (0.966, 0.259)  # 15 degrees
    context, future = grey([0.0, 0.1, 0.2]), corridor([0.0, 0.6], [east, east])
    # 15 degrees are 0.75 of `DEGREES`; 0.6 cells are 1.2 of `CELLS`
    pose = corridor([0.0, 0.0, 0.6], [north, nearly_east, nearly_east])
    torch.testing.assert_close(predictors.nearest_pose(context, pose, future), grey([0.1, 0.2]))
    # headings on either side of west, 10 degrees apart
    west = corridor([0.0], [(-0.996, 0.087)])
    pose = corridor([0.0, 0.0], [(-0.866, 0.5), (-0.996, -0.087)])
    torch.testing.assert_close(predictors.nearest_pose(context[:2], pose, west), grey([0.1]))


@pytest.mark.parametrize("name", predictors.PREDICTORS)
def test_a_context_of_one_frame_is_repeated(name):
    predicted = predictors.PREDICTORS[name](grey([0.3]), corridor([0.0]), corridor([0.0, 5.0]))
    torch.testing.assert_close(predicted, grey([0.3, 0.3]))


def test_gaps_by_hand():
    _, labels = ring_world("ioi")
    # with both laps in memory each view of the inner ring was seen two laps ago
    assert predictors.gap(labels, 2 * STEPS, STEPS).tolist() == [2 * STEPS] * STEPS
    assert predictors.gap(labels, 2 * STEPS + 1, 2).tolist() == [2 * STEPS] * 2
    # with the outer lap alone before it nothing of the inner ring was seen
    assert predictors.gap({name: label[STEPS:] for name, label in labels.items()}, STEPS, STEPS).tolist() == [0] * STEPS


def test_scores_are_split_by_gap():
    scores = predictors.by_gap(torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0]), np.array([1, 15, 16, 300, 0]))
    assert scores == {
        "all": {"psnr": 30, "frames": 5},
        "seen": {"psnr": 25, "frames": 4},
        "1-15": {"psnr": 15, "frames": 2},
        "16-63": {"psnr": 30, "frames": 1},
        "256-": {"psnr": 40, "frames": 1},
        "never": {"psnr": 50, "frames": 1},
    }
    rows = predictors.table({"model": scores}).splitlines()
    assert rows[1].split() == ["all", "seen", "1-15", "16-63", "64-255", "256-", "never"]
    assert rows[2].split() == ["model", "30.00", "25.00", "15.00", "30.00", "40.00", "50.00"]
    assert rows[3].split() == ["frames", "5", "4", "2", "1", "0", "1", "1"]
    unknown = predictors.by_gap(torch.tensor([10.0, 20.0]), None)
    assert unknown == {"all": {"psnr": 15, "frames": 2}}


def episode(laps: str, **labels: np.ndarray) -> Episode:
    frames, found = ring_world(laps)
    rows = len(frames)
    observation = (frames * 255).round().to(torch.uint8).numpy()
    zeros = np.zeros(rows, np.float32)
    return Episode(observation, np.zeros((rows, 6), np.float32), zeros, np.zeros(rows, bool), labels or found)


def test_episodes_are_measured_together():
    scores = predictors.measure([episode("ioi"), episode("iii")], 2 * STEPS)
    assert scores["nearest_pose"]["all"] == {"psnr": pytest.approx(60), "frames": 2 * STEPS}
    assert scores["heading"]["all"]["psnr"] < 45
    assert sum(scores["mean"][name]["frames"] for name in scores["mean"] if name not in ("all", "seen")) == 2 * STEPS


@pytest.mark.parametrize(
    "made, context, words",
    [
        (episode("i", agent_pos=np.zeros((STEPS, 2))), 5, "no label agent_dir"),
        (episode("i"), 0, "a context of 0 frames, in an episode of 9"),
        (episode("i"), STEPS, "a context of 9 frames"),
    ],
)
def test_what_cannot_be_measured(made, context, words):
    with pytest.raises(ValueError, match=words):
        predictors.measure([made], context)


def test_remembrance_ends_where_memory_does(ring):
    frames, labels, context, _ = ring
    pose = predictors.poses(labels)

    def nearest(n: int | None) -> torch.Tensor:
        start = 0 if n is None else max(0, context - n)
        return predictors.nearest_pose(frames[start:context], pose[start:context], pose[context:])

    curve = predictors.remembrance(nearest, (1, STEPS, 2 * STEPS, 4 * STEPS))
    assert list(curve) == [1, STEPS, 2 * STEPS, 4 * STEPS]
    # the last lap was the outer ring's: 0.1 brighter; the inner ring's is complete two laps back
    assert curve[STEPS] == {"psnr": pytest.approx(20, abs=0.01), "mse": pytest.approx(0.01, rel=1e-4)}
    assert curve[1]["mse"] > curve[STEPS]["mse"]
    for n in (2 * STEPS, 4 * STEPS):
        assert curve[n] == {"psnr": pytest.approx(60), "mse": 0}
