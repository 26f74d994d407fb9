"""Open-loop prediction: with all of the past in memory, what does the model expect of the next frames?

Scores are PSNR in dB (peak 1) by horizon, of the mean of sampled dreams and of one dream at its mode. Beside them three
easy answers: the last context frame repeated, the mean image, and the model's own reconstruction of the true frame (the
tokenizer's ceiling).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from agent.training.learner import Learner
from replay import Episode
from worldmodel import State

MOVING_DB = 18.0
"""A window counts as moving where repeating its last context frame scores less than this at the last horizon."""


@dataclass(frozen=True)
class Windows:
    """W windows of one episode; images are float in 0..1."""

    index: Tensor  # (W,): the row of the last true frame that the model saw
    context: Tensor  # (W, H, W, C): that frame
    truth: Tensor  # (W, horizon, H, W, C)
    predicted: Tensor  # (W, horizon, H, W, C): one dream, its latents at their mode
    expected: Tensor  # (W, horizon, H, W, C): the mean of sampled dreams, what squared error asks for
    reconstructed: Tensor  # (W, horizon, H, W, C)


@torch.no_grad()
def predict(
    learner: Learner, episode: Episode, horizon: int, window: int = 64, dreams: int = 8, most: int | None = None
) -> Windows:
    """Predicts `horizon` frames from every block boundary of an episode, under the actions that were taken.

    `most`: from so many at most, spread evenly over the episode.

    Every start has the whole episode before it in memory, its latents at their mode. Predictions are the dream at its
    mode, and the mean of `dreams` sampled ones.
    """
    model = learner.model
    rows = learner.episodes([episode])
    length = rows.shape[1]
    state = model.initial(1)
    starts, index, features = [], [], []
    with learner.autocast():
        for begin in range(0, length, window):
            output = model.observe(rows[:, begin : begin + window], state, sample=False)
            state = output.last_state
            starts.append(output.start_states[0])
            index.append(output.start_index + begin)
            features.append(output.feature[0])
        at = torch.cat(index)
        fits = at + horizon < length
        if not fits.any():
            raise ValueError(f"an episode of {length} rows is too short for a horizon of {horizon}")
        chosen = fits.nonzero().flatten()
        if most is not None and most < len(chosen):
            chosen = chosen[torch.linspace(0, len(chosen) - 1, most, device=chosen.device).long()]
        at, state = at[chosen], torch.cat(starts)[chosen]
        frames = at[:, None] + torch.arange(1, horizon + 1, device=at.device)  # (W, horizon)
        action = rows.action[0, frames]  # (W, horizon, A)
        predicted = _roll(learner, state, action, sample=False)
        expected = torch.zeros_like(predicted)
        for _ in range(dreams):
            expected += _roll(learner, state, action, sample=True) / dreams
        reconstructed = torch.stack([model.decode(torch.cat(features)[frames[:, i]]) for i in range(horizon)], 1)
    truth = rows.observation[0].float() / 255
    return Windows(at, truth[at], truth[frames], predicted, expected, reconstructed.clamp(0, 1))


def _roll(learner: Learner, state: State, action: Tensor, sample: bool) -> Tensor:
    """Decoded frames (W, horizon, H, W, C) of one dream from each State under actions (W, horizon, A)."""
    frames = []
    for step in range(action.shape[1]):
        state = learner.model.dream(state, action[:, step], sample)
        frames.append(learner.model.decode(learner.model.feature(state)).clamp(0, 1))
    return torch.stack(frames, 1)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """(..., H, W, C) in 0..1 -> (...) in dB, at most 60."""
    return -10 * (a - b).square().mean((-1, -2, -3)).clamp_min(1e-6).log10()


def score(windows: list[Windows], mean_image: Tensor) -> dict[str, dict[str, list[float]]]:
    """Mean PSNR by horizon over the moving windows and over all, of the model and of the easy answers."""
    scores = [
        {
            "model": psnr(w.expected, w.truth),
            "mode": psnr(w.predicted, w.truth),
            "repeat": psnr(w.context.unsqueeze(1), w.truth),
            "mean_image": psnr(mean_image.to(w.truth), w.truth),
            "reconstruction": psnr(w.reconstructed, w.truth),
        }
        for w in windows
    ]
    table = {name: torch.cat([s[name] for s in scores]) for name in scores[0]}  # each (windows, horizon)
    moving = table["repeat"][:, -1] < MOVING_DB

    def means(chosen: Tensor) -> dict[str, list[float]]:
        rounded = {k: [round(float(x), 3) for x in v[chosen].mean(0)] for k, v in table.items()}
        return rounded | {"windows": [int(chosen.sum())]}

    return {"moving": means(moving), "all": means(torch.ones_like(moving))}
