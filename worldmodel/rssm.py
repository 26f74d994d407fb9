"""RSSM: DreamerV3's recurrent state-space model (Hafner et al. 2023, arXiv 2301.04104).

A frame is one token. With e_t the encoded frame::

    h_t = gru(h_{t-1}, z_{t-1}, action_t)                    block-diagonal; all inputs zero where is_first
    z_t ~ q(z | h_t, e_t)                                    32 categoricals, 1 % uniform, straight-through gradients
    p(z | h_t)                                               the prior, trained by the KL; 0.1 of the KL moves q

The posterior reads h_t, so frames are observed one after the other.

Letters: B batch, T frames, D width of h, Z of z, G categoricals, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel.base import Losses, ObserveOutput, SequenceBatch, State, WorldModel
from worldmodel.boundaries import gather_states
from worldmodel.checks import check_numbers
from worldmodel.heads import TwoHot
from worldmodel.latents import CategoricalLatents
from worldmodel.losses import ObservedWindow, latent_losses, loss_scales, reward_losses
from worldmodel.next_reward import NextReward, feature_columns, next_reward_errors
from worldmodel.rssm_networks import (
    CATEGORICALS,
    SIZES,
    BlockGRU,
    Head,
    ImageCoder,
    Posterior,
    VectorCoder,
    Widths,
    init_linear,
    mlp,
)


@dataclass
class RSSMConfig:
    """DreamerV3's recurrent state-space model (arXiv 2301.04104)."""

    name: str = "rssm"
    """World model, by name."""
    size: Literal["1M", "12M", "25M", "50M", "100M", "200M"] = "12M"
    """All widths, by the name of a published size: h has 512, 2048, 3072, 4096, 6144 or 8192 numbers."""
    hidden: int = 0
    """Units of hidden layers, all other widths in proportion (h has 8 times as many); 0: those of `size`."""
    state_interval: int = 16
    """Frames between the States that dreams start from; the length of a window is a multiple."""
    next_reward: bool = False
    """Predict the reward of each action before the next frame is drawn, and show it in features and State."""
    cosine_similarity: bool = False
    """Let the next-reward head read how similar the frame is to what memory expects of the next one."""
    memory_feature: int = 0
    """0: the feature holds the recurrent state h itself."""
    unimix: float = 0.01
    """Share of the uniform distribution mixed into every categorical."""
    free_nats: float = 1.0
    """KL below which dynamics and representation losses stop."""
    reconstruction_scale: float = 1.0
    """Scale of the squared error of the decoded frame, summed over its values."""
    dynamics_scale: float = 1.0
    """Scale of the KL that moves the prior."""
    next_latent_scale: float = 0.0
    """Scale of the KL of a second prior, of frame t + 1 by h_t, so that h_t holds what memory knows of it; 0: none."""
    representation_scale: float = 0.1
    """Scale of the KL that moves the posterior."""
    reward_scale: float = 1.0
    """Scale of the reward's two-hot cross-entropy."""
    next_reward_scale: float = 1.0
    """Scale of the next-reward head's squared error, in symlog."""
    continue_scale: float = 1.0
    """Scale of the continue flag's binary cross-entropy."""

    def widths(self) -> Widths:
        """All widths, by `hidden` or else by `size`."""
        return Widths(self.hidden or SIZES[self.size])

    def __post_init__(self) -> None:
        check_numbers(
            "worldmodel",
            self,
            may_be_zero={"hidden", "memory_feature", "unimix", "free_nats"},
            at_most_one={"unimix"},
        )
        if self.memory_feature:
            raise ValueError("worldmodel.memory_feature is not read by rssm, whose feature holds the recurrent state h")
        for error in next_reward_errors(self):
            raise ValueError(error)

    def unread(self) -> set[str]:
        """The fields that a model of this configuration does not read."""
        unread = {"memory_feature"} | ({"size"} if self.hidden else set())
        return unread if self.next_reward else unread | {"cosine_similarity", "next_reward_scale"}


