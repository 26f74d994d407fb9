"""DreamerV3's actor-critic on a world model's features (Hafner et al. 2023, "Actor critic learning").

Letters: M dreams at once, H horizon, N tokens, F feature width, A actions, T and B rows of a replayed window.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agent.policy import Categorical, Policy, TanhNormal
from agent.returns import ReturnNormalizer, lambda_returns, replay_returns
from worldmodel import SequenceBatch
from worldmodel.heads import TokenMLP, TwoHot
from worldmodel.rollout import Dream


@dataclass
class ActorCriticConfig:
    """DreamerV3's actor-critic (Hafner et al. 2023); defaults are the paper's unless said."""

    name: str = "dreamer"
    """Agent: dreamer (in the world model's dreams), or a model-free baseline: ppo, recurrent-ppo."""
    horizon: int = 15
    """Imagined frames from each start."""
    hidden: int = 256
    """Width of policy and value networks."""
    layers: int = 2
    """Hidden layers of policy and value networks."""
    discount_horizon: float = 333.0
    """Frames over which rewards count: discount = 1 - 1 / this."""
    lam: float = 0.95
    """Lambda of the returns."""
    entropy_scale: float = 3e-4
    """Weight of the policy's entropy."""
    unimix: float = 0.01
    """Share of the uniform distribution mixed into the policy."""
    slow_critic_tau: float = 0.02
    """Rate at which the slow critic follows the critic."""
    return_norm_rate: float = 0.01
    """Rate of the running 5th-to-95th percentile range of returns."""
    replay_value_scale: float = 0.3
    """Weight of the value loss on replayed rows."""
    learning_rate: float = 3e-4
    """AdamW learning rate of policy and value (the paper's 4e-5 is for millions of steps)."""
    grad_clip: float = 100.0
    """Largest gradient norm."""


class ActorCritic(nn.Module):
    """A policy, a critic and its slow copy. Features come in detached and learn nothing here.

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

    def loss(self, dream: Dream, feature: Tensor, rows: SequenceBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses by name and figures, from dreams and from the replayed window's features (B, T, N, F)."""
        c = self.config
        logits = self.critic(dream.feature)  # (H + 1, M, bins)
        value = self.twohot.mean(logits).detach()
        slow = self.twohot.mean(self.slow(dream.feature)).detach()
        returns = lambda_returns(dream.reward, self.discount * dream.continue_prob[1:], value, c.lam)  # (H, M)
        # a frame counts as much as it is likely to be reached
        weight = torch.cat([dream.continue_prob[:1], self.discount * dream.continue_prob[1:]])[:-1].cumprod(0)  # (H, M)

        scale = self.range.update(returns)
        advantage = (returns - value[:-1]) / scale
        output = self.actor(dream.feature[:-1])
        entropy = self.policy.entropy(output)  # (H, M)
        chosen = self.policy.log_prob(output, dream.action)
        critic = self.twohot.loss(logits[:-1], returns) + self.twohot.loss(logits[:-1], slow[:-1])

        losses = {
            "policy": -(weight * (chosen * advantage + c.entropy_scale * entropy)).mean(),
            "value": (weight * critic).mean(),
            "replay_value": c.replay_value_scale * self._replay_value(feature, rows),
        }
        figures = {
            "return": returns.mean(),
            "value": value.mean(),
            "reward": dream.reward.mean(),
            "continue": dream.continue_prob.mean(),
            "entropy": entropy.mean().detach(),
            "scale": scale,
            "advantage": advantage.abs().mean(),
        }
        return losses, figures

    def _replay_value(self, feature: Tensor, rows: SequenceBatch) -> Tensor:
        """The critic's loss on rows that were really met."""
        feature = feature.transpose(0, 1)  # (T, B, N, F)
        logits = self.critic(feature)
        slow = self.twohot.mean(self.slow(feature)).detach()
        returns, judged = replay_returns(
            rows.reward.T, rows.terminated.T, rows.is_first.T, slow, self.discount, self.config.lam
        )
        error = self.twohot.loss(logits, returns) + self.twohot.loss(logits, slow)
        return (judged * error).mean()

    @torch.no_grad()
    def update_slow_critic(self) -> None:
        """Moves the slow critic a step toward the critic."""
        for slow, fast in zip(self.slow.parameters(), self.critic.parameters(), strict=True):
            slow.lerp_(fast, self.config.slow_critic_tau)
