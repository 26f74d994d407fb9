"""The losses of LSSVWM: their values from the features they are of, and what each of them teaches."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from worldmodel.foresight import LOUD
from worldmodel.n_heads import symlog

from tests.worldmodel.small import ACTIONS, SHAPES, SMALL, random_batch, shake
from worldmodel import Losses, ObserveOutput, SequenceBatch
from worldmodel.lssvwm import LSSVWM, LSSVWMConfig
from worldmodel.tokenizer import ssim

B, T = 2, 9


def make(**options: object) -> LSSVWM:
    """Small, on images."""
    torch.manual_seed(0)
    model = LSSVWM(LSSVWMConfig(**(SMALL["lssvwm"] | options)), SHAPES["image"], ACTIONS)
    shake(model, 0.1)
    return model


def rows() -> SequenceBatch:
    """With episodes that begin and end."""
    return random_batch("image", B, T, firsts=[(0, 0), (0, 4), (1, 0)])


def losses(model: LSSVWM) -> tuple[Losses, ObserveOutput, dict[str, Tensor]]:
    """From the empty State."""
    torch.manual_seed(0)
    return model.loss(rows(), model.initial(B))


def _next_reward(model: LSSVWM, feature: Tensor, given: SequenceBatch) -> Tensor:
    """The loss, row by row: of what the feature before tells; and what features hold of it is as told."""
    width, head, found = model.config.width, model.ahead_head, []
    told = torch.zeros(B, T + 1, 1 + ACTIONS)  # at t + 1 by frame t; by the State before the window at 0, and not asked
    for b in range(B):
        for t in range(T):
            h, rewards, z = feature[b, t].split([width, 1 + ACTIONS, model.latent_width], -1)
            expected = model._log_probs(model.overshoot(h)).exp().flatten(-2)
            told[b, t + 1] = head(h, z, expected)
            foreseen = 0 if given.is_first[b, t] else told[b, t, 0] + given.action[b, t] @ told[b, t, 1:]
            rewards = rewards / LOUD
            torch.testing.assert_close(rewards, rewards[:1].expand(model.tokens, -1))
            torch.testing.assert_close(rewards[0, 0], torch.as_tensor(foreseen, dtype=rewards.dtype))
            torch.testing.assert_close(rewards[0, 1:], told[b, t + 1, 0] + told[b, t + 1, 1:])
            if not given.is_first[b, t]:
                weight = max(abs(told[b, t, 0] + told[b, t, 1 + a]) for a in range(ACTIONS)) + 0.01
                found.append(torch.stack([weight, weight * (foreseen - symlog(given.reward[b, t])) ** 2]))
    weights, errors = torch.stack(found).T
    return errors.sum() / weights.sum()


def test_the_values_of_losses() -> None:
    model, given = make(), rows()
    with torch.no_grad():
        got, output, figures = losses(model)
        feature = output.feature
        truth = given.observation / 255
        decoded = model.decode(feature)
        posterior = Categorical(logits=model._log_probs(model.posterior(model.tokenizer.encode(given.observation))))
        prior = Categorical(logits=model._log_probs(model.prior(feature[..., :32])))
        divergence = kl_divergence(posterior, prior).sum((-1, -2)).mean()
        beyond = Categorical(logits=model._log_probs(model.overshoot(feature[:, :-1, ..., :32])))
        after = kl_divergence(Categorical(probs=posterior.probs[:, 1:]), beyond).sum((-1, -2))
        states = [output.start_states["memory", str(i), "0", "ssm"] for i in range(2)]
        want = {
            "reconstruction": ((decoded - truth) ** 2).sum() / (B * T),
            "perceptual": 1 - ssim(decoded, truth),
            "dynamics": divergence,
            "overshoot": (after * ~given.is_first[:, 1:]).sum() / (B * T),
            "representation": divergence,
            "reward": (model.twohot.loss(model.reward_head(feature), given.reward) * ~given.is_first).mean(),
            "ahead": _next_reward(model, feature, given),
            "continue": F.binary_cross_entropy(model.continue_prob(feature), (~given.terminated).float()),
            "state": torch.stack([0.5 * (s.var() + s.mean() ** 2 - 1 - (s.var() + 1e-6).log()) for s in states]).mean(),
        }
    assert got.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, atol=1e-4, rtol=1e-4, msg=name)
        assert value > 0, name
    torch.testing.assert_close(figures["kl"], divergence, atol=1e-4, rtol=1e-4)
    entropy = posterior.entropy().sum((-1, -2)).mean()
    torch.testing.assert_close(figures["entropy/posterior"], entropy, atol=1e-4, rtol=1e-4)


def test_a_first_row_s_reward_teaches_nothing() -> None:
    """Replay cuts the past off in the middle of episodes too, where a reward stands beside `is_first`."""
    model, given = make(), rows()
    found = []
    for reward in (0.0, 5.0):
        given.reward[given.is_first] = reward
        torch.manual_seed(0)
        got = model.loss(given, model.initial(B))[0]
        found.append(torch.stack([got["reward"], got["ahead"]]))
    assert torch.equal(*found)


TAUGHT = {
    "reconstruction": {"encoder", "decoder", "posterior", "backbone"},
    "perceptual": {"encoder", "decoder", "posterior", "backbone"},
    "dynamics": {"encoder", "posterior", "backbone", "prior"},  # through the latents that memory reads
    "overshoot": {"encoder", "posterior", "backbone", "overshoot"},
    "representation": {"encoder", "posterior"},
    "reward": {"encoder", "posterior", "backbone", "reward_head"},
    "ahead": {"encoder", "posterior", "backbone", "ahead_head"},  # what is expected stays a forecast of frames
    "continue": {"encoder", "posterior", "backbone", "continue_head"},
    "state": {"encoder", "posterior", "backbone"},
}


@pytest.mark.parametrize("name", list(TAUGHT))
def test_what_each_loss_teaches(name: str) -> None:
    model = make()
    losses(model)[0][name].backward()
    reached = set()
    for path, parameter in model.named_parameters():
        part = path.split(".")
        if parameter.grad is not None and parameter.grad.any():
            reached.add(part[1] if part[0] == "tokenizer" else part[0])
    assert reached == TAUGHT[name]


@pytest.mark.parametrize("name", ["lssvwm", "s5", "gru", "local"])
def test_states_of_scans_alone_are_pulled(name: str) -> None:
    """A GRU's are bounded by themselves."""
    model = make(**(SMALL[name] | {"name": name}))
    got, _, figures = losses(model)
    has = name in ("lssvwm", "s5")
    assert (got["state"] > 0) == has
    assert [figure for figure in figures if figure.startswith("state/")] == [
        f"state/{i}/{part}" for i in range(2 * has) for part in ("mean", "variance", "norm")
    ]


