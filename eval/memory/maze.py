"""What a world model remembers of a maze: spatial retrieval, reasoning, and frames by when their view was last seen.

After LSSVWM (arXiv 2505.20171, section 5), at any size:

- retrieval: the first half of an episode is context, a walk; the second half retraces it, and is dreamed under the
  actions taken. What comes was seen.
- reasoning: 72 % of an episode is context (576 of 800 frames there), the rest a walk on, dreamed.
- views: with all true frames before it in memory, each frame up to `HORIZON` ahead is predicted, and scored by how
  many steps ago its view was last in memory: from within half a cell, in about its direction.

Dreams of a model taught with `worldmodel.open_loop_prob` do not read themselves: each of their frames is told from the
context and the actions since.

PSNR in dB and SSIM (Wang et al. 2004, over uniform windows; `worldmodel.tokenizer.ssim`) of the mean of sampled dreams.
Beside the model: the last context frame repeated, and the mean of the context's frames.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.logging.predictions import predict, psnr
from agent.training.learner import Learner
from replay import Episode
from replay.progress import track
from worldmodel.tokenizer import ssim

HORIZON = 8
"""Frames ahead that views are predicted."""
STRETCH = 25
"""Dreamed frames that a point of the curve is the mean of."""
SOON = 50
"""Dreamed frames that are scored apart as well: where a dream loses its way, they tell more than all."""
CELLS, DEGREES = 0.5, 20.0
"""How near in place and direction two frames show the same view."""
BINS = ((1, 15), (16, 63), (64, 255), (256, 1 << 30))
"""Steps since a view was last seen, both ends included; a bin of its own holds those never seen."""

Scores = dict[str, dict[str, Any]]
"""`psnr`, `ssim` and `frames`, by what was predicted and by whom; of long dreams `curve` too, PSNR by `STRETCH`."""


@torch.no_grad()
def continued(learner: Learner, episodes: Sequence[Episode], share: float, dreams: int = 8) -> Scores:
    """The rest of episodes of one length after `share` of their frames.

    By the model (the first `SOON` frames apart, as `soon`), by repetition and by the mean.
    """
    rows = learner.episodes(episodes)
    count, length = rows.shape
    context = int(length * share)
    model = learner.model
    with learner.autocast():
        state = model.initial(count)
        for begin in range(0, context, 64):
            state = model.observe(rows[:, begin : min(begin + 64, context)], state, sample=False).last_state
        state = torch.cat([state] * dreams)
        frames = []
        for at in track(range(context, length), "frames", "dream"):
            state = model.dream(state, rows.action[:, at].repeat(dreams, 1))
            image = model.decode(model.feature(state)).clamp(0, 1)
            state = model.open_loop(state)
            frames.append(image.unflatten(0, (dreams, count)).mean(0))
    truth = rows.observation.float() / 255
    future = truth[:, context:]
    dreamed = torch.stack(frames, 1)
    answers = {
        "model": dreamed,
        "repeat": truth[:, context - 1 : context].expand_as(future),
        "mean": truth[:, :context].mean(1, keepdim=True).expand_as(future),
    }
    scores = {who: _scores(answer, future) | {"curve": _curve(answer, future)} for who, answer in answers.items()}
    return scores | {"soon": _scores(dreamed[:, :SOON], future[:, :SOON])}


@torch.no_grad()
def by_view(learner: Learner, episodes: Sequence[Episode]) -> Scores:
    """Frames up to `HORIZON` ahead, by steps since their view was last seen: names as `16-63`, `256-`, `never`."""
    since, predicted, truth = [], [], []
    for episode in track(episodes, "episodes", "views"):
        windows = predict(learner, episode, HORIZON, dreams=4)
        frames = windows.index[:, None].cpu() + torch.arange(1, HORIZON + 1)
        since.append(steps_since(episode.labels, windows.index.cpu().numpy(), frames.numpy()).ravel())
        predicted.append(windows.expected.flatten(0, 1))
        truth.append(windows.truth.flatten(0, 1))
    steps, guess, real = np.concatenate(since), torch.cat(predicted), torch.cat(truth)
    chosen = {view_name(low, high): (steps >= low) & (steps <= high) for low, high in BINS}
    chosen["never"] = steps == 0
    return {name: _scores(guess[mask], real[mask]) for name, mask in chosen.items() if mask.any()}


def view_name(low: int, high: int) -> str:
    """What a bin of views is called."""
    return f"{low}-{high if high < 1 << 30 else ''}"


def steps_since(labels: Mapping[str, np.ndarray], last: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """For each of `frames` (W, H), steps since its view was seen in the frames up to `last` (W,); 0: never."""
    place, direction = labels["agent_pos"], labels["agent_dir"]
    near = np.linalg.norm(place[frames][:, :, None] - place, axis=-1) <= CELLS  # (W, H, L)
    same = direction[frames] @ direction.T >= np.cos(np.radians(DEGREES))
    seen = near & same & (np.arange(len(place)) <= last[:, None, None])
    latest = len(place) - 1 - seen[..., ::-1].argmax(-1)
    return np.where(seen.any(-1), frames - latest, 0)


def _curve(predicted: Tensor, truth: Tensor) -> list[float]:
    """PSNR of (count, frames, ...) in stretches of `STRETCH` frames, the last with what is left."""
    return [round(float(part.mean()), 3) for part in psnr(predicted, truth).split(STRETCH, 1)]


def _scores(predicted: Tensor, truth: Tensor) -> dict[str, Any]:
    count = truth.shape[:-3].numel()
    return {"psnr": float(psnr(predicted, truth).mean()), "ssim": float(ssim(predicted, truth)), "frames": count}


def print_table(results: Sequence[dict[str, Any]]) -> None:
    """What `eval.retention` found, a line for each run: SSIM / PSNR."""

    def cell(score: Mapping[str, float]) -> str:
        return f"{score['ssim']:.3f} / {score['psnr']:.1f}"

    views = list(dict.fromkeys(name for result in results for name in result["views"]))
    print("SSIM / PSNR of dreamed frames; by steps since a view was last seen, up to 8 frames ahead")
    print(
        f"{'':24s}"
        + "".join(f"{name:>14s}" for name in ("retrieval", f"first {SOON}", "reasoning", f"first {SOON}", *views))
    )
    for result in results:
        cells = [cell(result[task][part]) for task in ("retrieval", "reasoning") for part in ("model", "soon")]
        cells += [cell(result["views"][name]) if name in result["views"] else "" for name in views]
        print(f"{result['run']:24s}" + "".join(f"{text:>14s}" for text in cells))
    for easy in ("repeat", "mean"):
        cells = [text for task in ("retrieval", "reasoning") for text in (cell(results[0][task][easy]), "")]
        print(f"{easy:24s}" + "".join(f"{text:>14s}" for text in cells))
