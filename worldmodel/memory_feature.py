"""Memory's own state as a part of features, as in R2I (Samsami et al. 2024, arXiv 2403.04253): an option.

There actor and critic read the state of the state-space model and not its output alone. Here each recurrent mixer's
state is normalised and projected for each token or block of tokens; the sum over mixers is added to the feature, which
reward, continue, actor and critic read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.mixers import Mixer
from worldmodel.norm import RMSNorm


class MemoryFeature(nn.Module):
    """Memories (...,) of a backbone -> (..., N, width)."""

    def __init__(self, layers: Sequence[Sequence[Mixer]], width: int):
        super().__init__()
        self.projections = nn.ModuleDict()
        self._mixers = {}  # not of this module: the backbone holds their parameters
        for i, mixers in enumerate(layers):
            for j, mixer in enumerate(mixers):
                if states := mixer.state_width:
                    self._mixers[f"{i}-{j}"] = mixer
                    norm = RMSNorm(states, eps=1e-5)
                    self.projections[f"{i}-{j}"] = nn.Sequential(norm, nn.Linear(states, width, bias=False))

    def forward(self, memory: Mapping[str, Any]) -> Tensor:
        """memory: of each layer and mixer, as `Backbone` returns it."""
        found = []
        for name, projection in self.projections.items():
            layer, index = name.split("-")
            mixer = self._mixers[name]
            found.append(mixer.spread(projection(mixer.recurrent_state(memory[layer][index]))))
        return torch.stack(found).sum(0)
