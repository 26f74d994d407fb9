"""DreamerV3's world model in plain numpy loops (Hafner et al. 2023): the oracle of test_rssm.py.

Written from the paper's equations, a frame and a sequence at a time, in float64. Gradients that the paper stops, and
those that go straight through a sample, are constants here: `Stopped` keeps their values of a first evaluation, so
that finite differences of a second one are the gradients that the paper means.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from worldmodel import SequenceBatch, State

Array = np.ndarray
Weights = dict[str, Array]
BLOCKS, GROUPS, BINS = 8, 32, 255


@dataclass
class Stopped:
    """Values through which no gradient goes, by frame; `fresh` while they are still being written down."""

    fresh: bool = True
    values: dict[tuple[str, int, int], Array] = field(default_factory=dict)

    def __call__(self, name: str, b: int, t: int, value: Array) -> Array:
        if self.fresh:
            self.values[name, b, t] = value.copy()
        return self.values[name, b, t]


def weights_of(model: nn.Module) -> Weights:
    """Every parameter by name, float64."""
    return {name: parameter.detach().double().numpy().copy() for name, parameter in model.named_parameters()}


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def rms_norm(x: Array, scale: Array) -> Array:
    return scale * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4)


def linear(w: Weights, name: str, x: Array) -> Array:
    return w[f"{name}.weight"] @ x + w[f"{name}.bias"]


def dense(w: Weights, name: str, x: Array) -> Array:
    return silu(rms_norm(linear(w, f"{name}.0", x), w[f"{name}.1.weight"]))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def mixed(logits: Array) -> Array:
    """Probabilities (32, C) with 1 % of the uniform distribution."""
    probs = softmax(logits.reshape(GROUPS, -1))
    return 0.99 * probs + 0.01 / probs.shape[-1]


def sequence_model(w: Weights, h: Array, z: Array, action: Array) -> Array:
    """h_t of one sequence, block after block."""
    part = len(h) // BLOCKS
    read = [dense(w, "core.in_h", h), dense(w, "core.in_z", z), dense(w, "core.in_action", action)]
    hidden = []
    for g in range(BLOCKS):
        x = np.concatenate([h[g * part : (g + 1) * part], *read])
        hidden.append(x @ w["core.hidden.weight"][g] + w["core.hidden.bias"][g, 0])
    y = silu(rms_norm(np.concatenate(hidden), w["core.norm.weight"]))
    out = np.empty_like(h)
    for g in range(BLOCKS):
        own = slice(g * part, (g + 1) * part)
        gates = y[own] @ w["core.gates.weight"][g] + w["core.gates.bias"][g, 0]
        reset, candidate, update = sigmoid(gates[:part]), gates[part : 2 * part], sigmoid(gates[2 * part :] - 1)
        out[own] = update * np.tanh(reset * candidate) + (1 - update) * h[own]
    return out


def posterior(w: Weights, h: Array, frame: Array) -> Array:
    """Probabilities (32, C) from h and the encoded frame: one layer that reads both, and the logits."""
    x = w["posterior.from_h.weight"] @ h + linear(w, "posterior.from_frame", frame)
    return mixed(linear(w, "posterior.logits", silu(rms_norm(x, w["posterior.rest.0.weight"]))))


def prior(w: Weights, h: Array) -> Array:
    """Probabilities (32, C) from h: two layers, and the logits."""
    return mixed(linear(w, "prior.1", dense(w, "prior.0.1", dense(w, "prior.0.0", h))))


def encoded(w: Weights, vector: Array) -> Array:
    """Three layers over symlog values."""
    x = np.sign(vector) * np.log(1 + np.abs(vector))
    for i in range(3):
        x = dense(w, f"coder.encoder.{i}", x)
    return x


def decoded_symlog(w: Weights, feature: Array) -> Array:
    for i in range(3):
        feature = dense(w, f"coder.decoder.0.{i}", feature)
    return linear(w, "coder.decoder.1", feature)


def two_hot_loss(logits: Array, reward: float) -> float:
    """Cross-entropy against the two bins about the reward, evenly spaced after symlog from -20 to 20."""
    even = np.linspace(-20, 20, BINS)
    bins = np.sign(even) * (np.exp(np.abs(even)) - 1)
    below = np.searchsorted(bins, reward, side="right") - 1
    share = (reward - bins[below]) / (bins[below + 1] - bins[below])
    log_p = np.log(softmax(logits))
    return -((1 - share) * log_p[below] + share * log_p[below + 1])


def divergence(p: Array, q: Array) -> float:
    """KL(p || q) of all variables."""
    return sum(float((p[g] * (np.log(p[g]) - np.log(q[g]))).sum()) for g in range(GROUPS))


def forward(
    w: Weights, batch: SequenceBatch, state: State, hot: Array, free_nats: float, stopped: Stopped
) -> tuple[dict[str, float], dict[str, Array]]:
    """Losses by name, and h, posteriors and priors (B, T, ...); `hot` (B, T, 32, C) are the latents that were drawn."""
    B, T = batch.batch_size
    observation, action, reward = (x.double().numpy() for x in (batch.observation, batch.action, batch.reward))
    names = ("reconstruction", "dynamics", "representation", "reward", "continue")
    losses, seen = dict.fromkeys(names, 0.0), {"h": [], "posterior": [], "prior": []}
    for b in range(B):
        h, z = state["h"][b, 0].double().numpy(), state["z"][b, 0].double().numpy()
        for t in range(T):
            begins = bool(batch.is_first[b, t])
            h = sequence_model(w, h * (not begins), z * (not begins), action[b, t] * (not begins))
            p, q = posterior(w, h, encoded(w, observation[b, t])), prior(w, h)
            z = (p + stopped("sample", b, t, hot[b, t] - p)).reshape(-1)
            feature = np.concatenate([h, z])
            x = observation[b, t]
            error = decoded_symlog(w, feature) - np.sign(x) * np.log(1 + np.abs(x))
            going = sigmoid(linear(w, "continue_head.1", dense(w, "continue_head.0.0", feature)))[0]
            logits = linear(w, "reward_head.1", dense(w, "reward_head.0.0", feature))
            frame = {
                "reconstruction": (error**2).sum(),
                "dynamics": max(free_nats, divergence(stopped("posterior", b, t, p), q)),
                "representation": max(free_nats, divergence(p, stopped("prior", b, t, q))),
                "reward": 0.0 if begins else two_hot_loss(logits, reward[b, t]),  # ours: a first row has none
                "continue": -np.log(1 - going if batch.terminated[b, t] else going),
            }
            for name, value in frame.items():
                losses[name] += value / (B * T)
            for name, value in zip(seen, (h, p, q), strict=True):
                seen[name].append(value)
    stopped.fresh = False
    return losses, {name: np.reshape(values, (B, T, *values[0].shape)) for name, values in seen.items()}


def convolution(x: Array, weight: Array, bias: Array) -> Array:
    """(H, W, i) -> (H, W, o): 5x5, zeros beyond the edge. The weight is (o, i, 5, 5)."""
    height, width, _ = x.shape
    padded = np.pad(x, ((2, 2), (2, 2), (0, 0)))
    out = np.zeros((height, width, len(weight))) + bias
    for i in range(5):
        for j in range(5):
            out += padded[i : i + height, j : j + width] @ weight[:, :, i, j].T
    return out


def halved(x: Array) -> Array:
    """The largest of each 2x2 pixels; at an odd edge of those that are there."""
    height, width, _ = x.shape
    rows = [x[i : i + 2].max(0) for i in range(0, height, 2)]
    return np.stack([np.stack([row[j : j + 2].max(0) for j in range(0, width, 2)]) for row in rows])


def encoded_image(w: Weights, image: Array) -> Array:
    """(H, W, C) of 0..255 -> (E,)"""
    x, level = image / 255 - 0.5, 0
    while f"encoder.{level}.conv.weight" in w:
        name = f"encoder.{level}"
        x = halved(convolution(x, w[f"{name}.conv.weight"], w[f"{name}.conv.bias"]))
        x = silu(rms_norm(x, w[f"{name}.norm.weight"]))
        level += 1
    return x.reshape(-1)


def decoded_image(w: Weights, h: Array, z: Array, small: tuple[int, int], shape: tuple[int, ...]) -> Array:
    """(D,), (Z,) -> (H, W, C) in 0..1"""
    blocks, _, out = w["from_h.weight"].shape
    channels = blocks * out // (small[0] * small[1])
    x = np.empty((*small, channels))
    for g, own in enumerate(h.reshape(blocks, -1)):  # a block makes a share of the channels
        part = own @ w["from_h.weight"][g] + w["from_h.bias"][g, 0]
        x[..., g * channels // blocks : (g + 1) * channels // blocks] = part.reshape(*small, -1)
    x = x + linear(w, "from_z.1", dense(w, "from_z.0", z)).reshape(*small, channels)
    x, level = silu(rms_norm(x, w["norm.weight"])), 0
    while f"decoder.{level}.conv.weight" in w:
        name = f"decoder.{level}"
        x = convolution(x.repeat(2, 0).repeat(2, 1), w[f"{name}.conv.weight"], w[f"{name}.conv.bias"])
        x = silu(rms_norm(x, w[f"{name}.norm.weight"]))
        level += 1
    x = convolution(x.repeat(2, 0).repeat(2, 1), w["to_pixels.weight"], w["to_pixels.bias"])
    return sigmoid(x[: shape[0], : shape[1]])


def hot_of(z: torch.Tensor, classes: int) -> Array:
    """Latents (B, T, 1, Z) as they were drawn: exactly one-hot (B, T, 32, C)."""
    return z.detach().unflatten(-1, (GROUPS, classes)).squeeze(2).round().double().numpy()
