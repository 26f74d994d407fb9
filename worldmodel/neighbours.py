"""World models like those of other papers, of our mixers: R2I, Drama and STORM.

The tokenizer, the losses and the interface are LSSVWM's, as is the memory that is carried from window to window and
while acting: what differs between them is the memory, and how wide it is. docs/neighbours.md says what else differs
from the papers.
"""

from dataclasses import dataclass
from typing import Any

from worldmodel.lssvwm import LSSVWM, LSSVWMConfig

NEIGHBOURS: dict[str, tuple[str, dict[str, Any]]] = {
    # Samsami et al. 2024, arXiv 2403.04253: five layers of S5; nothing else looks back
    "r2i-like": ("s5", {"layers": 5, "width": 512, "latents": 32, "classes": 32, "heads": 8, "local_frames": 1}),
    # Wang et al. 2025, arXiv 2410.08893: two layers of Mamba-2
    "drama-like": (
        "mamba",
        {"layers": 2, "width": 512, "expand": 2, "state": 16, "headdim": 64, "latents": 32, "classes": 32},
    ),
    # Zhang et al. 2023, arXiv 2310.09615: a transformer of two layers over windows of 64 frames
    "storm-like": (
        "transformer",
        {"layers": 2, "width": 512, "heads": 8, "global_frames": 64, "latents": 32, "classes": 32},
    ),
}
"""By name: the stack of `worldmodel.lssvwm.LAYER_TYPES`, and the values that differ from LSSVWM's defaults."""


@dataclass
class NeighbourConfig(LSSVWMConfig):
    """A world model like another paper's (R2I, Drama, STORM), of our mixers."""

    def stack(self) -> LSSVWMConfig:
        """The same under the name of its stack."""
        values = {name: value for name, value in vars(self).items() if name != "name"}
        return LSSVWMConfig(name=NEIGHBOURS[self.name][0], **values)


class Neighbour(LSSVWM):
    """LSSVWM of the stack that a neighbour's name stands for."""

    def __init__(self, config: NeighbourConfig, shape: tuple[int, ...], actions: int):
        super().__init__(config.stack(), shape, actions)
        self.config = config
