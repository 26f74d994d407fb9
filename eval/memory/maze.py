"""What a world model remembers of a maze: the rest of an episode imagined, and frames by when their view was last seen.

- `continued`: a share of an episode is context, the rest is imagined under its actions. `eval.memory.tasks` has the
  episodes and the shares, after LSSVWM (arXiv 2505.20171, section 5).
- `by_view`: with all true frames before it in memory, each frame up to `HORIZON` ahead is predicted, and scored by how
  many steps ago its view was last in memory: from within `CELLS`, in about its direction.

A model trained with `worldmodel.open_loop_prob` imagines open loop: each frame is predicted from the context and the
actions since. Scores are PSNR in dB and SSIM (Wang et al. 2004, over uniform windows; `worldmodel.reconstruction.ssim`)
of the mean of sampled rollouts (`model`), of one sampled rollout, which is what an agent dreams (`single`), and of the
rollout at its most likely latents (`mode`). Beside them, over the same frames: the model with all but the last `WIPED`
context frames left out of memory (`wiped`), its reconstruction of the true frames (`reconstruction`: the tokenizer's
ceiling), and the predictors of `eval.memory.predictors`, which know frames and poses alone. Scores by gap are by frames
since the view was last seen in the context; of episodes without poses they are of all frames. `remembrance` is the
curve of `predictors.remembrance`: how far the predictions depend on frames before the last n.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.logging.predictions import predict, psnr
from agent.training.learner import Learner
from eval.memory import predictors
from eval.memory.tasks import Protocol
from eval.memory.visibility import BINS, steps_since
from replay import Episode
from replay.progress import track
from worldmodel import SequenceBatch
from worldmodel.reconstruction import ssim
from worldmodel.rollout import imagine, observe_episode

WINDOW = 64
"""Frames that are observed at once."""
HORIZON = 8
"""Frames ahead at which views are predicted."""
STRETCH = 25
"""Imagined frames that a point of the curve is the mean of."""
SOON = 50
"""Imagined frames that are scored apart as well, before long rollouts lose their way."""
WIPED = 64
"""Context frames that are in memory where the rest is left out."""
Scores = dict[str, dict[str, Any]]
"""`psnr`, `ssim` and `frames`, by predictor or by view; of whole rollouts `curve` too, PSNR by `STRETCH`."""


def measure(learner: Learner, protocol: Protocol, episodes: Callable[[str], list[Episode]]) -> dict[str, Scores]:
    """All tasks of a protocol, and `views`; `episodes(policy)` are the held-out ones of a policy."""
    held_out = {policy: episodes(policy) for policy in dict.fromkeys(t.policy for t in protocol.tasks.values())}
    result = {
        name: continued(learner, [task.prepare(e) for e in held_out[task.policy]], task.share)
        for name, task in protocol.tasks.items()
    }
    views = [protocol.prepare(e) for policy in protocol.views for e in held_out[policy]]
    return result | {"views": by_view(learner, views)}


@torch.no_grad()
def continued(learner: Learner, episodes: Sequence[Episode], share: float, rollouts: int = 8) -> Scores:
    """Predicts the rest of episodes of one length after `share` of their frames; scores by predictor.

    By the `model` (its first `SOON` frames apart, as `soon`) and by all that the module names beside it.
    """
    batch = learner.episodes(episodes)
    count, length = batch.shape
    context = int(length * share)
    model = learner.model
    action = batch.action[:, context:].transpose(0, 1)  # (H, count, A)

    def rollout(last: int | None, times: int = rollouts, sample: bool = True) -> Tensor:
        """(count, H, ...): the mean of so many rollouts, with the last so many context frames in memory, None: all."""
        seen = batch[:, max(0, context - (last or context)) : context].clone()
        seen.is_first[:, 0] = True
        with learner.autocast():
            output = observe_episode(model, seen, model.initial(count), WINDOW, sample=False, only_last=True)
            starts = torch.cat([output.last_state] * times)
            imagined = imagine(model, starts, action.repeat(1, times, 1), len(action), sample, True, open_loop=True)
        return imagined.observation.float().unflatten(1, (times, count)).mean(1).transpose(0, 1).cpu()

    truth = batch.observation.float().cpu() / 255
    future = truth[:, context:]
    answers = {"model": rollout(None), "single": rollout(None, 1), "mode": rollout(None, 1, sample=False)}
    answers["wiped"] = rollout(WIPED)
    answers["reconstruction"] = torch.cat([_reconstructed(learner, batch[i : i + 1], context) for i in range(count)])
    found = [predictors.predictions(truth[i], e.labels, context) for i, e in enumerate(episodes)]
    answers |= {name: torch.stack([predicted[name] for predicted in found]) for name in found[0]}
    known = all(predictors.has_poses(e.labels) for e in episodes)
    gaps = np.concatenate([predictors.gap(e.labels, context, length - context) for e in episodes]) if known else None
    scores = {}
    for name, answer in answers.items():
        by_gap = predictors.by_gap(psnr(answer, future).flatten(), gaps)
        scores[name] = _scores(answer, future) | {"curve": _curve(answer, future), "by_gap": by_gap}
    curve = predictors.remembrance(
        lambda last: rollout(last, 1, sample=False), [n for n in predictors.LENGTHS if n < context]
    )
    soon = _scores(answers["model"][:, :SOON], future[:, :SOON])
    return scores | {"soon": soon, "remembrance": {str(n): distance for n, distance in curve.items()}}


def _reconstructed(learner: Learner, batch: SequenceBatch, context: int) -> Tensor:
    """(1, H, ...): the frames of one episode after `context`, decoded from features that have observed them."""
    model = learner.model
    with learner.autocast():
        output = observe_episode(model, batch, model.initial(1), WINDOW, sample=False)
        return model.decode(output.feature[:, context:]).float().clamp(0, 1).cpu()


@torch.no_grad()
def by_view(learner: Learner, episodes: Sequence[Episode]) -> Scores:
    """Frames up to `HORIZON` ahead, by steps since their view was last seen: by a name of `BINS`."""
    since, predicted, truth = [], [], []
    for episode in track(episodes, "episodes", "views"):
        windows = predict(learner, episode, HORIZON, dreams=4)
        frames = windows.index[:, None].cpu() + torch.arange(1, HORIZON + 1)
        since.append(steps_since(episode.labels, windows.index.cpu().numpy(), frames.numpy()).ravel())
        predicted.append(windows.expected.flatten(0, 1))
        truth.append(windows.truth.flatten(0, 1))
    steps, guess, real = np.concatenate(since), torch.cat(predicted), torch.cat(truth)
    masks = {name: (steps >= low) & (steps <= high) for name, (low, high) in BINS.items()}
    return {name: _scores(guess[mask], real[mask]) for name, mask in masks.items() if mask.any()}


def _curve(predicted: Tensor, truth: Tensor) -> list[float]:
    """PSNR of (count, frames, ...) in stretches of `STRETCH` frames, the last with what is left."""
    return [round(float(part.mean()), 3) for part in psnr(predicted, truth).split(STRETCH, 1)]


def _scores(predicted: Tensor, truth: Tensor) -> dict[str, Any]:
    count = truth.shape[:-3].numel()
    return {"psnr": float(psnr(predicted, truth).mean()), "ssim": float(ssim(predicted, truth)), "frames": count}
