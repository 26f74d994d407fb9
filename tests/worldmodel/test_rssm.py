"""RSSM: its equations against plain numpy, at the 12M size; its gradients against finite differences; its sizes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.worldmodel import rssm_by_hand as by_hand
from tests.worldmodel.small import ACTIONS, SHAPES, random_batch, shake
from worldmodel import SequenceBatch, State, total
from worldmodel.rssm import RSSM, RSSMConfig
from worldmodel.rssm_networks import SIZES, BlockGRU, BlockLinear, ImageCoder, Widths, dense, halvings

B, T = 2, 3
FREE_NATS = 1.0


class Step:
    """One training step of the 12M model in float64, and all that went into it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = RSSM(RSSMConfig(size="12M", free_nats=FREE_NATS), SHAPES["vector"], ACTIONS)
        shake(self.model, 0.02)
        self.model.double()
        self.rows = in_double(random_batch("vector", B, T, firsts=[(0, 1)]))
        with torch.no_grad():
            earlier = in_double(random_batch("vector", B, 2, seed=1))
            self.state: State = self.model.observe(earlier, self.model.initial(B)).last_state
        torch.manual_seed(1)
        self.losses, self.output, self.metrics = self.model.loss(self.rows, self.state)
        total(self.losses, self.model.loss_scales()).backward()
        self.hot = by_hand.hot_of(self.output.feature[..., 2048:], 16)
        self.weights = by_hand.weights_of(self.model)
        self.stopped = by_hand.Stopped()
        self.want, self.seen = self.by_hand()

    def by_hand(self) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """The same by the oracle, with the weights as they stand."""
        return by_hand.forward(self.weights, self.rows, self.state, self.hot, FREE_NATS, self.stopped)


def in_double(rows: SequenceBatch) -> SequenceBatch:
    """SequenceBatch whose numbers are float64."""
    out = rows.clone()
    out.observation, out.action, out.reward = rows.observation.double(), rows.action.double(), rows.reward.double()
    return out


@pytest.fixture(scope="module")
def step() -> Step:
    return Step()


def test_the_recurrent_state_is_the_paper_s(step: Step) -> None:
    feature = step.output.feature.detach()
    assert feature.shape == (B, T, 1, 2048 + 32 * 16)
    np.testing.assert_allclose(feature[:, :, 0, :2048].numpy(), step.seen["h"], atol=1e-10)
    assert step.hot.sum(-1).min() == step.hot.sum(-1).max() == 1 and set(np.unique(step.hot)) == {0.0, 1.0}
    assert np.abs(step.seen["h"]).max() > 0.1


def test_prior_and_posterior_are_the_paper_s(step: Step) -> None:
    with torch.no_grad():
        h = step.output.feature[:, :, 0, :2048]
        prior = step.model.latents.prior(step.model.prior(h))
        frames = step.model.posterior.from_frame(step.model.coder.encode(step.rows.observation))
        posterior = step.model.latents.posterior(step.model.posterior(h, frames))
    np.testing.assert_allclose(prior.exp().numpy(), step.seen["prior"], atol=1e-10)
    np.testing.assert_allclose(posterior.exp().numpy(), step.seen["posterior"], atol=1e-10)
    assert step.seen["posterior"].min() >= 0.01 / 16


def test_losses_are_the_paper_s(step: Step) -> None:
    assert step.losses.keys() == step.want.keys()
    for name, value in step.want.items():
        assert step.losses[name].item() == pytest.approx(value, rel=1e-6), name
    assert step.want["dynamics"] > FREE_NATS and step.metrics["kl"] == pytest.approx(step.want["dynamics"])
    assert step.model.loss_scales() == {
        "reconstruction": 1.0, "dynamics": 1.0, "representation": 0.1, "reward": 1.0, "continue": 1.0
    }  # fmt: skip


PARAMETERS = [
    "core.in_h.0.weight",
    "core.in_z.0.weight",
    "core.in_action.0.weight",
    "core.in_h.1.weight",
    "core.hidden.weight",
    "core.hidden.bias",
    "core.norm.weight",
    "core.gates.weight",
    "core.gates.bias",
    "posterior.from_h.weight",
    "posterior.from_frame.weight",
    "posterior.logits.weight",
    "prior.0.0.0.weight",
    "prior.1.bias",
    "coder.encoder.0.0.weight",
    "reward_head.0.0.0.weight",
]


