"""The losses of LSSVWM: their values from the features they are of, and what each of them trains."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from tests.worldmodel.small import ACTIONS, OPTIONS, SHAPES, SMALL, assert_close, random_batch, shake
from worldmodel import Losses, ObserveOutput, SequenceBatch, State
from worldmodel.heads import symlog
from worldmodel.lssvwm import LSSVWM
from worldmodel.lssvwm_config import LSSVWMConfig
from worldmodel.next_reward import REWARD_SCALE
from worldmodel.reconstruction import ssim

B, T = 2, 9
NEXT_REWARD = OPTIONS["cosine"]


def make(**options: object) -> LSSVWM:
    """Small, on images, with the next-reward head."""
    torch.manual_seed(0)
    model = LSSVWM(LSSVWMConfig(**(SMALL["lssvwm"] | NEXT_REWARD | options)), SHAPES["image"], ACTIONS)
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
    """The loss, row by row: of the prediction at the frame before, which features show."""
    width, head, found = model.config.d_model, model.next_reward, []
    predicted = torch.zeros(B, T + 1, 1 + ACTIONS)  # at t + 1 by frame t; at 0 by the State before, and not asked
    for b in range(B):
        for t in range(T):
            h, rewards, z = feature[b, t].split([width, 1 + ACTIONS, model.latent_width], -1)
            predicted[b, t + 1] = head(h, z, model._mean(model._next_prior(h)))
            before = 0 if given.is_first[b, t] else predicted[b, t, 0] + given.action[b, t] @ predicted[b, t, 1:]
            rewards = rewards / REWARD_SCALE
            torch.testing.assert_close(rewards, rewards[:1].expand(model.tokens, -1))
            torch.testing.assert_close(rewards[0, 0], torch.as_tensor(before, dtype=rewards.dtype))
            torch.testing.assert_close(rewards[0, 1:], predicted[b, t + 1, 0] + predicted[b, t + 1, 1:])
            if not given.is_first[b, t]:
                weight = max(abs(predicted[b, t, 0] + predicted[b, t, 1 + a]) for a in range(ACTIONS)) + 0.01
                found.append(torch.stack([weight, weight * (before - symlog(given.reward[b, t])) ** 2]))
    weights, errors = torch.stack(found).T
    return errors.sum() / weights.sum()


def test_the_values_of_losses() -> None:
    model, given = make(), rows()
    with torch.no_grad():
        got, output, metrics = losses(model)
        feature = output.feature
        truth = given.observation / 255
        decoded = model.decode(feature)
        posterior = Categorical(logits=model._encode(given, sample=False)[0])
        prior = Categorical(logits=model.latents.prior(model.prior(feature[..., :32])))
        divergence = kl_divergence(posterior, prior).sum((-1, -2)).mean()
        next_prior = Categorical(logits=model._next_prior(feature[:, :-1, ..., :32]))
        after = kl_divergence(Categorical(probs=posterior.probs[:, 1:]), next_prior).sum((-1, -2))
        states = [output.start_states["memory", str(i), "0", "ssm"] for i in range(2)]
        want = {
            "reconstruction": ((decoded - truth) ** 2).sum() / (B * T),
            "perceptual": 1 - ssim(decoded, truth),
            "dynamics": divergence,
            "next_latent": (after * ~given.is_first[:, 1:]).sum() / (B * T),
            "representation": divergence,
            "reward": (model.twohot.loss(model.reward_head(feature), given.reward) * ~given.is_first).mean(),
            "next_reward": _next_reward(model, feature, given),
            "continue": F.binary_cross_entropy(model.continue_prob(feature), (~given.terminated).float()),
            "state_kl": torch.stack(
                [0.5 * (s.var() + s.mean() ** 2 - 1 - (s.var() + 1e-6).log()) for s in states]
            ).mean(),
        }
    assert got.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, atol=1e-4, rtol=1e-4, msg=name)
        assert value > 0, name
    torch.testing.assert_close(metrics["kl"], divergence, atol=1e-4, rtol=1e-4)
    entropy = posterior.entropy().sum((-1, -2)).mean()
    torch.testing.assert_close(metrics["entropy/posterior"], entropy, atol=1e-4, rtol=1e-4)


def test_a_first_row_s_reward_trains_nothing() -> None:
    """Replay cuts the past off in the middle of episodes too, where a reward stands beside `is_first`."""
    model, given = make(), rows()
    found = []
    for reward in (0.0, 5.0):
        given.reward[given.is_first] = reward
        torch.manual_seed(0)
        got = model.loss(given, model.initial(B))[0]
        found.append(torch.stack([got["reward"], got["next_reward"]]))
    assert torch.equal(*found)


TRAINED = {
    "reconstruction": {"encoder", "decoder", "posterior", "backbone"},
    "perceptual": {"encoder", "decoder", "posterior", "backbone"},
    "dynamics": {"encoder", "posterior", "backbone", "prior"},  # through the latents that memory reads
    "next_latent": {"encoder", "posterior", "backbone", "next_prior"},
    "representation": {"encoder", "posterior"},
    "reward": {"encoder", "posterior", "backbone", "reward_head"},
    "next_reward": {"encoder", "posterior", "backbone", "next_reward"},  # the expected frame gets no gradient
    "continue": {"encoder", "posterior", "backbone", "continue_head"},
    "state_kl": {"encoder", "posterior", "backbone"},
}


@pytest.mark.parametrize("name", list(TRAINED))
def test_what_each_loss_trains(name: str) -> None:
    model = make()
    losses(model)[0][name].backward()
    reached = set()
    for path, parameter in model.named_parameters():
        part = path.split(".")
        if parameter.grad is not None and parameter.grad.any():
            reached.add(part[1] if part[0] == "tokenizer" else part[0])
    assert reached == TRAINED[name]


@pytest.mark.parametrize("name", ["lssvwm", "s5", "gru", "local"])
def test_states_of_scans_alone_are_regularised(name: str) -> None:
    """A GRU's are bounded by themselves."""
    model = make(**(SMALL[name] | {"name": name}))
    got, _, metrics = losses(model)
    has = name in ("lssvwm", "s5")
    assert (got["state_kl"] > 0) == has
    assert [metric for metric in metrics if metric.startswith("state/")] == [
        f"state/{i}/{part}" for i in range(2 * has) for part in ("mean", "variance", "norm")
    ]


