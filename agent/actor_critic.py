"""DreamerV3's actor-critic on a world model's features (Hafner et al. 2023, "Actor critic learning").

Letters: M rollouts at once, H horizon, N tokens, F feature width, A actions, B and T of a replayed window.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from agent.lambda_returns import ReturnNormalizer, lambda_returns, replay_returns
from agent.policy import Categorical, Policy, TanhNormal
from worldmodel import SequenceBatch
from worldmodel.checks import check_numbers
from worldmodel.heads import TokenMLP, TwoHot
from worldmodel.rollout import Imagination


@dataclass
class ActorCriticConfig:
    """DreamerV3's actor-critic (Hafner et al. 2023); defaults are the paper's unless said."""

    name: str = "dreamer"
    """Agent: dreamer (in the world model's dreams), or a model-free baseline: ppo, recurrent-ppo."""
    horizon: int = 15
    """Imagined frames from each start."""
    imagination_starts: int = 0
    """States of a batch that imagination starts from, at random; 0: all, one in worldmodel.state_interval frames."""
    hidden: int = 256
    """Units of the hidden layers of policy and critic."""
    layers: int = 2
    """Hidden layers of policy and value networks."""
    discount_horizon: float = 333.0
    """Frames over which rewards count: discount = 1 - 1 / this."""
    lam: float = 0.95
    """Lambda of the returns."""
    entropy_scale: float = 3e-4
    """Scale of the policy's entropy."""
    unimix: float = 0.01
    """Share of the uniform distribution mixed into the policy."""
    slow_critic_tau: float = 0.02
    """Rate at which the slow critic follows the critic."""
    return_norm_rate: float = 0.01
    """Rate of the running 5th-to-95th percentile range of returns."""
    replay_value_scale: float = 0.3
    """Scale of the critic's loss on replayed rows."""
    replay_value_grad: bool = True
    """Let that loss train the world model too, through the features that the critic reads."""
    replay_value_bootstrap: Literal["imagined", "slow"] = "imagined"
    """Values that replayed returns bootstrap from: imagined returns where imagination starts, or the slow critic's."""
    learning_rate: float = 3e-4
    """AdamW learning rate of policy and value (the paper's 4e-5 is for millions of steps)."""
    grad_clip: float = 100.0
    """Largest gradient norm."""

    def __post_init__(self) -> None:
        shares = ("unimix", "lam", "slow_critic_tau", "return_norm_rate")
        zero = ("imagination_starts", "unimix", "lam")
        check_numbers("agent", self, may_be_zero=zero, at_least_one=("discount_horizon",), at_most_one=shares)


class ActorCritic(nn.Module):
    """A policy, a critic and its slow copy.

    `actions` is A; they are discrete, or `continuous`: each value in -1..1.
    """

    def __init__(
        self, config: ActorCriticConfig, tokens: int, feature_width: int, actions: int, continuous: bool = False
    ):
        super().__init__()
        self.config = config
        self.discount = 1 - 1 / config.discount_horizon
        self.twohot = TwoHot()
        self.policy: Policy = TanhNormal(actions) if continuous else Categorical(actions, config.unimix)
        self.actor = TokenMLP(tokens, feature_width, self.policy.outputs, config.hidden, config.layers, scale=0.01)
        self.critic = TokenMLP(tokens, feature_width, len(self.twohot.bins), config.hidden, config.layers)
        self.twohot.init_output(self.critic.out)
        self.slow = deepcopy(self.critic).requires_grad_(False)
        self.range = ReturnNormalizer(config.return_norm_rate)

    def act(self, feature: Tensor, greedy: bool = False) -> Tensor:
        """(M, N, F) -> actions (M, A) as world models take them: drawn from the policy, or its mode."""
        return self.policy.act(self.actor(feature), greedy)

    def loss(
        self, imagined: Imagination, alive: Tensor, feature: Tensor, batch: SequenceBatch, at: tuple[Tensor, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses by name, scaled, and metrics.

        Args:
            imagined: M rollouts; alive (M,) is false where the episode had ended at the start.
            feature: of the replayed window, (B, T, N, F); the replayed value loss has a gradient onto it.
            at: the frame (M,) and the sequence (M,) of the window that each rollout starts from.
        """
        c = self.config
        logits = self.critic(imagined.feature)  # (H + 1, M, bins)
        value = self.twohot.mean(logits).detach()
        slow = self.twohot.mean(self.slow(imagined.feature)).detach()
        carry = self.discount * imagined.continue_prob
        returns = lambda_returns(imagined.reward, carry, value, c.lam)  # (H, M)
        # a frame counts as much as it is likely to be reached
        weight = torch.cat([alive.float().unsqueeze(0), carry])[:-1].cumprod(0)  # (H, M)

        scale = self.range.update(returns)
        advantage = (returns - value[:-1]) / scale
        output = self.actor(imagined.feature[:-1])
        entropy = self.policy.entropy(output)  # (H, M)
        chosen = self.policy.log_prob(output, imagined.action)
        critic = self.twohot.loss(logits[:-1], returns) + self.twohot.loss(logits[:-1], slow[:-1])

        losses = {
            "policy": -(weight * (chosen * advantage + c.entropy_scale * entropy)).mean(),
            "value": (weight * critic).mean(),
            "replay_value": c.replay_value_scale * self._replay_value(feature, batch, at, returns[0]),
        }
        metrics = {
            "return": returns.mean(),
            "value": value.mean(),
            "reward": imagined.reward.mean(),
            "continue": imagined.continue_prob.mean(),
            "entropy": entropy.mean().detach(),
            "return_scale": scale,
            "advantage": advantage.abs().mean(),
        }
        return losses, metrics

    def _replay_value(
        self, feature: Tensor, batch: SequenceBatch, at: tuple[Tensor, Tensor], returns: Tensor
    ) -> Tensor:
        """The critic's loss () on replayed rows; `returns` (M,) are imagined, from the frames `at`."""
        feature = feature.transpose(0, 1)  # (T, B, N, F)
        logits = self.critic(feature if self.config.replay_value_grad else feature.detach())
        slow = self.twohot.mean(self.slow(feature.detach())).detach()  # (T, B)
        value = slow
        if self.config.replay_value_bootstrap == "imagined":
            value = slow.index_put(at, returns.to(slow.dtype))
        target, has_next = replay_returns(
            batch.reward.T, batch.terminated.T, batch.is_first.T, value, self.discount, self.config.lam
        )
        error = self.twohot.loss(logits, target) + self.twohot.loss(logits, slow)
        return (has_next * error).mean()

    @torch.no_grad()
    def update_slow_critic(self) -> None:
        """Moves the slow critic a step toward the critic."""
        for slow, fast in zip(self.slow.parameters(), self.critic.parameters(), strict=True):
            slow.lerp_(fast, self.config.slow_critic_tau)