@pytest.mark.parametrize("name", PARAMETERS)
def test_gradients_are_finite_differences_of_the_oracle(step: Step, name: str) -> None:
    """At the entry of the largest gradient and at one drawn among those that have any."""
    gradient = dict(step.model.named_parameters())[name].grad
    assert gradient is not None
    flat = gradient.flatten().numpy()
    drawn = np.random.default_rng(0).choice(np.flatnonzero(np.abs(flat) > 1e-3 * np.abs(flat).max()))
    for entry in (int(np.abs(flat).argmax()), int(drawn)):
        values, epsilon = step.weights[name].reshape(-1), 1e-5
        before, sides = values[entry], []
        for sign in (1, -1):
            values[entry] = before + sign * epsilon
            losses, _ = step.by_hand()
            sides.append(sum(losses[loss] * weight for loss, weight in step.model.loss_scales().items()))
        values[entry] = before
        assert (sides[0] - sides[1]) / (2 * epsilon) == pytest.approx(flat[entry], rel=1e-4, abs=1e-8)


def test_free_nats_stop_both_divergences() -> None:
    torch.manual_seed(0)
    model = RSSM(RSSMConfig(hidden=16, free_nats=1000.0), SHAPES["vector"], ACTIONS)
    losses, _, _ = model.loss(random_batch("vector", B, T), model.initial(B))
    assert losses["dynamics"] == losses["representation"] == 1000
    (losses["dynamics"] + losses["representation"]).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_a_first_row_s_reward_trains_nothing() -> None:
    model, rows = RSSM(RSSMConfig(hidden=16), SHAPES["vector"], ACTIONS), random_batch("vector", B, T, firsts=[(0, 1)])
    found = []
    for reward in (0.0, 5.0):
        rows.reward[rows.is_first] = reward
        torch.manual_seed(0)
        found.append(model.loss(rows, model.initial(B))[0]["reward"])
    assert torch.equal(*found)


TRAINED = {
    "reconstruction": {"encoder", "decoder", "posterior", "core"},
    "dynamics": {"encoder", "posterior", "core", "prior"},  # through the latents that h is made of
    "representation": {"encoder", "posterior", "core"},
    "reward": {"encoder", "posterior", "core", "reward_head"},
    "continue": {"encoder", "posterior", "core", "continue_head"},
}


@pytest.mark.parametrize("name", list(TRAINED))
def test_what_each_loss_trains(name: str) -> None:
    torch.manual_seed(0)
    model = RSSM(RSSMConfig(hidden=16, free_nats=0.0), SHAPES["vector"], ACTIONS)
    shake(model, 0.1)
    model.loss(random_batch("vector", B, 5), model.initial(B))[0][name].backward()
    paths = [path.split(".") for path, p in model.named_parameters() if p.grad is not None and p.grad.any()]
    assert {path[1] if path[0] == "coder" else path[0] for path in paths} == TRAINED[name]


def test_a_prediction_can_be_trained() -> None:
    """SequenceBatch whose reward and next frame the action decides: after some updates the dream says so too."""
    torch.manual_seed(0)
    model = RSSM(RSSMConfig(hidden=32, free_nats=0.1), SHAPES["vector"], ACTIONS)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    values = torch.eye(ACTIONS, SHAPES["vector"][0]) * 2
    for _ in range(100):
        rows = random_batch("vector", 8, 8)
        choice = torch.randint(0, ACTIONS, (8, 8))
        rows.action, rows.observation, rows.reward = F.one_hot(choice, ACTIONS).float(), values[choice], choice.float()
        rows.terminated = torch.zeros(8, 8, dtype=torch.bool)
        losses, output, _ = model.loss(rows, model.initial(8))
        optimizer.zero_grad()
        total(losses, model.loss_scales()).backward()
        optimizer.step()
    with torch.no_grad():
        feature = model.feature(model.dream(output.last_state[:ACTIONS], torch.eye(ACTIONS), sample=False))
        assert (model.reward(feature) - torch.arange(3)).abs().max() < 0.4
        assert (model.decode(feature) - values).abs().mean() < 0.3
        assert model.continue_prob(feature).min() > 0.8


# parts


