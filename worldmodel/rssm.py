"""RSSM: DreamerV3's recurrent state-space model (Hafner et al. 2023, arXiv 2301.04104), the neighbour to compare with.

A frame is one token. With e_t the encoded frame::

    h_t = gru(h_{t-1}, z_{t-1}, action_t)                    block-diagonal; both and the action zero where is_first
    z_t ~ q(z | h_t, e_t)                                    32 categoricals, 1 % uniform, straight-through gradients
    p(z | h_t)                                               learns to expect them: 1.0 of the KL; 0.1 moves q

The posterior reads h_t, so frames are observed one after the other.

Letters: B batch, T frames, D width of h, Z of z, G categoricals, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel import latents
from worldmodel.base import Losses, ObserveOutput, SequenceBatch, State, WorldModel
from worldmodel.block_gru import BlockGRU
from worldmodel.boundaries import boundaries, gather_boundaries
from worldmodel.cnn import ImageCoder
from worldmodel.dense import mlp, norm, start
from worldmodel.heads import TwoHot
from worldmodel.next_reward import Prediction, next_reward_head
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
    state_interval: int = 16
    """Frames between the States that dreams start from; a window is a multiple of them."""
    next_reward: bool = False
    """Predict the reward of each action before the next frame is drawn, and show it in features and State."""
    cosine_similarity: bool = False
    """Let the next-reward head read how similar the frame is to what memory expects of the next one."""
    unimix: float = 0.01
    """Share of the uniform distribution mixed into every categorical."""
    free_nats: float = 1.0
    """KL below which dynamics and representation losses stop."""
    reconstruction_scale: float = 1.0
    """Weight of the squared error of the decoded frame, summed over its values."""
    dynamics_scale: float = 1.0
    """Weight of the KL that moves the prior."""
    next_latent_scale: float = 0.0
    """Weight of the KL of a second prior, of frame t + 1 by h_t, so that h_t holds what memory has for it; 0: none."""
    representation_scale: float = 0.1
    """Weight of the KL that moves the posterior."""
    reward_scale: float = 1.0
    """Weight of the reward's two-hot cross-entropy."""
    next_reward_scale: float = 1.0
    """Weight of the next-reward head's squared error, in symlog."""
    continue_scale: float = 1.0
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
        self.rewards_width = (1 + actions) * config.next_reward
        self.feature_width = widths.deter + self.rewards_width + widths.latent
        self.coder: ImageCoder | VectorCoder
        self.coder = ImageCoder(shape, widths) if len(shape) == 3 else VectorCoder(shape, widths)
        self.core = BlockGRU(widths.deter, widths.latent, actions, widths.hidden)
        self.posterior = Posterior(widths.deter, self.coder.width, widths.hidden, widths.latent)
        self.prior = self._prior_head()
        self.twohot = TwoHot()
        self.reward_head = self._head(len(self.twohot.bins), scale=0.0)
        self.twohot.init_output(self.reward_head[-1])
        self.continue_head = self._head(1)
        self.next_prior = self._prior_head() if config.next_latent_scale else None
        self.next_reward = next_reward_head(config, 1, widths.deter, widths.latent, actions, widths.hidden)

    def _prior_head(self) -> nn.Sequential:
        deter, hidden = self.widths.deter, self.widths.hidden
        return nn.Sequential(mlp(deter, hidden, 2), start(nn.Linear(hidden, self.widths.latent)))

    def _head(self, outputs: int, scale: float = 1.0) -> nn.Sequential:
        """One hidden layer and one that reads it, which starts at `scale` times its weights: at 0 neutral."""
        out = start(nn.Linear(self.widths.hidden, outputs))
        with torch.no_grad():
            out.weight.mul_(scale)
        return nn.Sequential(mlp(self.feature_width, self.widths.hidden, 1), out)

    def initial(self, batch: int) -> State:
        """See `WorldModel`."""
        like = self.core.norm.weight
        state = {
            "h": like.new_zeros(batch, 1, self.widths.deter),
            "z": like.new_zeros(batch, 1, self.widths.latent),
        }
        if self.next_reward is not None:
            state |= self.next_reward.initial(like, batch)
        return TensorDict(state, batch_size=[batch])

    def observe(self, rows: SequenceBatch, state: State, sample: bool = True) -> ObserveOutput:
        """See `WorldModel`; a loop over frames."""
        return self._observe(rows, state, sample).output

    def _observe(self, rows: SequenceBatch, state: State, sample: bool) -> "_Observed":
        B, T = rows.batch_size
        frames = self.posterior.from_frame(self.coder.encode(rows.observation))  # (B, T, hidden)
        first = rows.is_first.unsqueeze(-1)
        h, z = state["h"].squeeze(1), state["z"].squeeze(1)
        hs, zs, posteriors = [], [], []
        # unbound at once: the gradient of each x[:, t] would be as large as x
        for frame, act, begins in zip(*(x.unbind(1) for x in (frames, rows.action, first)), strict=True):
            h = self.core(*(x.masked_fill(begins, 0.0) for x in (h, z, act)))
            log_p = self._log_probs(self.posterior(h, frame))  # (B, G, C)
            z = latents.draw(log_p, sample).flatten(-2).to(h.dtype)
            hs.append(h)
            zs.append(z)
            posteriors.append(log_p)
        h, z = torch.stack(hs, 1).unsqueeze(2), torch.stack(zs, 1).unsqueeze(2)  # (B, T, 1, ...)
        next_prior = self._next_log_probs(h)
        frames, reward = {"h": h, "z": z}, None
        if self.next_reward is not None:
            action = rows.action.masked_fill(first, 0.0)
            reward = self.next_reward.observe(h, z, self._expected(next_prior, z), action, first, state)
            frames |= {"predicted_reward": reward.predicted_reward.detach(), "next_reward": reward.next_reward.detach()}
        ends = boundaries(T, self.config.state_interval)
        kept_frames = {name: gather_boundaries(x, ends).to(state[name].dtype) for name, x in frames.items()}
        starts = TensorDict(kept_frames, batch_size=[B, len(ends)])
        output = ObserveOutput(self._feature(frames), starts, torch.tensor(ends, device=h.device), starts[:, -1])
        return _Observed(output, h, z, torch.stack(posteriors, 1).unsqueeze(2), next_prior, reward)

    def _next_log_probs(self, h: Tensor) -> Tensor | None:
        """Of the next frame's latents, (..., N, G, C), where the model has a prior of them."""
        return None if self.next_prior is None else self._log_probs(self.next_prior(h))

    def _expected(self, next_prior: Tensor | None, like: Tensor) -> Tensor | None:
        """The next frame\'s expected latents (..., 1, Z), where the next-reward head compares with them."""
        if next_prior is None or not self.config.cosine_similarity:
            return None
        return next_prior.detach().exp().flatten(-2).to(like.dtype)

    def _feature(self, frame: Mapping[str, Tensor]) -> Tensor:
        """(..., 1, F): h, the predicted rewards where the model has them, z."""
        h, z = frame["h"], frame["z"]
        if self.next_reward is None:
            return torch.cat([h, z], -1)
        return torch.cat([h, self.next_reward.columns(frame["predicted_reward"], frame["next_reward"], z), z], -1)

    def dream(self, state: State, action: Tensor, sample: bool = True) -> State:
        """See `WorldModel`."""
        h = self.core(state["h"].squeeze(1), state["z"].squeeze(1), action).unsqueeze(1)
        z = latents.draw(self._log_probs(self.prior(h)), sample).flatten(-2).to(h.dtype)
        frame = {"h": h, "z": z}
        if self.next_reward is not None:
            next_prior = self._next_log_probs(h) if self.config.cosine_similarity else None
            frame |= self.next_reward.dream(h, z, self._expected(next_prior, z), action, state)
        return TensorDict(frame, batch_size=[len(action)])

    def feature(self, state: State) -> Tensor:
        """See `WorldModel`."""
        return self._feature(state)

    def loss(self, rows: SequenceBatch, state: State) -> tuple[Losses, ObserveOutput, dict[str, Tensor]]:
        """See `WorldModel`; the names are those of `weights`."""
        output, h, z, posterior, next_prior, predicted = self._observe(rows, state, sample=True)
        feature = output.feature
        dynamics, representation, surprise = latents.balanced_kl(posterior, self._prior(h), self.config.free_nats)
        reward = self.twohot.loss(_read(self.reward_head, feature), rows.reward)
        # a first row's is of a past that is cut off, or 0
        follows = (~rows.is_first).to(reward.dtype)
        losses = {
            "reconstruction": self.coder.loss(h.squeeze(-2), z.squeeze(-2), rows.observation),
            "dynamics": dynamics,
            "representation": representation,
            "reward": (reward * follows).mean(),
            "continue": nn.functional.binary_cross_entropy_with_logits(
                _read(self.continue_head, feature).squeeze(-1), (~rows.terminated).to(feature.dtype)
            ),
        }
        if next_prior is not None:
            losses["next_latent"] = latents.next_latent_kl(posterior, next_prior, follows)
        if self.next_reward is not None and predicted is not None:
            losses["next_reward"] = self.next_reward.loss(predicted.previous, rows.action, rows.reward, follows)
        entropy = -(posterior.exp() * posterior).sum((-1, -2, -3)).mean().detach()
        return losses, output, {"kl": surprise, "entropy/posterior": entropy}

    def kl(self, rows: SequenceBatch, state: State) -> Tensor:
        """See `WorldModel`; latents are at their mode."""
        observed = self._observe(rows, state, sample=False)
        return latents.kl(observed.posterior, self._prior(observed.h))

    def loss_scales(self) -> dict[str, float]:
        """See `WorldModel`."""
        names = ["reconstruction", "dynamics", "representation", "reward", "continue"]
        names += ["next_latent"] * (self.next_prior is not None) + ["next_reward"] * (self.next_reward is not None)
        return {name: getattr(self.config, f"{name}_scale") for name in names}

    def decode(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        widths = [self.widths.deter, self.rewards_width, self.widths.latent]
        h, _, z = feature.squeeze(-2).split(widths, -1)
        return self.coder.decode(h, z)

    def reward(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.twohot.mean(_read(self.reward_head, feature))

    def continue_prob(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return _read(self.continue_head, feature).squeeze(-1).sigmoid()

    def _prior(self, h: Tensor) -> Tensor:
        """Log probabilities of the prior, (..., 1, D) -> (..., 1, G, C)."""
        return self._log_probs(self.prior(h))

    def _log_probs(self, logits: Tensor) -> Tensor:
        """(..., Z) -> (..., G, C)"""
        return latents.log_probs(logits.unflatten(-1, (CATEGORICALS, self.widths.classes)), self.config.unimix)


class _Observed(NamedTuple):
    """What observing gives, with what losses are made of."""

    output: ObserveOutput
    h: Tensor  # (B, T, 1, D)
    z: Tensor  # (B, T, 1, Z)
    posterior: Tensor  # (B, T, 1, G, C): log probabilities
    next_prior: Tensor | None  # the same of the next frame, by h
    reward: Prediction | None


def _read(head: nn.Module, feature: Tensor) -> Tensor:
    """(..., 1, F) -> (..., outputs), float32 or wider."""
    out = head(feature.squeeze(-2))
    return out.to(torch.promote_types(out.dtype, torch.float32))
