"""The actor-critic on a problem whose answer is known: each feature shows which action is right."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from agent.actor_critic import ActorCritic, ActorCriticConfig
from agent.policy import Categorical
from worldmodel import SequenceBatch, State
from worldmodel.rollout import Imagination

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
    """Features (..., N, F) and the action that is right there (...): shown by the second token alone."""
    right = torch.randint(0, A, lead)
    feature = torch.randn(*lead, TOKENS, WIDTH) * 0.1
    feature[..., 1, :A] += F.one_hot(right, A)
    return feature, right


def imagination(feature: Tensor, action: Tensor, reward: Tensor, continue_prob: Tensor | None = None) -> Imagination:
    """Rollouts of these features (H + 1, M, N, F), actions (H, M, A) and rewards (H, M), which go on for certain."""
    if continue_prob is None:
        continue_prob = torch.ones_like(reward)
    return Imagination(action, reward, continue_prob, State({}, []), feature, torch.empty(0))


def losses_of(
    actor: ActorCritic,
    imagined: Imagination,
    feature: Tensor | None = None,
    batch: SequenceBatch | None = None,
    alive: Tensor | None = None,
    at: tuple[Tensor, Tensor] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`ActorCritic.loss`; without a replayed window, one in which each row begins an episode."""
    rollouts = imagined.reward.shape[1]
    if feature is None or batch is None:
        feature, batch = features(2, 3)[0], rows(torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2, 3))
    nowhere = torch.zeros(rollouts, dtype=torch.long)
    alive = torch.ones(rollouts, dtype=torch.bool) if alive is None else alive
    return actor.loss(imagined, alive, feature, batch, at or (nowhere, nowhere))


def bandit(actor: ActorCritic) -> Imagination:
    """The right action brings reward 1, others 0; the next feature is drawn anew."""
    feature, right = features(H + 1, M)
    with torch.no_grad():
        action = actor.act(feature[:-1].flatten(0, 1)).unflatten(0, (H, M))
    reward = (action.argmax(-1) == right[:-1]).float()
    return imagination(feature, action, reward)


def noise(seed: int = 0) -> Imagination:
    """Noise, with returns that span less than 1, so that the range's floor holds."""
    torch.manual_seed(seed)
    feature, _ = features(H + 1, M)
    action = F.one_hot(torch.randint(0, A, (H, M)), A).float()
    return imagination(feature, action, torch.rand(H, M) * 0.1)


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