def test_free_nats_stop_the_divergence() -> None:
    model = make(free_nats=1000.0)
    got = losses(model)[0]
    assert got["dynamics"] == got["representation"] == 1000
    got["dynamics"].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_weights_are_the_configuration_s() -> None:
    assert (
        make(state_scale=7.0, reward_scale=3.0).loss_scales() | {"state": 7.0, "reward": 3.0}
        == make(state_scale=7.0, reward_scale=3.0).loss_scales()
    )


def test_a_prediction_can_be_learnt() -> None:
    """SequenceBatch whose reward and next frame the action decides: after some updates the dream says so too."""
    torch.manual_seed(0)
    config = LSSVWMConfig(**(SMALL["lssvwm"] | {"free_nats": 0.1}))
    model = LSSVWM(config, SHAPES["vector"], ACTIONS)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    values = torch.eye(ACTIONS, SHAPES["vector"][0]) * 2

    def experience() -> SequenceBatch:
        out = random_batch("vector", 8, 8)
        choice = torch.randint(0, ACTIONS, (8, 8))
        out.action = F.one_hot(choice, ACTIONS).float()
        out.observation, out.reward = values[choice], choice.float()
        out.terminated = torch.zeros(8, 8, dtype=torch.bool)
        return out

    for _ in range(80):
        got, output, _ = model.loss(experience(), model.initial(8))
        loss = torch.stack([got[name] * weight for name, weight in model.loss_scales().items()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        start = output.last_state[:ACTIONS]
        state = model.dream(start, torch.eye(ACTIONS), sample=False)
        feature = model.feature(state)
        assert (model.reward(feature) - torch.arange(3)).abs().max() < 0.4
        assert (model.decode(feature) - values).abs().mean() < 0.3
        assert model.continue_prob(feature).min() > 0.8


def test_blind_windows_teach_what_blind_dreams_do() -> None:
    model, given = make(open_loop_prob=0.5), rows()
    read = 3  # frames of the second sequence, which begins at its first row
    model.eval()
    with torch.no_grad():
        unread = (torch.arange(T) > read).expand(B, T)
        taught = model._observe(given, model.initial(B), True, unread)[0].feature[1, :, :, :32]
        state = model.observe(given[:, :read], model.initial(B), sample=False).last_state
        for t in range(read, T):
            state = model.dream(state, given.action[:, t])
            torch.testing.assert_close(state["h"][1], taught[t], atol=1e-5, rtol=0)
            before = state["z"].clone()
            blinded = model.open_loop(state)
            assert torch.equal(state["z"], before)  # never changed in place
            state = blinded
        seen = model.observe(given, model.initial(B), sample=False).feature[1, :, :, :32]
        assert (
            torch.equal(seen[: read + 1], taught[: read + 1])
            and (seen[read + 1 :] - taught[read + 1 :]).abs().max() > 1e-3
        )
        assert make().open_loop(state) is state


def test_how_many_windows_are_blind_and_from_where_on() -> None:
    given = random_batch("image", 400, 8)
    model = make(open_loop_prob=0.5)
    unread = model._unread(given)
    assert (unread[:, 1:] >= unread[:, :-1]).all()  # once blind, to the window's end
    begins = (~unread).sum(1)
    assert 150 < (begins < 8).sum() < 250 and set(begins.tolist()) == set(range(9))
    assert model.eval()._unread(given) is None and make()._unread(given) is None