def test_free_nats_stop_the_divergence() -> None:
    model = make(free_nats=1000.0)
    got = losses(model)[0]
    assert got["dynamics"] == got["representation"] == 1000
    got["dynamics"].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_scales_are_the_configuration_s() -> None:
    assert (
        make(state_kl_scale=7.0, reward_scale=3.0).loss_scales() | {"state_kl": 7.0, "reward": 3.0}
        == make(state_kl_scale=7.0, reward_scale=3.0).loss_scales()
    )


def test_a_prediction_can_be_trained() -> None:
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
        loss = torch.stack([got[name] * scale for name, scale in model.loss_scales().items()]).sum()
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


def test_memory_of_a_prefix_predicts_as_an_open_loop_dream_does() -> None:
    model, given = make(open_loop_prob=0.5), rows()
    prefix = 3  # frames of the second sequence, which begins at its first row
    model.eval()
    with torch.no_grad():
        observed = (torch.arange(T) <= prefix).expand(B, T)
        window = model._observe(given, model.initial(B), *model._encode(given, sample=False), observed)
        trained = window.h[1]
        state = model.observe(given[:, :prefix], model.initial(B), sample=False).last_state
        for t in range(prefix, T):
            state = model.dream(state, given.action[:, t])
            torch.testing.assert_close(state["h"][1], trained[t], atol=1e-5, rtol=0)
            before = state["z"].clone()
            hidden = model.open_loop(state)
            assert torch.equal(state["z"], before)  # never changed in place
            state = hidden
        whole = model.observe(given, model.initial(B), sample=False).feature[1, :, :, :32]
        assert torch.equal(whole[: prefix + 1], trained[: prefix + 1])
        assert (whole[prefix + 1 :] - trained[prefix + 1 :]).abs().max() > 1e-3
        assert make().open_loop(state) is state


def test_how_many_windows_are_observed_in_part_and_how_far() -> None:
    given = random_batch("image", 400, 8)
    model = make(open_loop_prob=0.5)
    observed = model._observed_prefix(given)
    assert (observed[:, 1:] <= observed[:, :-1]).all()  # once hidden, to the window's end
    lengths = observed.sum(1)
    assert 150 < (lengths < 8).sum() < 250 and set(lengths.tolist()) == set(range(9))
    assert model.eval()._observed_prefix(given) is None and make()._observed_prefix(given) is None


