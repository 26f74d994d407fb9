"""Baselines of memory in a maze: frames predicted from earlier frames and the true poses, with no model.

The first C frames of an episode are the context; the F frames after it are predicted. A pose is (x, y) in cells and the
unit vector of the heading, from the labels `agent_pos` and `agent_dir`.

| name           | predicts                                                   | reads                      |
|----------------|------------------------------------------------------------|----------------------------|
| `repeat`       | the last context frame                                     | frames                     |
| `mean`         | the mean of the context                                    | frames                     |
| `heading`      | the mean of the context, weighted by heading               | frames, headings           |
| `nearest_pose` | the context frame of the nearest pose                      | frames, poses              |
| `pose_kernel`  | the mean of the context, weighted by position and heading  | frames, poses              |
| `best_frame`   | the context frame of least squared error                   | frames, the true frame     |

`heading` is what a predictor without places can reach, `pose_kernel` what one with exact places can, and `best_frame`
bounds every predictor that copies one frame. `remembrance` measures how far back a model's memory reaches.

Letters: C context frames, F future frames, (h, w, 3) an image.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from agent.logging.predictions import psnr
from eval.memory.visibility import BINS, CELLS, DEGREES, steps_since
from replay import Episode

CELL_WIDTHS = (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
DEGREE_WIDTHS = (4.0, 6.0, 8.0, 12.0, 20.0, 30.0)
"""Bandwidths (standard deviations) that a kernel is chosen from."""
LENGTHS = (16, 32, 64, 128, 256, 512)
"""Frames of the past at which `remembrance` is measured."""

Predictor = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(context (C, h, w, 3) in 0..1, its poses (C, 4), future poses (F, 4)) -> predicted frames (F, h, w, 3)."""
Scores = dict[str, dict[str, float]]
"""`psnr`, the mean over frames in dB, and `frames`: for `all`, for `seen` (the view was seen in the context, at any
gap), and for each name of `BINS`; where there are such frames."""


def poses(labels: Mapping[str, np.ndarray]) -> Tensor:
    """(L, 4) float32: (x, y, direction x, direction y) of each frame."""
    return torch.from_numpy(np.concatenate([labels["agent_pos"], labels["agent_dir"]], -1)).float()


def has_poses(labels: Mapping[str, np.ndarray]) -> bool:
    """Whether an episode with these labels says where the agent is."""
    return {"agent_pos", "agent_dir"} <= labels.keys()


def repeat(context: Tensor, pose: Tensor, future: Tensor) -> Tensor:
    """The last context frame."""
    return context[-1:].expand(len(future), -1, -1, -1)


def mean(context: Tensor, pose: Tensor, future: Tensor) -> Tensor:
    """The mean of the context."""
    return context.mean(0, keepdim=True).expand(len(future), -1, -1, -1)


def heading(context: Tensor, pose: Tensor, future: Tensor) -> Tensor:
    """Gaussian kernel over headings; its bandwidth is chosen as in `pose_kernel`."""
    return _kernel(context, pose, future, (math.inf,))


def nearest_pose(context: Tensor, pose: Tensor, future: Tensor) -> Tensor:
    """The context frame of the nearest pose, in units of `CELLS` and `DEGREES`; the earliest of equals."""
    return context[_squared_distance(future, pose, CELLS, DEGREES).argmin(-1)]


def pose_kernel(context: Tensor, pose: Tensor, future: Tensor) -> Tensor:
    """Gaussian kernel over positions and headings (Nadaraya 1964, Watson 1964).

    Its bandwidths, of `CELL_WIDTHS` and `DEGREE_WIDTHS`, are those of the highest mean PSNR when each context frame is
    predicted from the others.
    """
    return _kernel(context, pose, future, CELL_WIDTHS)


PREDICTORS: dict[str, Predictor] = {
    "repeat": repeat,
    "mean": mean,
    "heading": heading,
    "nearest_pose": nearest_pose,
    "pose_kernel": pose_kernel,
}
FRAMES_ALONE = ("repeat", "mean")
"""Those that read no poses."""


def best_frame(context: Tensor, truth: Tensor) -> Tensor:
    """For each true frame (F, h, w, 3), the context frame of least squared error."""
    return context[torch.cdist(truth.flatten(1).double(), context.flatten(1).double()).argmin(-1)]


def predictions(frames: Tensor, labels: Mapping[str, np.ndarray], context: int) -> dict[str, Tensor]:
    """By name, what every baseline predicts of the frames (L, h, w, 3; 0..1) after the first `context`.

    Without poses in `labels`, the baselines that read frames alone.
    """
    known = has_poses(labels)
    pose = (poses(labels) if known else torch.zeros(len(frames), 4)).to(frames.device)
    parts = frames[:context], pose[:context], pose[context:]
    found = {name: predictor(*parts) for name, predictor in PREDICTORS.items() if known or name in FRAMES_ALONE}
    return found | {"best_frame": best_frame(frames[:context], frames[context:])}


def gap(labels: Mapping[str, np.ndarray], context: int, future: int) -> np.ndarray:
    """(F,): frames since the view of each of `future` frames was last seen in the `context` before; 0 for never."""
    return steps_since(labels, np.array([context - 1]), np.arange(context, context + future)[None])[0]


