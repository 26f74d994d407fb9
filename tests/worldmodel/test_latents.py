"""Latents: the uniform floor, samples and their gradients, divergences against torch.distributions."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Normal, kl_divergence

from worldmodel.latents import CategoricalLatents, GaussianLatents, balanced_kl, draw, kl, log_probs

N, G, C = 2, 3, 5
LATENTS = CategoricalLatents(G, C, 0.01)


def noise(*lead: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    """Logits (..., N, G, C) float64."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*lead, N, G, C, generator=random, dtype=torch.float64) * scale


@pytest.mark.parametrize("unimix", [0.0, 0.01, 0.3])
def test_probabilities_are_mixed_with_the_uniform(unimix: float) -> None:
    logits = noise(scale=20.0)
    probs = log_probs(logits, unimix).exp()
    torch.testing.assert_close(probs.sum(-1), torch.ones(N, G, dtype=torch.float64))
    assert probs.min() >= unimix / C * (1 - 1e-9)
    torch.testing.assert_close(probs, (1 - unimix) * logits.softmax(-1) + unimix * torch.full_like(logits, 1 / C))


@pytest.mark.parametrize("gap", [0.0, 20.0, 110.0, 200.0])
def test_divergences_have_gradients_without_the_uniform(gap: float) -> None:
    """Where a class is so far behind that its probability is 0 in float32: values and gradients are float64's."""
    logits = [torch.tensor([[[gap, 0.0]], [[0.0, gap]]]), torch.tensor([[[0.0, gap]], [[1.0, 0.0]]])]
    found = []
    for dtype in (torch.float32, torch.float64):
        p, q = (x.to(dtype).requires_grad_() for x in logits)
        divergence = kl(log_probs(p, 0.0), log_probs(q, 0.0))
        found.append((divergence, *torch.autograd.grad(divergence, (p, q))))
    for narrow, wide in zip(*found, strict=True):
        assert narrow.isfinite().all()
        torch.testing.assert_close(narrow.double(), wide, atol=1e-5, rtol=1e-5)


def test_narrow_logits_are_widened() -> None:
    logits = noise().bfloat16()
    assert log_probs(logits, 0.01).dtype == torch.float32
    torch.testing.assert_close(log_probs(logits, 0.01), log_probs(logits.float(), 0.01))
    assert log_probs(noise(), 0.01).dtype == torch.float64


@pytest.mark.parametrize("sample", [False, True])
def test_samples_are_one_hot_and_their_gradient_is_that_of_the_probabilities(sample: bool) -> None:
    torch.manual_seed(0)
    logits = noise(4).requires_grad_()
    weights = noise(4, seed=1)
    log_p = log_probs(logits, 0.01)
    z = draw(log_p, sample)
    torch.testing.assert_close(z.sort(-1).values, torch.eye(C, dtype=torch.float64)[-1].expand_as(z))
    through = torch.autograd.grad((z * weights).sum(), logits, retain_graph=True)[0]
    want = torch.autograd.grad((log_p.exp() * weights).sum(), logits)[0]
    assert want.abs().max() > 0.1
    torch.testing.assert_close(through, want)


def test_the_mode_is_the_most_likely_class() -> None:
    log_p = log_probs(noise(4), 0.01)
    assert torch.equal(draw(log_p, sample=False).argmax(-1), log_p.argmax(-1))


def test_samples_are_as_frequent_as_they_are_likely() -> None:
    torch.manual_seed(0)
    log_p = log_probs(noise(), 0.01).float()
    count = 20_000
    often = draw(log_p.expand(count, N, G, C), sample=True).mean(0)
    probs = log_p.exp()
    assert ((often - probs).abs() < 5 * (probs * (1 - probs) / count).sqrt()).all()


def test_samples_of_different_variables_are_independent() -> None:
    torch.manual_seed(0)
    z = draw(torch.full((20_000, 2, 2), 0.5).log(), sample=True)[..., 0]
    assert abs((z[:, 0] * z[:, 1]).mean() - 0.25) < 0.02


def test_kl_is_that_of_independent_categoricals() -> None:
    p, q = log_probs(noise(4), 0.01), log_probs(noise(4, seed=1), 0.01)
    want = kl_divergence(Categorical(logits=p), Categorical(logits=q)).sum((-1, -2))
    torch.testing.assert_close(kl(p, q), want)
    torch.testing.assert_close(kl(p, p), torch.zeros(4, dtype=torch.float64))


