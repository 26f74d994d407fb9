"""Policies against numerical integrals, and a continuous one that learns where reward is."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from agent.actor_critic import ActorCritic, ActorCriticConfig
from agent.policy import Categorical, TanhNormal
from tests.agent.test_actor_critic import imagination, learn, losses_of

OUTPUTS = [(0.0, 0.0), (0.7, -1.0), (-2.0, -3.0), (20.0, -2.0)]


def grid(count: int = 400_001) -> torch.Tensor:
    """Actions (count, 1) that are dense near the edges too."""
    return torch.linspace(-7, 7, count, dtype=torch.float64).tanh().unsqueeze(-1)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_tanh_normal_is_a_density(output):
    policy, actions = TanhNormal(1), grid()
    output = torch.tensor(output).expand(len(actions), 2)
    density = policy.log_prob(output, actions).exp()
    assert torch.trapezoid(density, actions[:, 0]) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("output", OUTPUTS[:3])
def test_its_samples_and_entropy_agree_with_its_density(output):
    torch.manual_seed(0)
    policy, actions = TanhNormal(1), grid()
    density = policy.log_prob(torch.tensor(output).expand(len(actions), 2), actions).exp()
    many = torch.tensor(output).expand(200_000, 2)
    mean = torch.trapezoid(density * actions[:, 0], actions[:, 0])
    assert policy.act(many, False).mean() == pytest.approx(float(mean), abs=0.01)
    entropy = -torch.trapezoid(torch.xlogy(density, density), actions[:, 0])
    assert policy.entropy(many).mean() == pytest.approx(float(entropy), abs=0.02)


def test_its_values_are_independent_and_stay_inside():
    policy = TanhNormal(3)
    output = torch.randn(5, 7, 6) * 30
    action = policy.act(output, False)
    assert action.shape == (5, 7, 3) and action.abs().max() < 1
    mean, spread = output.chunk(2, -1)
    apart = sum(TanhNormal(1).log_prob(torch.stack([mean[..., i], spread[..., i]], -1), action[..., i : i + 1])
                for i in range(3))  # fmt: skip
    torch.testing.assert_close(policy.log_prob(output, action), apart)
    assert torch.isfinite(policy.log_prob(output, action)).all()
    assert policy.for_environment(action[0]).dtype == np.float32


def test_greedy_is_the_middle():
    torch.manual_seed(0)
    output = torch.tensor([0.3, 0.0])
    policy = TanhNormal(1)
    drawn = policy.act(output.expand(100_001, 2), False)
    torch.testing.assert_close(policy.act(output, True), drawn.median(0).values, atol=0.01, rtol=0)


def test_a_categorical_is_its_probabilities():
    policy = Categorical(4, unimix=0.1)
    output = torch.randn(6, 4)
    probs = 0.9 * output.softmax(-1) + 0.025
    hot = F.one_hot(torch.tensor([0, 1, 2, 3, 0, 1]), 4).float()
    torch.testing.assert_close(policy.log_prob(output, hot), (probs * hot).sum(-1).log())
    torch.testing.assert_close(policy.entropy(output), torch.distributions.Categorical(probs).entropy())
    assert policy.for_environment(policy.act(output, True)).tolist() == output.argmax(-1).tolist()


def test_a_continuous_actor_learns_what_each_feature_asks():
    torch.manual_seed(0)
    agent = ActorCritic(ActorCriticConfig(hidden=32, layers=1, discount_horizon=2.0), 2, 4, 1, continuous=True)

    def target(feature: torch.Tensor) -> torch.Tensor:
        return 0.6 * feature[..., 1, 0].sign()

    def losses() -> dict[str, torch.Tensor]:
        feature = torch.randn(5, 64, 2, 4)
        with torch.no_grad():
            action = agent.act(feature[:-1].flatten(0, 1)).unflatten(0, (4, 64))
        reward = -((action.squeeze(-1) - target(feature[:-1])) ** 2)
        return losses_of(agent, imagination(feature, action, reward))[0]

    feature = torch.randn(500, 2, 4)
    before = (agent.act(feature, greedy=True).squeeze(-1) - target(feature)).abs().mean()
    learn(agent, losses, 300)
    after = (agent.act(feature, greedy=True).squeeze(-1) - target(feature)).abs().mean()
    assert before > 0.5 and after < 0.25