def by_gap(scores: Tensor, gaps: np.ndarray | None) -> Scores:
    """PSNR (n,) of frames as a table by their gap (n,); of all frames alone where the gaps are unknown."""
    chosen = {"all": np.ones(len(scores), bool)}
    if gaps is not None:
        masks = {"seen": gaps > 0} | {name: (gaps >= low) & (gaps <= high) for name, (low, high) in BINS.items()}
        chosen |= {name: mask for name, mask in masks.items() if mask.any()}
    values = scores.double().cpu().numpy()
    return {name: {"psnr": float(values[mask].mean()), "frames": int(mask.sum())} for name, mask in chosen.items()}


def measure(episodes: Sequence[Episode], context: int) -> dict[str, Scores]:
    """By name, every baseline's scores over all frames after the first `context` of each episode.

    Raises ValueError for an episode without poses, or without a frame on either side.
    """
    scores: dict[str, list[Tensor]] = {}
    gaps = []
    for episode in episodes:
        if missing := {"agent_pos", "agent_dir"} - episode.labels.keys():
            raise ValueError(f"baselines read poses: the episode has no label {' and no '.join(sorted(missing))}")
        if not 0 < context < len(episode.observation):
            raise ValueError(f"a context of {context} frames, in an episode of {len(episode.observation)}")
        frames = torch.from_numpy(episode.observation).float() / 255
        for name, predicted in predictions(frames, episode.labels, context).items():
            scores.setdefault(name, []).append(psnr(predicted, frames[context:]))
        gaps.append(gap(episode.labels, context, len(frames) - context))
    return {name: by_gap(torch.cat(found), np.concatenate(gaps)) for name, found in scores.items()}


def table(rows: Mapping[str, Scores]) -> str:
    """Scores by predictor as text: PSNR over all frames and by gap, and the number of frames below."""
    columns = ["all", "seen", *BINS]
    counts = next(iter(rows.values()))
    width = max(24, *(len(name) for name in rows))
    lines = ["PSNR by frames since a view was last seen", f"{'':{width}s}" + "".join(f"{name:>8s}" for name in columns)]
    for name, scores in rows.items():
        cells = [f"{scores[column]['psnr']:8.2f}" if column in scores else f"{'':8s}" for column in columns]
        lines.append(f"{name:{width}s}" + "".join(cells))
    numbers = [f"{counts[column]['frames'] if column in counts else 0:8d}" for column in columns]
    return "\n".join([*lines, f"{'frames':{width}s}" + "".join(numbers)])


def remembrance(
    predict: Callable[[int | None], Tensor], lengths: Sequence[int] = LENGTHS
) -> dict[int, dict[str, float]]:
    """The effective-remembrance curve (arXiv 2507.02782): how far predictions depend on frames before the last n.

    Args:
        predict: n -> frames (..., h, w, 3) in 0..1, predicted with the last n context frames in memory; of None, with
            the whole context. Sampling counts as distance: predict the most likely frames, or the mean of many samples.
        lengths: the numbers n.

    Returns for each n the distance from the predictions of None: `mse`, and `psnr` in dB (the mean over frames, at
    most 60). A model whose memory holds nothing older than n frames has an `mse` of 0 from n on.
    """
    whole = predict(None)
    curve = {}
    for n in lengths:
        short = predict(n)
        curve[n] = {"psnr": float(psnr(short, whole).mean()), "mse": float((short - whole).square().mean())}
    return curve


def _kernel(context: Tensor, pose: Tensor, future: Tensor, cell_widths: Sequence[float]) -> Tensor:
    """The mean of the context under a Gaussian kernel, its bandwidths chosen by leave-one-out."""
    cells, degrees = _bandwidths(context, pose, cell_widths)
    weights = torch.softmax(-_squared_distance(future, pose, cells, degrees) / 2, -1)  # (F, C)
    return (weights @ context.flatten(1)).view(len(future), *context.shape[1:])


def _bandwidths(context: Tensor, pose: Tensor, cell_widths: Sequence[float]) -> tuple[float, float]:
    """(cells, degrees) of the highest mean PSNR, each context frame predicted from all others."""
    flat = (context - context.mean(0)).flatten(1)
    gram = flat @ flat.T / flat.shape[1]  # (C, C): the error of a weighted mean needs nothing else of the frames

    def error(widths: tuple[float, float]) -> float:
        logits = -_squared_distance(pose, pose, *widths).fill_diagonal_(math.inf) / 2
        weights = torch.softmax(logits, -1)
        squared = gram.diagonal() - 2 * (weights * gram).sum(-1) + (weights * (weights @ gram)).sum(-1)
        return float(squared.clamp_min(1e-6).log().mean())

    return min(((cells, degrees) for cells in cell_widths for degrees in DEGREE_WIDTHS), key=error)


def _squared_distance(a: Tensor, b: Tensor, cells: float, degrees: float) -> Tensor:
    """(F, 4), (C, 4) -> (F, C): squared distance of poses, positions in units of `cells`, headings of `degrees`."""
    offset = a[:, None] - b  # (F, C, 4)
    cross = a[:, None, 2] * b[:, 3] - a[:, None, 3] * b[:, 2]
    angle = torch.atan2(cross, a[:, 2:] @ b[:, 2:].T).rad2deg()
    return (offset[..., :2].norm(dim=-1) / cells).square() + (angle / degrees).square()
