"""The actor-critic on a problem whose answer is known: each feature says which action is right."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from agent.actor_critic import ActorCritic, ActorCriticConfig
from agent.policy import Categorical
from worldmodel import SequenceBatch
from worldmodel.rollout import Dream

A, TOKENS, WIDTH, H, M = 3, 2, 4, 4, 32


def agent(**options: Any) -> ActorCritic:
    """A small one; rewards count over two frames: discount 1/2."""
    torch.manual_seed(0)
    config = ActorCriticConfig(hidden=32, layers=1, discount_horizon=2.0, return_norm_rate=0.1, slow_critic_tau=0.1)
    return ActorCritic(replace(config, **options), TOKENS, WIDTH, A)


def chances(actor: ActorCritic, feature: Tensor) -> Tensor:
    """(..., A): the policy's probabilities."""
    assert isinstance(actor.policy, Categorical)
    return actor.policy.log_probs(actor.actor(feature)).exp()


def features(*lead: int) -> tuple[Tensor, Tensor]:
    """Features (..., N, F) and the action that is right there (...): told by the second token alone."""
    right = torch.randint(0, A, lead)
    feature = torch.randn(*lead, TOKENS, WIDTH) * 0.1
    feature[..., 1, :A] += F.one_hot(right, A)
    return feature, right


def bandit_dream(actor: ActorCritic) -> Dream:
    """The right action brings reward 1, others 0; the next feature is drawn anew."""
    feature, right = features(H + 1, M)
    with torch.no_grad():
        action = actor.act(feature[:-1].flatten(0, 1)).unflatten(0, (H, M))
    reward = (action.argmax(-1) == right[:-1]).float()
    return Dream(feature, action, reward, torch.ones(H + 1, M))


def random_dream(seed: int = 0) -> Dream:
    """Noise, with returns that span less than 1, so that the range's floor holds."""
    torch.manual_seed(seed)
    feature, _ = features(H + 1, M)
    action = F.one_hot(torch.randint(0, A, (H, M)), A).float()
    return Dream(feature, action, torch.rand(H, M) * 0.1, torch.ones(H + 1, M))


def no_rows() -> tuple[Tensor, SequenceBatch]:
    """A replayed window from which nothing is to be learnt: each row begins an episode."""
    feature, _ = features(2, 3)
    return feature, rows(torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2, 3))


def rows(reward: Tensor, is_first: Tensor, terminated: Tensor) -> SequenceBatch:
    """SequenceBatch (B, T); observation and action are not looked at."""
    B, T = reward.shape
    return SequenceBatch(
        observation=torch.zeros(B, T, 1),
        action=torch.zeros(B, T, A),
        reward=reward,
        is_first=is_first.bool(),
        terminated=terminated.bool(),
        batch_size=[B, T],
    )


