"""The contract of a mixer: what moves information between tokens, and what it remembers."""

from abc import ABC, abstractmethod

from tensordict import TensorDict
from torch import Tensor, nn


class Mixer(nn.Module, ABC):
    """Mixes tokens over time and space, causally in time; all memory is an argument and a result.

    Within a frame every token may see every other; no frame sees a later one.
    """

    state_width: int = 0
    """Numbers of the recurrent state of one token, or block of tokens; 0 where there is none."""

    @abstractmethod
    def initial(self, batch: int) -> TensorDict:
        """Empty memory, batch size (B,)."""

    @abstractmethod
    def forward(self, x: Tensor, memory: TensorDict, reset: Tensor, state_interval: int) -> tuple[Tensor, TensorDict]:
        """x (B, T, N, D), reset (B, T) bool -> y (B, T, N, D) and memories, batch size (B, K).

        Memories are those at the K frames of `boundaries(T, state_interval)`. A reset at frame t forgets all that
        came before t.
        """

    def recurrent_state(self, memory: TensorDict) -> Tensor:
        """Memory (...,) -> (..., tokens or blocks, state_width), of a mixer with a recurrent state."""
        raise NotImplementedError(f"{type(self).__name__} has no recurrent state")

    def spread(self, x: Tensor) -> Tensor:
        """(..., tokens or blocks, F) -> (..., N, F): to each token what its `recurrent_state` has."""
        return x
