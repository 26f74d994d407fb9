"""RSSM: DreamerV3's recurrent state-space model (Hafner et al. 2023, arXiv 2301.04104), the neighbour to compare with.

A frame is one token. With e_t the encoded frame::

    h_t = gru(h_{t-1}, z_{t-1}, action_t)                    block-diagonal; both and the action zero where is_first
    z_t ~ q(z | h_t, e_t)                                    32 categoricals, 1 % uniform, straight-through gradients
    p(z | h_t)                                               learns to expect them: 1.0 of the KL; 0.1 moves q

The posterior reads h_t, so frames are observed one after the other.

Letters: B batch, T frames, D width of h, Z of z, G categoricals, C classes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel import latent
from worldmodel.base import Losses, Rows, State, Trajectory, WorldModel
from worldmodel.block_gru import BlockGRU
from worldmodel.cnn import ImageCoder
from worldmodel.dense import mlp, norm, start
from worldmodel.heads import TwoHot
from worldmodel.mamba2 import kept, pick
from worldmodel.sizes import CATEGORICALS, SIZES, Widths
from worldmodel.vector_mlp import VectorCoder


@dataclass
class RSSMConfig:
    """DreamerV3's recurrent state-space model (arXiv 2301.04104)."""

    name: str = "rssm"
    """World model, by name."""
    size: Literal["1M", "12M", "25M", "50M", "100M", "200M"] = "12M"
    """All widths, by the name of a published size: deter 512, 2048, 3072, 4096, 6144 or 8192, and the rest with it."""
    hidden: int = 0
    """Units of hidden layers, and all widths in proportion: deter 8 times as many; 0: those of `size`."""
    block_frames: int = 16
    """Frames between the States that dreams start from; a window is a multiple of them."""
    unimix: float = 0.01
    """Share of the uniform distribution mixed into every categorical."""
    free_nats: float = 1.0
    """KL below which dynamics and representation losses stop."""
    reconstruction_weight: float = 1.0
    """Weight of the squared error of the decoded frame, summed over its values."""
    dynamics_weight: float = 1.0
    """Weight of the KL that moves the prior."""
    representation_weight: float = 0.1
    """Weight of the KL that moves the posterior."""
    reward_weight: float = 1.0
    """Weight of the reward's two-hot cross-entropy."""
    continue_weight: float = 1.0
    """Weight of the continue flag's binary cross-entropy."""

    def widths(self) -> Widths:
        """What `size` or `hidden` says."""
        return Widths(self.hidden or SIZES[self.size])


class Posterior(nn.Module):
    """Logits of z_t from h_t and the encoded frame. The frame's part is made of all frames at once."""

    def __init__(self, deter: int, encoded: int, hidden: int, outputs: int):
        super().__init__()
        # one layer that reads [h, e], in the two parts that its product comes in
        whole = start(nn.Linear(deter + encoded, hidden))
        self.from_h, self.from_frame = nn.Linear(deter, hidden, bias=False), nn.Linear(encoded, hidden)
        with torch.no_grad():
            self.from_h.weight.copy_(whole.weight[:, :deter])
            self.from_frame.weight.copy_(whole.weight[:, deter:])
            self.from_frame.bias.zero_()
        self.rest = nn.Sequential(norm(hidden), nn.SiLU())
        self.logits = start(nn.Linear(hidden, outputs))

    def forward(self, h: Tensor, frame: Tensor) -> Tensor:
        """h (B, D) and `from_frame` of the encoded frame (B, hidden) -> (B, Z)"""
        return self.logits(self.rest(self.from_h(h) + frame))