def learn(actor: ActorCritic, losses: Callable[[], dict[str, Tensor]], updates: int) -> None:
    """Updates as the learner does."""
    optimizer = torch.optim.Adam([p for p in actor.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(updates):
        loss = torch.stack(list(losses().values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        actor.update_slow_critic()


def gradients(actor: ActorCritic, dream: Dream) -> dict[str, Tensor]:
    """Of all dream losses, by parameter."""
    actor.zero_grad()
    feature, nothing = no_rows()
    losses, _ = actor.loss(dream, feature, nothing)
    torch.stack(list(losses.values())).sum().backward()
    return {n: p.grad.clone() for n, p in actor.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def learned() -> ActorCritic:
    """After some updates on the bandit."""
    actor = agent()
    learn(actor, lambda: actor.loss(bandit_dream(actor), *no_rows())[0], 80)
    return actor


def test_the_policy_learns_the_right_action(learned: ActorCritic) -> None:
    torch.manual_seed(1)
    feature, right = features(200)
    chance = chances(learned, feature).gather(-1, right.unsqueeze(-1))
    assert chance.mean() > 0.9
    before = chances(agent(), feature).gather(-1, right.unsqueeze(-1))
    assert abs(before.mean() - 1 / A) < 0.05
    assert (learned.act(feature, greedy=True).argmax(-1) == right).float().mean() > 0.97


def test_the_critic_learns_the_return(learned: ActorCritic) -> None:
    torch.manual_seed(1)
    feature, _ = features(200)
    with torch.no_grad():
        value = learned.twohot.mean(learned.critic(feature))
        slow = learned.twohot.mean(learned.slow(feature))
    assert (value.mean() - 2).abs() < 0.3  # 1 + 1/2 + 1/4 + ...
    assert (slow.mean() - 2).abs() < 0.5


def test_acting_follows_the_policy() -> None:
    actor = agent()
    torch.manual_seed(0)
    with torch.no_grad():
        actor.actor.out.bias.add_(torch.tensor([0.0, 1.0, -1.0]))
    feature = features(1)[0].expand(5000, TOKENS, WIDTH)
    action = actor.act(feature)
    assert action.shape == (5000, A) and action.dtype == torch.float32
    assert torch.equal(action.sum(-1), torch.ones(5000))
    assert (action.mean(0) - chances(actor, feature[0])).abs().max() < 0.04
    assert torch.equal(actor.act(feature, greedy=True)[:, 1], torch.ones(5000))


def test_the_policy_keeps_a_share_of_the_uniform() -> None:
    actor = agent(unimix=0.3)
    with torch.no_grad():
        actor.actor.out.bias.add_(torch.tensor([0.0, 100.0, -100.0]))
    probs = chances(actor, features(8)[0])
    torch.testing.assert_close(probs, torch.tensor([0.1, 0.8, 0.1]).expand(8, A))


def test_the_policy_s_gradient_is_reinforce_with_an_entropy_bonus() -> None:
    """Against a sum over steps by hand, for one parameter vector: the bias of the last layer."""
    actor, dream = agent(entropy=0.1, unimix=0.0), random_dream()
    with torch.no_grad():  # values start at zero: move them, on the bins next to zero alone
        actor.critic.out.bias[:] = -50
        actor.critic.out.bias[125:132] = 0
        actor.critic.out.weight[125:132] += torch.randn(7, 32) * 0.3
    got = gradients(actor, dream)["actor.out.bias"]
    with torch.no_grad():
        probs = chances(actor, dream.feature[:-1])
        value = actor.twohot.mean(actor.critic(dream.feature))
    assert value.std() > 0.05
    lam = actor.config.lam
    want = torch.zeros(A)
    for m in range(M):
        ahead = value[H, m]
        for t in reversed(range(H)):
            ahead = dream.reward[t, m] + 0.5 * ((1 - lam) * value[t + 1, m] + lam * ahead)
            p = probs[t, m]
            score = dream.action[t, m] - p
            surprise = -(p.log() + 1)
            entropy = p * (surprise - (p * surprise).sum())
            want -= 0.5**t * (score * (ahead - value[t, m]) + 0.1 * entropy) / (H * M)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("end", [1, 2, 3])
def test_nothing_is_learnt_from_beyond_a_termination(end: int) -> None:
    actor, dream, other = agent(), random_dream(), random_dream(seed=1)
    continue_prob = torch.ones(H + 1, M)
    continue_prob[end] = 0

    def mixed(turn: int) -> Dream:
        """From feature `turn` on, and from the action and reward after it, the other dream."""
        feature = torch.cat([dream.feature[:turn], other.feature[turn:]])
        action = torch.cat([dream.action[:turn], other.action[turn:]])
        return Dream(feature, action, torch.cat([dream.reward[:turn], other.reward[turn:]]), continue_prob)

    want = gradients(actor, Dream(dream.feature, dream.action, dream.reward, continue_prob))
    assert {name.split(".")[0] for name in want} == {"actor", "critic"}
    for name, gradient in gradients(actor, mixed(end)).items():
        torch.testing.assert_close(gradient, want[name], atol=1e-7, rtol=1e-5)
    earlier = gradients(actor, mixed(end - 1))  # what comes just before the end does count
    assert (earlier["actor.out.bias"] - want["actor.out.bias"]).abs().max() > 1e-6


def test_a_start_at_an_end_teaches_nothing() -> None:
    actor, dream = agent(), random_dream()
    continue_prob = torch.ones(H + 1, M)
    continue_prob[0] = 0
    feature, nothing = no_rows()
    losses, _ = actor.loss(Dream(dream.feature, dream.action, dream.reward, continue_prob), feature, nothing)
    assert losses["policy"] == 0 and losses["value"] == 0


def test_likely_ends_weigh_what_follows_less() -> None:
    """The value loss of constant dreams is a geometric sum of the chances to be there."""
    actor, dream = agent(), random_dream()
    feature, nothing = no_rows()
    zero = torch.zeros(H, M)

    def value_loss(continue_prob: Tensor) -> float:
        return actor.loss(Dream(dream.feature, dream.action, zero, continue_prob), feature, nothing)[0]["value"].item()

    whole, half = value_loss(torch.ones(H + 1, M)), value_loss(torch.full((H + 1, M), 0.5))
    # the discount is 1/2 too; a start counts as much as its own chance
    want = 0.5 * sum(0.25**t for t in range(H)) / sum(0.5**t for t in range(H))
    assert half / whole == pytest.approx(want, rel=1e-5)


def test_each_loss_moves_its_own_network() -> None:
    actor, dream = agent(), random_dream()
    with torch.no_grad():  # past the zeros that a critic starts from
        for network in (actor.actor, actor.critic):
            network.out.weight.add_(torch.randn_like(network.out.weight) * 0.1)
    feature, _ = features(2, 5)
    reward = torch.rand(2, 5)
    replayed = rows(reward, torch.zeros(2, 5), torch.zeros(2, 5))
    for name, owner in (("policy", "actor"), ("value", "critic"), ("replay_value", "critic")):
        actor.zero_grad()
        actor.loss(dream, feature, replayed)[0][name].backward()
        moved = {n.split(".")[0] for n, p in actor.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == {owner}, name
    assert not any(p.requires_grad for p in actor.slow.parameters())


def test_features_given_without_gradients_stay_so_and_losses_are_scalars() -> None:
    """As the learner gives them: a dream has none, and the replayed window's are cut off from the world model."""
    actor, dream = agent(), random_dream()
    leaf = torch.randn(2, 5, TOKENS, WIDTH, requires_grad=True)
    replayed = rows(torch.rand(2, 5), torch.zeros(2, 5), torch.zeros(2, 5))
    losses, figures = actor.loss(dream, leaf.detach(), replayed)
    torch.stack(list(losses.values())).sum().backward()
    assert leaf.grad is None and dream.feature.grad is None
    assert set(losses) == {"policy", "value", "replay_value"}
    assert all(x.shape == () for x in (*losses.values(), *figures.values()))
    assert not any(x.requires_grad for x in figures.values())


def test_the_critic_learns_from_replayed_rows() -> None:
    """An episode of four rows whose last brings 1 and ends it, then rows of an episode with nothing in it."""
    actor = agent()
    feature = torch.eye(8).reshape(1, 8, 1, 8)[..., :WIDTH].expand(1, 8, TOKENS, WIDTH).clone()
    feature[:, 4:] -= 1
    feature[:, 4:, :, 0] += torch.arange(4).reshape(1, 4, 1)
    reward, is_first, terminated = (torch.zeros(1, 8) for _ in range(3))
    reward[0, 3] = terminated[0, 3] = is_first[0, 0] = is_first[0, 4] = 1
    replayed = rows(reward, is_first, terminated)
    dream = random_dream()
    asleep = Dream(dream.feature, dream.action, dream.reward, torch.zeros(H + 1, M))  # nothing of it counts
    learn(actor, lambda: actor.loss(asleep, feature, replayed)[0], 80)
    value = actor.twohot.mean(actor.critic(feature)).detach()[0]
    torch.testing.assert_close(value[:3], torch.tensor([0.25, 0.5, 1.0]), atol=0.1, rtol=0)
    torch.testing.assert_close(value[4:7], torch.zeros(3), atol=0.1, rtol=0)


def test_the_slow_critic_follows() -> None:
    actor = agent(slow_critic_tau=0.25)
    pairs = list(zip(actor.slow.parameters(), actor.critic.parameters(), strict=True))
    assert all(torch.equal(slow, fast) for slow, fast in pairs)
    with torch.no_grad():
        for _, fast in pairs:
            fast.add_(1)
    begun = [slow.clone() for slow, _ in pairs]
    kept = [fast.clone() for _, fast in pairs]
    actor.update_slow_critic()
    for (slow, fast), old, still in zip(pairs, begun, kept, strict=True):
        torch.testing.assert_close(slow, old + 0.25)
        assert torch.equal(fast, still)
    for _ in range(60):
        actor.update_slow_critic()
    assert all((slow - fast).abs().max() < 1e-4 for slow, fast in pairs)