@pytest.mark.parametrize("shape", [(32, 32, 3), (64, 64, 3), (21, 34, 1)], ids=str)
def test_images_are_encoded_and_decoded_as_by_hand(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    widths = Widths(64)
    coder = ImageCoder(shape, widths)
    shake(coder, 0.05)
    coder.double()
    weights = by_hand.weights_of(coder)
    images = torch.randint(0, 256, (2, 1, *shape), dtype=torch.uint8)
    h, z = torch.randn(2, 1, widths.deter).double(), torch.randn(2, 1, widths.latent).double()
    with torch.no_grad():
        codes, decoded, loss = coder.encode(images), coder.decode(h, z), coder.loss(h, z, images)
    assert codes.shape == (2, 1, coder.width) and decoded.shape == images.shape
    errors = []
    for b in range(2):
        np.testing.assert_allclose(codes[b, 0].numpy(), by_hand.encoded_image(weights, images[b, 0].numpy()), atol=1e-9)
        want = by_hand.decoded_image(weights, h[b, 0].numpy(), z[b, 0].numpy(), coder.lowest, shape)
        np.testing.assert_allclose(decoded[b, 0].numpy(), want, atol=1e-9)
        errors.append(((want - images[b, 0].numpy() / 255) ** 2).sum())
    assert loss.item() == pytest.approx(np.mean(errors))


def test_images_are_halved_to_the_paper_s_lowest_level() -> None:
    assert halvings((64, 64))[-1] == (4, 4) and len(halvings((64, 64))) == 4
    assert halvings((32, 32)) == [(16, 16), (8, 8), (4, 4)]
    assert halvings((96, 160))[-1] == (6, 10)
    assert halvings((84, 84)) == [(42, 42), (21, 21), (11, 11), (6, 6)]
    for size in ((4, 64), (300, 300), (8, 256)):
        with pytest.raises(ValueError, match=f"images of {size[0]}x{size[1]} pixels") as refusal:
            halvings(size)
        assert "\n" not in str(refusal.value)


def test_block_linear_is_a_linear_layer_of_a_block_diagonal_matrix() -> None:
    torch.manual_seed(0)
    layer = BlockLinear(24, 16, 8)
    shake(layer, 0.5)
    x = torch.randn(3, 5, 24)
    whole = torch.block_diag(*layer.weight)
    torch.testing.assert_close(layer(x), x @ whole + layer.bias.flatten())
    with pytest.raises(ValueError, match="8 blocks do not divide 24 inputs and 15 outputs"):
        BlockLinear(24, 15, 8)


def test_a_gru_without_weights_keeps_the_most_of_its_state() -> None:
    """All weights zero: the candidate is 0, and the update gate sigmoid(-1)."""
    core = BlockGRU(64, 8, 3, 8)
    for parameter in core.parameters():
        torch.nn.init.zeros_(parameter)
    h = torch.randn(2, 64)
    out = core(h, torch.randn(2, 8), torch.randn(2, 3))
    torch.testing.assert_close(out, h * (1 - 1 / (1 + np.e)))


def test_weights_start_at_the_paper_s_deviation() -> None:
    torch.manual_seed(0)
    weight = dense(400, 500)[0].weight
    assert weight.std().item() == pytest.approx(400**-0.5, rel=0.01)
    assert weight.abs().max() <= 2 * 1.1368 * 400**-0.5
    blocks = BlockLinear(800, 800, 8).weight
    assert blocks.std().item() == pytest.approx(800**-0.5, rel=0.02)


def test_a_new_model_expects_no_reward() -> None:
    torch.manual_seed(0)
    model = RSSM(RSSMConfig(hidden=16), SHAPES["image"], ACTIONS)
    feature = model.observe(random_batch("image", B, T), model.initial(B)).feature
    assert not model.reward(feature).any()


def test_sizes_are_the_published_ones() -> None:
    published = {  # deter, hidden, classes, depth: Hafner et al. 2023
        "1M": (512, 64, 4, 4),
        "12M": (2048, 256, 16, 16),
        "25M": (3072, 384, 24, 24),
        "50M": (4096, 512, 32, 32),
        "100M": (6144, 768, 48, 48),
        "200M": (8192, 1024, 64, 64),
    }
    found = {name: RSSMConfig(size=name).widths() for name in SIZES}  # type: ignore[arg-type]
    assert {name: (w.deter, w.hidden, w.classes, w.depth) for name, w in found.items()} == published
    assert RSSMConfig(size="200M", hidden=96).widths().deter == 768