class RSSM(WorldModel):
    """See the module's docstring; `shape` is that of one observation, `actions` the width of an action.

    A feature is [h, predicted rewards, z], the second where the model has them.
    """

    tokens = 1

    def __init__(self, config: RSSMConfig, shape: tuple[int, ...], actions: int):
        super().__init__()
        self.config, self.actions = config, actions
        widths = self.widths = config.widths()
        self.latents = CategoricalLatents(CATEGORICALS, widths.classes, config.unimix)
        self.rewards_width = (1 + actions) * config.next_reward
        self.feature_width = widths.deter + self.rewards_width + widths.latent
        self.coder: ImageCoder | VectorCoder
        self.coder = ImageCoder(shape, widths) if len(shape) == 3 else VectorCoder(shape, widths)
        self.core = BlockGRU(widths.deter, widths.latent, actions, widths.hidden)
        self.posterior = Posterior(widths.deter, self.coder.width, widths.hidden, widths.latent)
        self.prior = self._prior_head()
        self.twohot = TwoHot()
        self.reward_head = Head(self.feature_width, widths.hidden, len(self.twohot.bins), scale=0.0)
        self.twohot.init_output(self.reward_head[-1])
        self.continue_head = Head(self.feature_width, widths.hidden, 1)
        self.next_prior = self._prior_head() if config.next_latent_scale else None
        self.next_reward = None
        if config.next_reward:
            self.next_reward = NextReward(
                1, widths.deter, widths.latent, actions, widths.hidden, config.cosine_similarity
            )

    def _prior_head(self) -> nn.Sequential:
        deter, hidden = self.widths.deter, self.widths.hidden
        return nn.Sequential(mlp(deter, hidden, 2), init_linear(nn.Linear(hidden, self.widths.latent)))

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

    def observe(self, batch: SequenceBatch, state: State, sample: bool = True) -> ObserveOutput:
        """See `WorldModel`; a loop over frames."""
        return self._observe(batch, state, sample).output

    def _observe(self, batch: SequenceBatch, state: State, sample: bool) -> ObservedWindow:
        codes = self.posterior.from_frame(self.coder.encode(batch.observation))  # (B, T, hidden)
        first = batch.is_first.unsqueeze(-1)
        h, z = state["h"].squeeze(1), state["z"].squeeze(1)
        hs, zs, posteriors = [], [], []
        # unbound at once: the gradient of each x[:, t] would be as large as x
        for code, action, begins in zip(*(x.unbind(1) for x in (codes, batch.action, first)), strict=True):
            h = self.core(*(x.masked_fill(begins, 0.0) for x in (h, z, action)))
            log_p = self.latents.posterior(self.posterior(h, code))  # (B, G, C)
            z = self.latents.draw(log_p, sample).to(h.dtype)
            hs.append(h)
            zs.append(z)
            posteriors.append(log_p)
        h, z = torch.stack(hs, 1).unsqueeze(2), torch.stack(zs, 1).unsqueeze(2)  # (B, T, 1, ...)
        frames = {"h": h, "z": z}
        next_prior = self._next_prior(h)
        next_reward = None
        if self.next_reward is not None:
            next_reward = self.next_reward.observe(
                h, z, self._mean(next_prior), batch.action.masked_fill(first, 0.0), first, state
            )
            frames |= next_reward.entries()
        entries, ends = gather_states(frames, state, self.config.state_interval)
        starts = TensorDict(entries, batch_size=[len(h), len(ends)])
        output = ObserveOutput(self._feature(frames), starts, torch.tensor(ends, device=h.device), starts[:, -1])
        posterior = torch.stack(posteriors, 1).unsqueeze(2)
        return ObservedWindow(output, h, z, posterior, self.latents.prior(self.prior(h)), next_prior, next_reward)

    def _next_prior(self, h: Tensor) -> Tensor | None:
        """Log probabilities of the next frame's latents (..., 1, G, C), where the model has a prior of them."""
        return None if self.next_prior is None else self.latents.prior(self.next_prior(h))

    def _mean(self, distribution: Tensor | None) -> Tensor | None:
        return None if distribution is None else self.latents.mean(distribution)

    def _feature(self, frame: Mapping[str, Tensor]) -> Tensor:
        """Entries of States -> (..., 1, F)"""
        parts = [frame["h"], frame["z"]]
        if self.next_reward is not None:
            parts.insert(1, feature_columns(frame, frame["z"]))
        return torch.cat(parts, -1)

    def dream(self, state: State, action: Tensor, sample: bool = True) -> State:
        """See `WorldModel`."""
        h = self.core(state["h"].squeeze(1), state["z"].squeeze(1), action).unsqueeze(1)
        z = self.latents.draw(self.latents.prior(self.prior(h)), sample).to(h.dtype)
        frame = {"h": h, "z": z}
        if self.next_reward is not None:
            expected = self._mean(self._next_prior(h)) if self.config.cosine_similarity else None
            frame |= self.next_reward.dream(h, z, expected, action, state)
        return TensorDict(frame, batch_size=[len(action)])

    def feature(self, state: State) -> Tensor:
        """See `WorldModel`."""
        return self._feature(state)

    def loss(self, batch: SequenceBatch, state: State) -> tuple[Losses, ObserveOutput, dict[str, Tensor]]:
        """See `WorldModel`; the names are those of `loss_scales`."""
        window = self._observe(batch, state, sample=True)
        feature = window.output.feature
        losses, metrics = latent_losses(self.latents, window, batch, self.config.free_nats)
        losses |= reward_losses(window, self.reward_head(feature), self.continue_head(feature), self.twohot, batch)
        losses["reconstruction"] = self.coder.loss(window.h.squeeze(-2), window.z.squeeze(-2), batch.observation)
        return losses, window.output, metrics

    def kl(self, batch: SequenceBatch, state: State) -> Tensor:
        """See `WorldModel`."""
        window = self._observe(batch, state, sample=False)
        return self.latents.kl(window.posterior, window.prior)

    def loss_scales(self) -> dict[str, float]:
        """See `WorldModel`."""
        return loss_scales(self.config, "reconstruction", "dynamics", "representation", "reward", "continue")

    def decode(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        widths = [self.widths.deter, self.rewards_width, self.widths.latent]
        h, _, z = feature.squeeze(-2).split(widths, -1)
        return self.coder.decode(h, z)

    def reward(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.twohot.mean(self.reward_head(feature))

    def continue_prob(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.continue_head(feature).squeeze(-1).sigmoid()
