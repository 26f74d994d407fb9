"""Numbers in bins, and the networks that read features."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel.heads import TokenMLP, TwoHot, symexp, symlog

twohot = TwoHot()
numbers = st.floats(-1e6, 1e6, width=32)


@given(numbers)
def test_symexp_is_the_inverse_of_symlog(number: float) -> None:
    x = torch.tensor(number, dtype=torch.float64)
    torch.testing.assert_close(symexp(symlog(x)), x, atol=1e-9, rtol=1e-9)
    assert symlog(-x) == -symlog(x)


def test_symlog_by_hand() -> None:
    e = torch.e
    torch.testing.assert_close(symlog(torch.tensor([0, e - 1, 1 - e])), torch.tensor([0.0, 1.0, -1.0]))
    torch.testing.assert_close(symexp(torch.tensor([0.0, 2.0, -2.0])), torch.tensor([0, e**2 - 1, 1 - e**2]))


def test_bins_are_symmetric_and_evenly_spaced_after_symlog() -> None:
    assert torch.equal(twohot.bins, -twohot.bins.flip(0))
    places = symlog(twohot.bins.double())
    torch.testing.assert_close(places, torch.linspace(-20, 20, 255, dtype=torch.float64), atol=1e-5, rtol=0)


@given(numbers)
def test_the_mean_of_a_target_is_its_number(number: float) -> None:
    target = twohot.target(torch.tensor(number))
    assert target.shape == (255,) and (target >= 0).all()
    torch.testing.assert_close(target.sum(), torch.tensor(1.0))
    hot = target.nonzero().flatten()
    assert len(hot) <= 2 and hot[-1] - hot[0] <= 1  # neighbours
    mean = twohot.mean(target.log())
    torch.testing.assert_close(mean, torch.tensor(number, dtype=torch.float32), atol=1e-5, rtol=1e-4)


def test_targets_of_bins_are_one_hot() -> None:
    torch.testing.assert_close(twohot.target(twohot.bins), torch.eye(255))


def test_zero_logits_mean_exactly_zero() -> None:
    assert torch.equal(twohot.mean(torch.zeros(4, 255)), torch.zeros(4))
    assert torch.equal(twohot.mean(torch.full((255,), 3.0)), torch.tensor(0.0))


def test_each_bin_begins_with_as_much_part_in_a_mean_of_zero() -> None:
    head = TokenMLP(2, 8, 255, 16)
    twohot.init_output(head.out)
    logits = head(torch.randn(4, 2, 8))
    torch.testing.assert_close(twohot.mean(logits), torch.zeros(4), atol=1e-6, rtol=0)
    part = logits[0].softmax(-1) * twohot.bins.abs()
    assert part.max() < 0.1 and part[0] == part[-1] and part[0] > 0.9 * part.max()


def test_a_trained_mean_withstands_noise_in_its_logits() -> None:
    """As much as bfloat16 rounds a logit by: from a uniform start the outermost bins throw the mean off by tens."""
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 255)
    torch.nn.init.zeros_(head.weight)
    twohot.init_output(head)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(500):
        x = torch.randn(256, 16)
        loss = twohot.loss(head(x), x[:, 0].sigmoid()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.randn(256, 16)
    logits = head(x).detach()
    noisy = twohot.mean(logits + 0.05 * torch.randn_like(logits))
    assert (twohot.mean(logits) - x[:, 0].sigmoid()).abs().mean() < 0.1
    torch.testing.assert_close(noisy, twohot.mean(logits), atol=0.2, rtol=0)


@settings(max_examples=30)
@given(numbers, st.integers(0, 1000))
def test_the_loss_is_least_at_the_number(number: float, seed: int) -> None:
    x = torch.tensor(number)
    target = twohot.target(x)
    logits = torch.randn(255, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    loss = twohot.loss(logits, x)
    least = -torch.special.xlogy(target, target).sum()
    assert loss > least
    torch.testing.assert_close(twohot.loss((target + 1e-9).log(), x), least, atol=1e-4, rtol=0)
    gradient = torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(gradient, logits.softmax(-1) - target, atol=1e-5, rtol=0)


@pytest.mark.parametrize("number", [1e30, -1e30, float("inf"), -float("inf"), 4.8516e8, 0.0])
def test_extreme_numbers_stay_in_the_bins(number: float) -> None:
    target = twohot.target(torch.tensor(number))
    assert target.isfinite().all() and abs(target.sum() - 1) < 1e-6
    want = torch.tensor(number).clamp(twohot.bins[0], twohot.bins[-1])
    torch.testing.assert_close(twohot.mean((target + 1e-30).log()), want, atol=1e-3, rtol=1e-4)
    assert twohot.loss(torch.zeros(255), torch.tensor(number)).isfinite()


def test_shapes_go_through() -> None:
    x = torch.randn(2, 3)
    assert twohot.target(x).shape == (2, 3, 255)
    assert twohot.mean(torch.randn(2, 3, 255)).shape == (2, 3)
    assert twohot.loss(torch.randn(2, 3, 255), x).shape == (2, 3)
    torch.testing.assert_close(twohot.target(x.T)[:, 0], twohot.target(x[0]))  # not contiguous


@pytest.mark.parametrize("tokens, layers", [(1, 1), (16, 1), (4, 2)])
def test_a_token_mlp_starts_at_zero_and_reads_every_token(tokens: int, layers: int) -> None:
    torch.manual_seed(0)
    feature = torch.randn(2, 5, tokens, 12, requires_grad=True)
    head = TokenMLP(tokens, 12, 7, 24, layers)
    assert torch.equal(head(feature), torch.zeros(2, 5, 7))
    head = TokenMLP(tokens, 12, 7, 24, layers, scale=1.0)
    gradient = torch.autograd.grad(head(feature)[0, 0].square().sum(), feature)[0]
    assert (gradient[0, 0].abs().amax(-1) > 0).all()
    assert not gradient[1].any() and not gradient[0, 1:].any()


def test_a_token_mlp_answers_in_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert TokenMLP(2, 8, 3, 16)(torch.randn(4, 2, 8)).dtype == torch.float32
