"""The optimiser's step: AdamW or LaProp, warm-up, and clipping of gradients by norm or by each parameter's own."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

Optimizer = Literal["adamw", "laprop"]
"""AdamW (Loshchilov & Hutter 2019), or LaProp (Ziyin et al. 2020, arXiv 2002.04839), which DreamerV3 uses."""


class LaProp(torch.optim.Optimizer):
    """Momentum over gradients that are divided by their root mean square, where Adam divides the momentum.

    v = b2 v + (1 - b2) g^2;  m = b1 m + (1 - b1) g / (sqrt(v / (1 - b2^t)) + eps);  p = p - lr m / (1 - b1^t)
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-20
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step on the parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for p in parameters:
                if not self.state[p]:
                    self.state[p] = {
                        "step": torch.zeros(()),
                        "exp_avg": torch.zeros_like(p),
                        "exp_avg_sq": torch.zeros_like(p),
                    }
            states = [self.state[p] for p in parameters]
            gradients = [p.grad for p in parameters if p.grad is not None]
            means, squares = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
            for s in states:
                s["step"] += 1
            t, (b1, b2) = float(states[0]["step"]), group["betas"]
            torch._foreach_mul_(squares, b2)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - b2)
            scale = torch._foreach_sqrt(torch._foreach_div(squares, 1 - b2**t))
            torch._foreach_add_(scale, group["eps"])
            torch._foreach_lerp_(means, torch._foreach_div(gradients, scale), 1 - b1)
            torch._foreach_add_(parameters, means, alpha=-group["lr"] / (1 - b1**t))


def make_optimizer(kind: Optimizer, module: torch.nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """An optimiser of the module's trained parameters."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    if kind == "laprop":
        return LaProp(parameters, learning_rate)
    return torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0, fused=True)


@torch.no_grad()
def clip_each(parameters: Iterable[Tensor], share: float, least: float = 1e-3) -> None:
    """Adaptive gradient clipping (AGC, Brock et al. 2021, arXiv 2102.06171), by whole tensors as in DreamerV3.

    Each gradient's norm becomes at most `share` of its parameter's norm, which counts as `least` at the least.
    """
    chosen = [p for p in parameters if p.grad is not None]
    gradients = [p.grad for p in chosen if p.grad is not None]
    if not gradients:
        return
    most = torch._foreach_mul(torch._foreach_maximum(torch._foreach_norm(chosen), least), share)
    ratio = torch._foreach_div(most, torch._foreach_maximum(torch._foreach_norm(gradients), 1e-12))
    torch._foreach_mul_(gradients, torch._foreach_minimum(ratio, 1.0))
