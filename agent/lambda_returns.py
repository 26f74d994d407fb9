"""Returns of imagined and of replayed experience, and their normalizer (DreamerV3, Hafner et al. 2023).

Time runs along the first axis. Step t's feature is followed by reward_{t+1} and continue_{t+1}.
"""

import torch
from torch import Tensor, nn


def lambda_returns(reward: Tensor, carry: Tensor, value: Tensor, lam: float) -> Tensor:
    """TD(lambda) returns (T, ...) from rewards and carries (T, ...) of the steps after, and values (T + 1, ...).

    R_t = reward_{t+1} + carry_{t+1} ((1 - lam) value_{t+1} + lam R_{t+1}), from R_T = value_T; a carry is the
    discount times the probability that the episode goes on.
    """
    out, following = [], value[-1]
    for t in reversed(range(len(reward))):
        following = reward[t] + carry[t] * ((1 - lam) * value[t + 1] + lam * following)
        out.append(following)
    return torch.stack(out[::-1])


def replay_returns(
    reward: Tensor, terminated: Tensor, is_first: Tensor, value: Tensor, discount: float, lam: float
) -> tuple[Tensor, Tensor]:
    """TD(lambda) returns (T, ...) of replayed rows, and 1 for those whose next row is of their episode, else 0.

    Where the next row begins another episode, and at the window's end, the return is the value itself.
    """
    has_next = torch.zeros_like(reward)
    has_next[:-1] = (~is_first[1:]).to(reward.dtype)
    out, following = [value[-1]], value[-1]
    for t in reversed(range(len(reward) - 1)):
        carry = discount * (~terminated[t + 1]).to(reward.dtype)
        following = reward[t + 1] + carry * ((1 - lam) * value[t + 1] + lam * following)
        following = torch.where(is_first[t + 1], value[t], following)
        out.append(following)
    return torch.stack(out[::-1]), has_next


class ReturnNormalizer(nn.Module):
    """The running width between the 5th and 95th percentiles of returns, never below 1."""

    low: Tensor
    high: Tensor

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def update(self, returns: Tensor) -> Tensor:
        """Moves toward these returns' percentiles; gives the divisor for advantages."""
        low, high = torch.quantile(returns.detach().float().flatten(), returns.new_tensor([0.05, 0.95]).float())
        finite = torch.isfinite(low) & torch.isfinite(high)  # one bad update must not spoil all that follow
        self.low.copy_(torch.where(finite, self.low.lerp(low, self.rate), self.low))
        self.high.copy_(torch.where(finite, self.high.lerp(high, self.rate), self.high))
        return (self.high - self.low).clamp_min(1.0)