def test_after_hidden_frames_memory_continues_as_if_it_had_observed_all() -> None:
    model, given = make(open_loop_prob=1.0), rows()
    torch.manual_seed(3)
    whole = model.observe(given, model.initial(B))
    torch.manual_seed(3)  # the same latents
    losses, output, _ = model.loss(given, model.initial(B))
    torch.testing.assert_close(output.feature, whole.feature)
    assert torch.equal(output.start_index, whole.start_index)
    assert_close(output.start_states, whole.start_states)
    assert_close(output.last_state, whole.last_state)
    later = random_batch("image", B, 5, seed=2)
    ahead = [model.observe(later, state, sample=False).feature for state in (output.last_state, whole.last_state)]
    torch.testing.assert_close(*ahead)
    # the losses are those of the hidden window
    torch.manual_seed(3)
    assert losses["dynamics"] != make(open_loop_prob=0.0).loss(given, model.initial(B))[0]["dynamics"]
    losses["dynamics"].backward()
    assert any(parameter.grad is not None for parameter in model.backbone.parameters())


def test_state_passing_keeps_memory_at_episode_starts_but_not_the_frame_before() -> None:
    model, given, other = make(state_passing=1.0), rows(), rows()
    other.observation[0, 2] = 255 - other.observation[0, 2]
    with torch.no_grad():
        posterior, z = model._encode(given, sample=False)
        changed = model._encode(other, sample=False)[1]

        def h(z: Tensor) -> Tensor:
            return model._observe(given, model.initial(B), posterior, z, None, model._resets(given)).h[0]

        last = z.clone()
        last[0, 3] = changed[0, 2]
        assert torch.equal(h(z)[4:], h(last)[4:])  # an episode's row 0 does not read the frame before it ...
        assert (h(z)[4] - h(changed)[4]).abs().max() > 1e-4  # ... but memory of earlier ones
        model.eval()
        assert torch.equal(h(z)[4:], h(changed)[4:])
        assert model._resets(given) is given.is_first


def test_a_share_of_episode_starts_passes_memory_on() -> None:
    given = random_batch("image", 400, 8, firsts=[(b, t) for b in range(400) for t in (0, 5)])
    reset = make(state_passing=0.75)._resets(given)
    assert not reset[~given.is_first].any() and 150 < reset.sum() < 250
    assert make()._resets(given) is given.is_first


def test_memory_passes_from_window_to_window() -> None:
    model, given = make(state_passing=1.0), rows()
    lived = model.observe(random_batch("image", B, T, seed=5), model.initial(B)).last_state

    def loss_from(state: State) -> tuple[Losses, ObserveOutput]:
        torch.manual_seed(0)
        return model.loss(given, state)[:2]

    with torch.no_grad():
        (passed, output), (fresh, _) = (loss_from(state) for state in (lived, model.initial(B)))
        assert passed["dynamics"] != fresh["dynamics"]
        model.config.state_passing = 0.0
        (reset, after), (fresh, _) = (loss_from(state) for state in (lived, model.initial(B)))
        assert reset["dynamics"] == fresh["dynamics"]
        memory = [o.last_state["memory", "0", "0", "ssm"] for o in (output, after)]
        assert (memory[0] - memory[1]).abs().max() > 1e-4


def test_a_memory_feature_is_the_sum_of_projected_states() -> None:
    model, given = make(memory_feature=6, next_reward=False, cosine_similarity=False, blocks=((1, 1), (2, 2))), rows()
    with torch.no_grad():
        output = model.observe(given, model.initial(B), sample=False)
        projections = model.memory_feature.projections
        for t in (0, 5, T - 1):
            state = model.observe(given[:, : t + 1], model.initial(B), sample=False).last_state
            for token in range(16):
                block = token // 8 * 2 + token % 4 // 2  # of 2x2 tokens
                states = [state["memory", "0", "0", "ssm"][:, token], state["memory", "1", "0", "ssm"][:, block]]
                want = sum(projections[name](s.flatten(1)) for name, s in zip(("0-0", "1-0"), states, strict=True))
                torch.testing.assert_close(output.feature[:, t, token, :6], want, atol=1e-4, rtol=1e-4)
        other = output.feature.clone()
        other[..., :6] += 1
        assert torch.equal(model.decode(other), model.decode(output.feature))  # the decoder does not read it
        assert not torch.equal(model.reward(other), model.reward(output.feature))
