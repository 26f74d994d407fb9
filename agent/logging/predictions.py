"""Open-loop prediction: with the past in memory, which frames does the model expect next?

Scores are PSNR in dB (peak 1) by horizon, of the mean of sampled rollouts and of the most likely one. Beside them three
baselines: the last context frame repeated, the mean image, and the model's own reconstruction of the true frame (an
upper bound, by the decoder).

Letters: W starts, H horizon, (h, w, C) an image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from agent.training.learner import Learner
from replay import Episode
from worldmodel.rollout import imagine, observe_episode

MOVING_DB = 18.0
"""A start counts as moving where its context frame, repeated, scores less than this at the last horizon."""


@dataclass(frozen=True)
class Predictions:
    """Predictions from W frames of one episode; images are float in 0..1."""

    index: Tensor  # (W,): the last frame that the model observed
    context: Tensor  # (W, h, w, C): that frame
    truth: Tensor  # (W, H, h, w, C)
    predicted: Tensor  # (W, H, h, w, C): the most likely latents, decoded
    expected: Tensor  # (W, H, h, w, C): the mean of sampled rollouts, which minimises the squared error
    reconstructed: Tensor  # (W, H, h, w, C): decoded from the observed frames


@torch.no_grad()
def predict(
    learner: Learner, episode: Episode, horizon: int, window: int = 64, dreams: int = 8, most: int | None = None
) -> Predictions:
    """Predicts `horizon` frames from each State that is kept of an episode, under the episode's actions.

    Each State has the whole episode before it in memory, observed with the most likely latents.

    Args:
        window: frames observed at once.
        dreams: sampled rollouts from each State, of which `expected` is the mean.
        most: States at most, spread evenly over the episode.

    Raises ValueError for an episode that is too short.
    """
    model = learner.model
    batch = learner.episodes([episode])
    length = batch.shape[1]
    with learner.autocast():
        output = observe_episode(model, batch, model.initial(1), window, sample=False)
        chosen = (output.start_index + horizon < length).nonzero().flatten()
        if not len(chosen):
            raise ValueError(f"an episode of {length} rows is too short for a horizon of {horizon}")
        if most is not None and most < len(chosen):
            chosen = chosen[torch.linspace(0, len(chosen) - 1, most, device=chosen.device).long()]
        index, state = output.start_index[chosen], output.start_states[0, chosen]
        frames = index[:, None] + torch.arange(1, horizon + 1, device=index.device)  # (W, H)
        actions = batch.action[0, frames].transpose(0, 1)  # (H, W, A)

        def rollout(sample: bool) -> Tensor:
            return imagine(model, state, actions, horizon, sample, decode=True).observation.transpose(0, 1)

        predicted = rollout(sample=False)
        expected = torch.zeros_like(predicted)
        for _ in range(dreams):
            expected += rollout(sample=True) / dreams
        reconstructed = torch.stack([model.decode(output.feature[0, frames[:, i]]) for i in range(horizon)], 1)
    truth = batch.observation[0].float() / 255
    return Predictions(index, truth[index], truth[frames], predicted, expected, reconstructed.clamp(0, 1))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """(..., h, w, C) in 0..1 -> (...) in dB, at most 60."""
    return -10 * (a - b).square().mean((-1, -2, -3)).clamp_min(1e-6).log10()


def score(predictions: list[Predictions], mean_image: Tensor) -> dict[str, dict[str, list[float]]]:
    """Mean PSNR by horizon of the model and of the baselines, over moving starts and over all; starts as `windows`."""
    scores = [
        {
            "model": psnr(p.expected, p.truth),
            "mode": psnr(p.predicted, p.truth),
            "repeat": psnr(p.context.unsqueeze(1), p.truth),
            "mean_image": psnr(mean_image.to(p.truth), p.truth),
            "reconstruction": psnr(p.reconstructed, p.truth),
        }
        for p in predictions
    ]
    table = {name: torch.cat([s[name] for s in scores]) for name in scores[0]}  # each (starts, H)
    moving = table["repeat"][:, -1] < MOVING_DB

    def means(chosen: Tensor) -> dict[str, list[float]]:
        rounded = {k: [round(float(x), 3) for x in v[chosen].mean(0)] for k, v in table.items()}
        return rounded | {"windows": [int(chosen.sum())]}

    return {"moving": means(moving), "all": means(torch.ones_like(moving))}