class RSSM(WorldModel):
    """See the module's docstring; `shape` is that of one observation, `actions` the width of an action."""

    tokens = 1

    def __init__(self, config: RSSMConfig, shape: tuple[int, ...], actions: int):
        super().__init__()
        self.config, self.actions = config, actions
        widths = self.widths = config.widths()
        self.feature_width = widths.deter + widths.latent
        self.coder: ImageCoder | VectorCoder
        self.coder = ImageCoder(shape, widths) if len(shape) == 3 else VectorCoder(shape, widths)
        self.core = BlockGRU(widths.deter, widths.latent, actions, widths.hidden)
        self.posterior = Posterior(widths.deter, self.coder.width, widths.hidden, widths.latent)
        self.prior = nn.Sequential(mlp(widths.deter, widths.hidden, 2), start(nn.Linear(widths.hidden, widths.latent)))
        self.twohot = TwoHot()
        self.reward_head = self._head(len(self.twohot.bins), scale=0.0)
        self.twohot.begin(self.reward_head[-1])
        self.continue_head = self._head(1)

    def _head(self, outputs: int, scale: float = 1.0) -> nn.Sequential:
        """One hidden layer and one that reads it, which starts at `scale` times its weights: at 0 neutral."""
        out = start(nn.Linear(self.widths.hidden, outputs))
        with torch.no_grad():
            out.weight.mul_(scale)
        return nn.Sequential(mlp(self.feature_width, self.widths.hidden, 1), out)

    def initial(self, batch: int) -> State:
        """See `WorldModel`."""
        like = self.core.norm.weight
        return TensorDict(
            {
                "h": like.new_zeros(batch, 1, self.widths.deter),
                "z": like.new_zeros(batch, 1, self.widths.latent),
            },
            batch_size=[batch],
        )

    def observe(self, rows: Rows, state: State, mode: bool = False) -> Trajectory:
        """See `WorldModel`; a loop over frames."""
        return self._observe(rows, state, mode)[0]

    def _observe(self, rows: Rows, state: State, mode: bool) -> tuple[Trajectory, Tensor]:
        """The trajectory, and the posterior's log probabilities (B, T, 1, G, C)."""
        B, T = rows.batch_size
        frames = self.posterior.from_frame(self.coder.encode(rows.observation))  # (B, T, hidden)
        first = rows.is_first.unsqueeze(-1)
        h, z = state["h"].squeeze(1), state["z"].squeeze(1)
        hs, zs, posteriors = [], [], []
        # unbound at once: the gradient of each x[:, t] would be as large as x
        for frame, act, begins in zip(*(x.unbind(1) for x in (frames, rows.action, first)), strict=True):
            h = self.core(*(x.masked_fill(begins, 0.0) for x in (h, z, act)))
            log_p = self._log_probs(self.posterior(h, frame))  # (B, G, C)
            z = latent.sample(log_p, mode).flatten(-2).to(h.dtype)
            hs.append(h)
            zs.append(z)
            posteriors.append(log_p)
        h, z = torch.stack(hs, 1).unsqueeze(2), torch.stack(zs, 1).unsqueeze(2)  # (B, T, 1, ...)
        ends = kept(T, self.config.block_frames)
        starts = TensorDict({"h": pick(h, ends), "z": pick(z, ends)}, batch_size=[B, len(ends)])
        index = torch.tensor(ends, device=h.device)
        return Trajectory(torch.cat([h, z], -1), starts, index, starts[:, -1]), torch.stack(posteriors, 1).unsqueeze(2)

    def dream(self, state: State, action: Tensor, mode: bool = False) -> State:
        """See `WorldModel`."""
        h = self.core(state["h"].squeeze(1), state["z"].squeeze(1), action).unsqueeze(1)
        z = latent.sample(self._log_probs(self.prior(h)), mode).flatten(-2).to(h.dtype)
        return TensorDict({"h": h, "z": z}, batch_size=[len(action)])

    def feature(self, state: State) -> Tensor:
        """See `WorldModel`."""
        return torch.cat([state["h"], state["z"]], -1)

    def loss(self, rows: Rows, state: State) -> tuple[Losses, Trajectory, dict[str, Tensor]]:
        """See `WorldModel`; the names are those of `weights`."""
        trajectory, posterior = self._observe(rows, state, mode=False)
        feature = trajectory.feature
        h, z = self._parts(feature)
        dynamics, representation, surprise = latent.balanced_kl(posterior, self._prior(h), self.config.free_nats)
        reward = self.twohot.loss(_read(self.reward_head, feature), rows.reward)
        losses = {
            "reconstruction": self.coder.loss(h, z, rows.observation),
            "dynamics": dynamics,
            "representation": representation,
            "reward": (reward * ~rows.is_first).mean(),  # a first row's is of a past that is cut off, or 0
            "continue": nn.functional.binary_cross_entropy_with_logits(
                _read(self.continue_head, feature).squeeze(-1), (~rows.terminated).to(feature.dtype)
            ),
        }
        entropy = -(posterior.exp() * posterior).sum((-1, -2, -3)).mean().detach()
        return losses, trajectory, {"surprise": surprise, "entropy/posterior": entropy}

    def surprise(self, rows: Rows, state: State) -> Tensor:
        """See `WorldModel`; latents are at their mode."""
        trajectory, posterior = self._observe(rows, state, mode=True)
        return latent.kl(posterior, self._prior(self._parts(trajectory.feature)[0]))

    def weights(self) -> dict[str, float]:
        """See `WorldModel`."""
        names = ["reconstruction", "dynamics", "representation", "reward", "continue"]
        return {name: getattr(self.config, f"{name}_weight") for name in names}

    def decode(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.coder.decode(*self._parts(feature))

    def reward(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.twohot.mean(_read(self.reward_head, feature))

    def continues(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return _read(self.continue_head, feature).squeeze(-1).sigmoid()

    def _parts(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """(..., 1, F) -> h (..., D) and z (..., Z)"""
        h, z = feature.squeeze(-2).split([self.widths.deter, self.widths.latent], -1)
        return h, z

    def _prior(self, h: Tensor) -> Tensor:
        """Log probabilities of the prior, (..., D) -> (..., 1, G, C)."""
        return self._log_probs(self.prior(h)).unsqueeze(-3)

    def _log_probs(self, logits: Tensor) -> Tensor:
        """(..., Z) -> (..., G, C)"""
        return latent.log_probs(logits.unflatten(-1, (CATEGORICALS, self.widths.classes)), self.config.unimix)


def _read(head: nn.Module, feature: Tensor) -> Tensor:
    """(..., 1, F) -> (..., outputs), float32 or wider."""
    out = head(feature.squeeze(-2))
    return out.to(torch.promote_types(out.dtype, torch.float32))