def test_the_balanced_kl_moves_one_side_each() -> None:
    p, q = noise(4).requires_grad_(), noise(4, seed=1).requires_grad_()
    dynamics, representation, plain = balanced_kl(LATENTS, log_probs(p, 0.01), log_probs(q, 0.01), 0.0)
    want = kl(log_probs(p, 0.01), log_probs(q, 0.01)).mean()
    for got in (dynamics, representation, plain):
        torch.testing.assert_close(got, want)
    whole = torch.autograd.grad(want, (p, q))
    zero = torch.zeros_like(p)
    moved = torch.autograd.grad(dynamics, (p, q), materialize_grads=True)
    torch.testing.assert_close(moved, (zero, whole[1]))
    moved = torch.autograd.grad(representation, (p, q), materialize_grads=True)
    torch.testing.assert_close(moved, (whole[0], zero))
    assert not plain.requires_grad


def test_free_nats_are_a_floor_for_each_frame() -> None:
    logits = torch.stack([noise(seed=1), noise()])  # one frame agrees with the prior, one does not
    q = torch.stack([noise(seed=1), noise(seed=1)]).requires_grad_()
    divergence = kl(log_probs(logits, 0.01), log_probs(q, 0.01)).detach()
    assert divergence[0] == 0 and divergence[1] > 1
    dynamics, representation, plain = balanced_kl(LATENTS, log_probs(logits, 0.01), log_probs(q, 0.01), 1.0)
    torch.testing.assert_close(dynamics, (1 + divergence[1]) / 2)
    torch.testing.assert_close(representation, (1 + divergence[1]) / 2)
    torch.testing.assert_close(plain, divergence.mean())
    gradient = torch.autograd.grad(dynamics, q)[0]
    assert not gradient[0].any() and gradient[1].any()


def test_categorical_latents_are_these_functions_with_one_axis_for_a_token() -> None:
    out = noise(4).flatten(-2)
    log_p = LATENTS.posterior(out)
    torch.testing.assert_close(log_p, log_probs(noise(4), 0.01))
    torch.testing.assert_close(LATENTS.mean(log_p), log_p.exp().flatten(-2))
    assert LATENTS.draw(log_p, sample=False).shape == (4, N, LATENTS.width)
    torch.testing.assert_close(LATENTS.entropy(log_p), Categorical(logits=log_p).entropy().sum((-1, -2)))


def test_a_prior_without_an_opinion_is_what_memory_expects() -> None:
    expected = log_probs(noise(4), 0.0).exp()
    prior = CategoricalLatents(G, C, 0.0).prior(torch.zeros(4, N, G * C).double(), expected.flatten(-2))
    floor = 0.1 / C
    want = expected.clamp_min(floor) / expected.clamp_min(floor).sum(-1, keepdim=True)
    torch.testing.assert_close(prior.exp(), want)
    gaussian, mean = GaussianLatents(6), torch.randn(4, N, 6)
    torch.testing.assert_close(gaussian.mean(gaussian.prior(torch.zeros(4, N, 12), mean)), mean)


def test_gaussian_latents_are_normal_distributions() -> None:
    torch.manual_seed(0)
    latents = GaussianLatents(3)
    p, q = latents.posterior(torch.randn(4, N, 3)), latents.prior(torch.randn(4, N, 6))
    first, second = (Normal(x[..., 0], x[..., 1].exp()) for x in (p, q))
    assert first.mean.abs().max() < 1 and (first.stddev - 0.05).abs().max() < 1e-6 and second.stddev.min() > 0.05
    torch.testing.assert_close(latents.kl(p, q), kl_divergence(first, second).sum((-1, -2)))
    torch.testing.assert_close(latents.entropy(q), second.entropy().sum((-1, -2)))
    torch.testing.assert_close(latents.draw(q, sample=False), second.mean)
    drawn = torch.stack([latents.draw(q, sample=True) for _ in range(4000)])
    torch.testing.assert_close(drawn.mean(0), second.mean, atol=0.1, rtol=0.05)
    torch.testing.assert_close(drawn.std(0), second.stddev, atol=0.05, rtol=0.1)
