"""The one interface that every world model satisfies, and the types that cross it.

Letters: B batch, T frames, N tokens a frame, F width of a token's feature, A actions, K block boundaries.

Time. A row of experience is an action and all that came of it::

    row t:    action_t  ->  observation_t, reward_t, is_first_t, terminated_t
    latent:                 z_t ~ q(z | observation_t)      from the current frame alone
    memory:   h_t = f(z_<t, action_<=t)                     from everything before frame t
    feature:  (h_t, z_t)  ->  policy, value, reward_t, continue_t, decoded frame
    dream:    z_t ~ p(z | h_t) in place of the posterior; the rest is the same

The first row of an episode has ``is_first``, a zero action and zero reward. The policy that sees feature t
chooses action_{t+1}, which stands in row t+1.

A model may read h_t in its posterior as well, z_t ~ q(z | h_t, observation_t), as RSSM does: at the price of an
`observe` that takes frames one after the other, since each h_t then waits for z_{t-1}.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from tensordict import TensorClass, TensorDict
from torch import Tensor, nn

State: TypeAlias = TensorDict
"""What is needed to go on from frame t: the mixers' memory, h_t and z_t; batch size (B,). Never changed in place."""

Losses = dict[str, Tensor]
"""Scalar losses by name, not yet weighted."""


class SequenceBatch(TensorClass):
    """Experience, batch size (B, T). See the module's docstring for which action belongs to which observation."""

    observation: Tensor  # (B, T, H, W, C) uint8, or (B, T, V) float32
    action: Tensor  # (B, T, A) float32: one-hot, or values in -1..1; zero where is_first
    reward: Tensor  # (B, T) float32
    is_first: Tensor  # (B, T) bool: memory begins here
    terminated: Tensor  # (B, T) bool: no future after this row (a time limit does not count)


Windows = Callable[[int, int], SequenceBatch]
"""(sequences, frames) -> so many windows of experience, each from a random row; a new draw at every call."""


@dataclass(frozen=True)
class ObserveOutput:
    """What a window of T real frames gives: a feature for each frame, and States to dream or go on from."""

    feature: Tensor  # (B, T, N, F): (h_t, z_t) of each token, and what else a model puts there
    start_states: State  # batch (B, K): States at the block boundaries, each with its whole past in memory
    start_index: Tensor  # (K,): the frame that each start stands at
    last_state: State  # batch (B,): the State after the window's last frame


class WorldModel(nn.Module, ABC):
    """A learned simulator. Every subclass passes tests/worldmodel/test_conformance.py."""

    actions: int
    tokens: int
    feature_width: int

    def pretrain(self, windows: Windows, report: Callable[[str], None]) -> None:
        """What is taught alone before the first update, from experience; nothing unless a model has such a stage.

        Args:
            windows: draws experience.
            report: takes a line for the log.
        """
        return

    @abstractmethod
    def initial(self, batch: int) -> State:
        """The State before any frame, for `batch` sequences; its h and z are zero."""

    @abstractmethod
    def observe(self, batch: SequenceBatch, state: State, sample: bool = True) -> ObserveOutput:
        """T real frames (T = 1 acts). Without `sample`, the most likely latents."""

    @abstractmethod
    def dream(self, state: State, action: Tensor, sample: bool = True) -> State:
        """One imagined frame after `action` (B, A): memory reads what stands in `state`, z comes from the prior."""

    def open_loop(self, state: State) -> State:
        """The State whose own frame the next `dream` does not read: it predicts from memory and actions alone.

        Errors of imagined frames then do not accumulate. Models that are not trained so return `state`.
        """
        return state

    @abstractmethod
    def feature(self, state: State) -> Tensor:
        """(..., N, F): the feature of the frame that a State stands at."""

    @abstractmethod
    def loss(self, batch: SequenceBatch, state: State) -> tuple[Losses, ObserveOutput, dict[str, Tensor]]:
        """Losses by name, what observing the batch gives, and metrics to log."""

    @abstractmethod
    def kl(self, batch: SequenceBatch, state: State) -> Tensor:
        """(B, T): KL(posterior || prior) of each frame in nats, the most likely latents observed."""

    @abstractmethod
    def loss_scales(self) -> dict[str, float]:
        """The factor of each loss in the total: the same keys as `loss` returns."""

    @abstractmethod
    def decode(self, feature: Tensor) -> Tensor:
        """(..., N, F) -> observations: images float (..., H, W, C), vectors (..., V).

        Images are in about 0..1: clamp them before they are shown.
        """

    @abstractmethod
    def reward(self, feature: Tensor) -> Tensor:
        """(..., N, F) -> (...): the expected reward of the frame."""

    @abstractmethod
    def continue_prob(self, feature: Tensor) -> Tensor:
        """(..., N, F) -> (...): the probability that the episode goes on after the frame."""


def reset_nonfinite(state: State, first: Tensor) -> State:
    """The State with zeros for what is not finite in it, in the sequences in which memory begins; first (B,).

    A reset multiplies the past by 0, and NaN times 0 is NaN.
    """
    if not first.is_cuda and not first.any():  # no look at values on a GPU: it would make the host wait
        return state
    return state.apply(lambda x: x.masked_fill(first.view(-1, *[1] * (x.ndim - 1)) & ~x.isfinite(), 0))


def total(losses: Losses, scales: dict[str, float]) -> Tensor:
    """The sum of losses times their scales. KeyError where the names differ."""
    if losses.keys() != scales.keys():
        raise KeyError(f"losses {sorted(losses)} and loss scales {sorted(scales)} differ")
    return torch.stack([losses[name] * scales[name] for name in losses]).sum()
