"""How a policy network's outputs become actions: one class for each kind of action space, under one contract.

Letters: A width of an action: the number of discrete actions, or the values of a continuous one.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from worldmodel.latents import log_probs


class Policy(ABC):
    """A distribution over actions (..., A) for each output (..., outputs) of a network."""

    outputs: int

    @abstractmethod
    def act(self, output: Tensor, greedy: bool) -> Tensor:
        """Actions (..., A) as world models take them: drawn, or the one in the middle of it (`greedy`)."""

    @abstractmethod
    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        """(...): of actions that `act` gave; in nats."""

    @abstractmethod
    def entropy(self, output: Tensor) -> Tensor:
        """(...) nats, with a gradient; an estimate from one sample where there is no closed form."""

    @abstractmethod
    def for_environment(self, action: Tensor) -> np.ndarray:
        """What an environment takes for actions (n, A)."""


class Categorical(Policy):
    """One of A discrete actions, one-hot; `unimix` of the uniform distribution mixed in."""

    def __init__(self, actions: int, unimix: float):
        self.outputs, self.unimix = actions, unimix

    def log_probs(self, output: Tensor) -> Tensor:
        """(..., A)"""
        return log_probs(output, self.unimix)

    def act(self, output: Tensor, greedy: bool) -> Tensor:
        """See `Policy`."""
        log_p = self.log_probs(output)
        index = log_p.argmax(-1) if greedy else torch.distributions.Categorical(logits=log_p).sample()
        return F.one_hot(index, log_p.shape[-1]).float()

    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        """See `Policy`."""
        return (self.log_probs(output) * action).sum(-1)

    def entropy(self, output: Tensor) -> Tensor:
        """See `Policy`."""
        log_p = self.log_probs(output)
        return -(log_p.exp() * log_p).sum(-1)

    def for_environment(self, action: Tensor) -> np.ndarray:
        """(n,) int"""
        return action.argmax(-1).cpu().numpy()


class TanhNormal(Policy):
    """A continuous actions in -1..1: tanh of a normal variable each (SAC, Haarnoja et al. 2018, appendix C)."""

    LIMIT = 5.0  # of the normal's mean, beyond which tanh is flat
    NARROW = 0.1  # the least standard deviation
    EDGE = 1 - 1e-6  # float32 at 1 has no inverse under tanh

    def __init__(self, actions: int):
        self.outputs = 2 * actions

    def _distribution(self, output: Tensor) -> TransformedDistribution:
        mean, spread = output.float().chunk(2, -1)
        mean = self.LIMIT * torch.tanh(mean / self.LIMIT)
        # a standard deviation of 1 at an output of 0
        normal = Normal(mean, F.softplus(spread + 0.38) + self.NARROW, validate_args=False)
        return TransformedDistribution(Independent(normal, 1), TanhTransform(), validate_args=False)

    def act(self, output: Tensor, greedy: bool) -> Tensor:
        """See `Policy`; the one in the middle is the median."""
        distribution = self._distribution(output)
        action = distribution.base_dist.mean.tanh() if greedy else distribution.sample()
        return action.clamp(-self.EDGE, self.EDGE)

    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        """See `Policy`."""
        return self._distribution(output).log_prob(action)

    def entropy(self, output: Tensor) -> Tensor:
        """See `Policy`; from one sample, through which the gradient goes."""
        distribution = self._distribution(output)
        return -distribution.log_prob(distribution.rsample().clamp(-self.EDGE, self.EDGE))

    def for_environment(self, action: Tensor) -> np.ndarray:
        """(n, A) float32"""
        return action.cpu().numpy()
