"""A world model in one file, as a template: a GRU over categorical latents of flattened observations.

Train it: python train_agent.py --env gym:CartPole-v1 --worldmodel examples.minimal_gru:MinimalGRU
Test it:  python -m pytest tests/worldmodel/test_conformance.py --worldmodel examples.minimal_gru:MinimalGRU

Letters: B batch, T frames, D width of h, Z = G * C width of z, V values of an observation.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel import Losses, ObserveOutput, SequenceBatch, State, WorldModel
from worldmodel.boundaries import boundaries
from worldmodel.checks import check_numbers
from worldmodel.latents import CategoricalLatents, balanced_kl

LATENTS = CategoricalLatents(groups=8, classes=8, unimix=0.01)


@dataclass
class MinimalGRUConfig:
    """A GRU over categorical latents."""

    name: str = ""
    """World model, by name."""
    state_interval: int = 8
    """Frames between the States that are kept, from which imagination starts."""
    d_model: int = 64
    """Width of h: D."""
    free_nats: float = 0.1
    """KL below which the two KL losses have no gradient."""

    def __post_init__(self) -> None:
        check_numbers("worldmodel", self, may_be_zero=("free_nats",))


class MinimalGRU(WorldModel):
    """One token a frame; z_t is inferred from frame t alone, and memory is h_t itself."""

    config_class = MinimalGRUConfig
    tokens = 1

    def __init__(self, config: MinimalGRUConfig, shape: tuple[int, ...], actions: int):
        super().__init__()
        self.config, self.shape, self.actions = config, shape, actions
        self.feature_width = config.d_model + LATENTS.width
        self.encoder = _mlp(math.prod(shape), config.d_model, LATENTS.width)
        self.cell = nn.GRUCell(LATENTS.width + actions, config.d_model)
        self.prior = _mlp(config.d_model, config.d_model, LATENTS.width)
        self.decoder = _mlp(self.feature_width, config.d_model, math.prod(shape))
        self.heads = _mlp(self.feature_width, config.d_model, 2)  # reward, and the continue flag's logit

    def initial(self, batch: int) -> State:
        """The State before any frame: zeros."""
        zeros = self.cell.weight_hh.new_zeros
        widths = {"h": self.config.d_model, "z": LATENTS.width}
        return TensorDict({name: zeros(batch, 1, width) for name, width in widths.items()}, batch_size=[batch])

    def observe(self, batch: SequenceBatch, state: State, sample: bool = True) -> ObserveOutput:
        """T real frames: all are encoded at once, then the GRU steps through them."""
        return self._observe(batch, state, sample)[0]

    def _observe(self, batch: SequenceBatch, state: State, sample: bool) -> tuple[ObserveOutput, Tensor]:
        B, T = batch.batch_size
        posterior = LATENTS.posterior(self.encoder(self._values(batch.observation)))  # (B, T, 1, G, C)
        z = LATENTS.draw(posterior, sample)  # (B, T, 1, Z)
        h, before, hs = state["h"], state["z"], []
        for t in range(T):
            keep = ~batch.is_first[:, t, None, None]  # an episode begins with no memory, latents or action
            h = self._step(h * keep, before * keep, batch.action[:, t] * keep[:, 0])
            before = z[:, t]
            hs.append(h)
        h = torch.stack(hs, 1)  # (B, T, 1, D)
        ends = boundaries(T, self.config.state_interval)
        starts = TensorDict({"h": h[:, ends], "z": z[:, ends]}, batch_size=[B, len(ends)])
        index = torch.tensor(ends, device=h.device)
        return ObserveOutput(torch.cat([h, z], -1), starts, index, starts[:, -1]), posterior

    def _step(self, h: Tensor, z: Tensor, action: Tensor) -> Tensor:
        """h_t from h_{t-1} and z_{t-1}, (B, 1, ...), and action_t (B, A)."""
        new = self.cell(torch.cat([z[:, 0], action], -1), h[:, 0])
        return new.to(h.dtype).unsqueeze(1)  # states stay float32 under autocast

    def dream(self, state: State, action: Tensor, sample: bool = True) -> State:
        """One imagined frame."""
        h = self._step(state["h"], state["z"], action)
        z = LATENTS.draw(LATENTS.prior(self.prior(h)), sample)
        return TensorDict({"h": h, "z": z}, batch_size=[len(action)])

    def feature(self, state: State) -> Tensor:
        """(..., 1, D + Z)"""
        return torch.cat([state["h"], state["z"]], -1)

    def loss(self, batch: SequenceBatch, state: State) -> tuple[Losses, ObserveOutput, dict[str, Tensor]]:
        """Losses by the names of `loss_scales`, what observing gives, and metrics."""
        output, posterior = self._observe(batch, state, sample=True)
        feature = output.feature
        prior = LATENTS.prior(self.prior(feature[..., : self.config.d_model]))
        dynamics, representation, kl = balanced_kl(LATENTS, posterior, prior, self.config.free_nats)
        reward, continue_logit = self.heads(feature).squeeze(-2).float().unbind(-1)
        truth = self._values(batch.observation)
        losses = {
            "reconstruction": (self.decoder(feature).float() - truth).square().sum((-1, -2)).mean(),
            "dynamics": dynamics,
            "representation": representation,
            "reward": F.mse_loss(reward, batch.reward),
            "continue": F.binary_cross_entropy_with_logits(continue_logit, (~batch.terminated).float()),
        }
        return losses, output, {"kl": kl}

    def kl(self, batch: SequenceBatch, state: State) -> Tensor:
        """(B, T): KL(posterior || prior)."""
        output, posterior = self._observe(batch, state, sample=False)
        return LATENTS.kl(posterior, LATENTS.prior(self.prior(output.feature[..., : self.config.d_model])))

    def loss_scales(self) -> dict[str, float]:
        """The factor of each loss."""
        return {"reconstruction": 1.0, "dynamics": 1.0, "representation": 0.1, "reward": 1.0, "continue": 1.0}

    def decode(self, feature: Tensor) -> Tensor:
        """(..., 1, F) -> (..., *shape), images in about 0..1"""
        return self.decoder(feature).float().reshape(*feature.shape[:-2], *self.shape)

    def reward(self, feature: Tensor) -> Tensor:
        """(..., 1, F) -> (...)"""
        return self.heads(feature)[..., 0, 0].float()

    def continue_prob(self, feature: Tensor) -> Tensor:
        """(..., 1, F) -> (...)"""
        return self.heads(feature)[..., 0, 1].float().sigmoid()

    def _values(self, observation: Tensor) -> Tensor:
        """Images (..., H, W, C) uint8 in 0..1, or vectors as they are -> (..., 1, V)"""
        scale = 255 if len(self.shape) == 3 else 1
        return observation.flatten(-len(self.shape)).unsqueeze(-2) / scale


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))
