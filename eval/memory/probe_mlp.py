"""A probe: an MLP that predicts a quantity from frozen features, stopped where other mazes are predicted best."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from replay.progress import track

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Data: TypeAlias = tuple[Tensor, Tensor]
"""Inputs (n, D) of any float type and targets (n, K) float32."""


@dataclass(frozen=True)
class Fitting:
    """How probes are trained; the size is the Memory Maze paper's (arXiv 2210.13383)."""

    hidden: int = 1024
    layers: int = 4
    updates: int = 2_000
    batch: int = 512
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    check_every: int = 50
    patience: int = 6  # checks without improvement after which it stops


class Probe(nn.Module):
    """`shift + scale * mlp(inputs)`; the MLP's last layer is initialised to zero, and the output to `shift`.

    Args:
        inputs: it reads so many columns from the left.
        shift: (K,), as `scale`.
    """

    def __init__(self, inputs: int, shift: Tensor, scale: Tensor, fitting: Fitting) -> None:
        super().__init__()
        self.inputs = inputs
        widths = [inputs, *[fitting.hidden] * fitting.layers]
        hidden_layers: list[nn.Module] = []
        for before, width in zip(widths, widths[1:], strict=False):
            hidden_layers += [nn.Linear(before, width), nn.LayerNorm(width), nn.ELU()]
        last = nn.Linear(widths[-1], len(shift))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(*hidden_layers, last)
        self.shift, self.scale = nn.Buffer(shift), nn.Buffer(scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, D) -> (n, K) float32; the MLP computes in bfloat16."""
        # A context for each call: weights cast without gradients, or before an update, must not be used again.
        with torch.autocast(inputs.device.type, torch.bfloat16):
            out = self.mlp(inputs[:, : self.inputs].float())
        return self.shift + self.scale * out.float()


def fit(
    probe: Probe, loss: Loss, train: Data, validation: Data, fitting: Fitting, seed: int = 0, name: str = "probe"
) -> int:
    """Trains a probe in place by AdamW; it keeps the weights that are best on `validation`. Returns their update.

    0 where none is better than the initial constant. `name` stands before the progress line.
    """
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=fitting.learning_rate, weight_decay=fitting.weight_decay)
    best, best_update, weights = evaluate(probe, loss, validation), 0, copy.deepcopy(probe.state_dict())
    for update in track(range(1, fitting.updates + 1), "updates", name):
        chosen = torch.randint(len(train[0]), (fitting.batch,), generator=random).to(train[0].device)
        optimizer.zero_grad(set_to_none=True)
        loss(probe(train[0][chosen]), train[1][chosen]).backward()
        optimizer.step()
        if update % fitting.check_every == 0 or update == fitting.updates:
            found = evaluate(probe, loss, validation)
            if found < best:
                best, best_update, weights = found, update, copy.deepcopy(probe.state_dict())
            elif update - best_update >= fitting.patience * fitting.check_every:
                break
    probe.load_state_dict(weights)
    return best_update


@torch.no_grad()
def predict(probe: Probe, inputs: Tensor, batch: int = 4096) -> Tensor:
    """(n, D) -> (n, K), in parts that fit into memory."""
    return torch.cat([probe(part) for part in inputs.split(batch)])


def evaluate(probe: Probe, loss: Loss, data: Data) -> float:
    """The mean loss on all of the data."""
    return float(loss(predict(probe, data[0]), data[1]))
