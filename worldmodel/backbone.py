"""A stack of layers (arXiv 2505.20171, figure 3): block-wise scan, local attention, MLP, each after a norm whose scale
and shift depend on the action.

Letters: B batch, T frames, N tokens, D width, A actions.
"""

from collections.abc import Iterable
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel.mixers import Mixer
from worldmodel.norm import RMSNorm
from worldmodel.place_memory import PlaceMemory


class AdaptiveNorm(nn.Module):
    """RMSNorm whose scale and shift are linear in the frame's condition (adaptive layer norm)."""

    def __init__(self, width: int, condition: int):
        super().__init__()
        self.norm = RMSNorm(width, eps=1e-5)
        self.modulation = nn.Linear(condition, 2 * width)
        nn.init.normal_(self.modulation.weight, std=0.02)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, T, N, D), condition (B, T, A') -> (B, T, N, D)"""
        scale, shift = self.modulation(condition).unsqueeze(-2).chunk(2, -1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class Layer(nn.Module):
    """Mixers in order, then an MLP on each token; every one residual."""

    def __init__(self, width: int, mixers: list[Mixer], condition: int, ratio: float = 3.0):
        super().__init__()
        hidden = round(ratio * width)
        self.mixers = nn.ModuleList(mixers)
        self.norms = nn.ModuleList(AdaptiveNorm(width, condition) for _ in range(len(mixers) + 1))
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width))

    def initial(self, batch: int) -> TensorDict:
        """Empty memory of each mixer."""
        return _initial(self.mixers, batch)

    def forward(
        self, x: Tensor, condition: Tensor, memory: TensorDict, reset: Tensor, state_interval: int
    ) -> tuple[Tensor, TensorDict]:
        """As `Mixer`, with the condition (B, T, A')."""
        memories = []
        for i, mixer in enumerate(self.mixers):
            y, kept = mixer(self.norms[i](x, condition), memory[str(i)], reset, state_interval)
            memories.append(kept)
            x = x + y
        x = x + self.mlp(self.norms[-1](x, condition))
        return x, _combined(memories)


class Backbone(nn.Module):
    """h_t = f(z_<t, action_<=t), from the latents of the frame before, the action, and what a place memory holds."""

    def __init__(
        self,
        inputs: int,
        actions: int,
        tokens: int,
        width: int,
        layers: list[list[Mixer]],
        ratio: float = 3.0,
        places: PlaceMemory | None = None,
    ):
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.places = places
        if places is not None:
            self.embed_places = nn.Linear(places.read_width, width, bias=False)
        self.pos_emb = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.act = nn.Sequential(nn.Linear(actions, width // 2), nn.SiLU())
        self.layers = nn.ModuleList(Layer(width, mixers, width // 2, ratio) for mixers in layers)
        self.norm = RMSNorm(width, eps=1e-5)

    def initial(self, batch: int) -> TensorDict:
        """Empty memory of each layer, and of places."""
        memory = _initial(self.layers, batch)
        return memory if self.places is None else memory.set("places", self.places.initial(batch))

    def forward(
        self, z: Tensor, action: Tensor, memory: TensorDict, reset: Tensor, state_interval: int
    ) -> tuple[Tensor, Tensor | None, TensorDict]:
        """z (B, T, N, Z): the latents of the frame before each; action (B, T, A); reset (B, T).

        Returns h (B, T, N, D), the latents that a place memory expects (B, T, N, Z), and memories (B, K) as `Mixer`
        does.
        """
        x = self.embed(z) + self.pos_emb
        expected = places = None
        if self.places is not None:
            found, expected, places = self.places(z, action, memory["places"], reset, state_interval)
            x = x + self.embed_places(found.to(x.dtype))
        condition = self.act(action)
        memories = []
        for i, layer in enumerate(self.layers):
            x, kept = layer(x, condition, memory[str(i)], reset, state_interval)
            memories.append(kept)
        combined = _combined(memories)
        return self.norm(x), expected, combined if places is None else combined.set("places", places)


def _initial(parts: Iterable[Any], batch: int) -> TensorDict:
    return TensorDict({str(i): part.initial(batch) for i, part in enumerate(parts)}, batch_size=[batch])


def _combined(memories: list[TensorDict]) -> TensorDict:
    return TensorDict({str(i): memory for i, memory in enumerate(memories)}, batch_size=memories[0].batch_size)