def gradients(actor: ActorCritic, imagined: Imagination) -> dict[str, Tensor]:
    """Of all losses in imagination, by parameter."""
    actor.zero_grad()
    losses, _ = losses_of(actor, imagined)
    torch.stack(list(losses.values())).sum().backward()
    return {n: p.grad.clone() for n, p in actor.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def learned() -> ActorCritic:
    """After some updates on the bandit."""
    actor = agent()
    learn(actor, lambda: losses_of(actor, bandit(actor))[0], 80)
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
    actor, dream = agent(entropy_scale=0.1, unimix=0.0), noise()
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
        following = value[H, m]
        for t in reversed(range(H)):
            following = dream.reward[t, m] + 0.5 * ((1 - lam) * value[t + 1, m] + lam * following)
            p = probs[t, m]
            score = dream.action[t, m] - p
            slope = -(p.log() + 1)
            entropy = p * (slope - (p * slope).sum())
            want -= 0.5**t * (score * (following - value[t, m]) + 0.1 * entropy) / (H * M)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("end", [1, 2, 3])
def test_nothing_is_learned_from_beyond_a_termination(end: int) -> None:
    actor, dream, other = agent(), noise(), noise(seed=1)
    continue_prob = torch.ones(H, M)
    continue_prob[end - 1] = 0

    def mixed(turn: int) -> Imagination:
        """From feature `turn` on, and from the action and reward after it, the other rollouts."""
        feature = torch.cat([dream.feature[:turn], other.feature[turn:]])
        action = torch.cat([dream.action[:turn], other.action[turn:]])
        return imagination(feature, action, torch.cat([dream.reward[:turn], other.reward[turn:]]), continue_prob)

    want = gradients(actor, imagination(dream.feature, dream.action, dream.reward, continue_prob))
    assert {name.split(".")[0] for name in want} == {"actor", "critic"}
    for name, gradient in gradients(actor, mixed(end)).items():
        torch.testing.assert_close(gradient, want[name], atol=1e-7, rtol=1e-5)
    earlier = gradients(actor, mixed(end - 1))  # what comes just before the end does count
    assert (earlier["actor.out.bias"] - want["actor.out.bias"]).abs().max() > 1e-6


def test_a_start_at_an_end_trains_nothing() -> None:
    losses, _ = losses_of(agent(), noise(), alive=torch.zeros(M, dtype=torch.bool))
    assert losses["policy"] == 0 and losses["value"] == 0


def test_likely_ends_weigh_what_follows_less() -> None:
    """The value loss of constant rollouts is a geometric sum of the chances to be there."""
    actor, dream = agent(), noise()

    def value_loss(continue_prob: Tensor) -> float:
        rollouts = imagination(dream.feature, dream.action, torch.zeros(H, M), continue_prob)
        return losses_of(actor, rollouts)[0]["value"].item()

    whole, half = value_loss(torch.ones(H, M)), value_loss(torch.full((H, M), 0.5))
    want = sum(0.25**t for t in range(H)) / sum(0.5**t for t in range(H))  # the discount is 1/2 too
    assert half / whole == pytest.approx(want, rel=1e-5)


def test_each_loss_moves_its_own_network() -> None:
    actor, dream = agent(), noise()
    with torch.no_grad():  # past the zeros that a critic starts from
        for network in (actor.actor, actor.critic):
            network.out.weight.add_(torch.randn_like(network.out.weight) * 0.1)
    feature, _ = features(2, 5)
    reward = torch.rand(2, 5)
    replayed = rows(reward, torch.zeros(2, 5), torch.zeros(2, 5))
    for name, owner in (("policy", "actor"), ("value", "critic"), ("replay_value", "critic")):
        actor.zero_grad()
        losses_of(actor, dream, feature, replayed)[0][name].backward()
        moved = {n.split(".")[0] for n, p in actor.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == {owner}, name
    assert not any(p.requires_grad for p in actor.slow.parameters())


@pytest.mark.parametrize("reaches", [False, True])
def test_the_replayed_value_loss_reaches_features_if_asked(reaches: bool) -> None:
    actor, dream = agent(replay_value_grad=reaches), noise()
    with torch.no_grad():
        actor.critic.out.weight.add_(torch.randn_like(actor.critic.out.weight) * 0.1)
    leaf = torch.randn(2, 5, TOKENS, WIDTH, requires_grad=True)
    replayed = rows(torch.rand(2, 5), torch.zeros(2, 5), torch.zeros(2, 5))
    losses, metrics = losses_of(actor, dream, leaf, replayed)
    torch.stack(list(losses.values())).sum().backward()
    assert (leaf.grad is not None and bool(leaf.grad.any())) == reaches and dream.feature.grad is None
    assert set(losses) == {"policy", "value", "replay_value"}
    assert all(x.shape == () for x in (*losses.values(), *metrics.values()))
    assert not any(x.requires_grad for x in metrics.values())


@pytest.mark.parametrize("bootstrap", ["slow", "imagined"])
def test_replayed_returns_bootstrap_from_imagined_ones(bootstrap: str) -> None:
    """With a reward of zero, lambda 1 and a discount of 1/2, a return is the last value, halved at each row."""
    actor = agent(replay_value_bootstrap=bootstrap, lam=1.0, replay_value_scale=1.0)
    feature = torch.randn(1, 3, TOKENS, WIDTH)
    replayed = rows(torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1, 3))
    start, frames = (
        imagination(torch.randn(2, 1, TOKENS, WIDTH), torch.eye(A)[:1].view(1, 1, A), torch.full((1, 1), 8.0)),
        2,
    )
    at = torch.tensor([frames]), torch.tensor([0])
    got = losses_of(actor, start, feature, replayed, at=at)[0]["replay_value"]
    last = 8.0 if bootstrap == "imagined" else 0.0  # critics start at zero
    logits = actor.critic(feature[0])
    target = torch.tensor([last / 4, last / 2])
    want = actor.twohot.loss(logits[:2], target) + actor.twohot.loss(logits[:2], torch.zeros(2))
    torch.testing.assert_close(got, want.sum() / 3)


def test_the_critic_learns_from_replayed_rows() -> None:
    """An episode of four rows whose last brings 1 and ends it, then rows of an episode with nothing in it."""
    actor = agent(replay_value_bootstrap="slow")
    feature = torch.eye(8).reshape(1, 8, 1, 8)[..., :WIDTH].expand(1, 8, TOKENS, WIDTH).clone()
    feature[:, 4:] -= 1
    feature[:, 4:, :, 0] += torch.arange(4).reshape(1, 4, 1)
    reward, is_first, terminated = (torch.zeros(1, 8) for _ in range(3))
    reward[0, 3] = terminated[0, 3] = is_first[0, 0] = is_first[0, 4] = 1
    replayed = rows(reward, is_first, terminated)
    ended = torch.zeros(M, dtype=torch.bool)  # nothing that is imagined counts
    learn(actor, lambda: losses_of(actor, noise(), feature, replayed, ended)[0], 80)
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
