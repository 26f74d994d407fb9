"""The contract of a mixer: what moves information between tokens, and what it remembers."""

from abc import ABC, abstractmethod

from tensordict import TensorDict
from torch import Tensor, nn


class Mixer(nn.Module, ABC):
    """Mixes tokens over time and space, causally in time; all memory is an argument and a result.

    Within a frame every token may see every other; no frame sees a later one.
    """

    @abstractmethod
    def initial(self, batch: int) -> TensorDict:
        """Memory of nothing, batch size (B,)."""

    @abstractmethod
    def forward(self, x: Tensor, memory: TensorDict, reset: Tensor, state_interval: int) -> tuple[Tensor, TensorDict]:
        """x (B, T, N, D), reset (B, T) bool -> y (B, T, N, D) and memories, batch size (B, K).

        K counts the frames of `mamba2.kept(T, state_interval)`: each block's last, and the window's last. A reset
        at frame t forgets all that came before t.
        """
