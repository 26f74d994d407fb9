"""RMSNorm and moments against torch's own and finite differences. Running moments are tested with the tokenizer."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel.norm import RMSNorm, moments


def norm(width: int, dtype: torch.dtype) -> RMSNorm:
    """With weights that are not one."""
    module = RMSNorm(width, eps=1e-5).to(dtype)
    torch.nn.init.uniform_(module.weight, 0.5, 2.0)
    return module


@settings(max_examples=30)
@given(st.lists(st.integers(1, 5), max_size=3), st.integers(1, 40), st.floats(1e-4, 1e3), st.integers(0, 99))
def test_values_and_gradients_are_those_of_torch(lead: list[int], width: int, size: float, seed: int) -> None:
    torch.manual_seed(seed)
    ours = norm(width, torch.float64)
    x = (size * torch.randn(*lead, width, dtype=torch.float64)).requires_grad_()
    gradient = torch.randn_like(x)
    y = F.rms_norm(x, (width,), ours.weight, 1e-5)
    want = torch.autograd.grad(y, (x, ours.weight), gradient)
    torch.testing.assert_close(ours(x), y)
    torch.testing.assert_close(torch.autograd.grad(ours(x), (x, ours.weight), gradient), want, atol=1e-9, rtol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), y)


def test_gradients_are_finite_differences() -> None:
    torch.manual_seed(0)
    module = norm(6, torch.float64)
    x = torch.randn(3, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,))


def test_zeros_stay_zeros() -> None:
    x = torch.zeros(2, 5, requires_grad=True)
    y = norm(5, torch.float32)(x)
    y.sum().backward()
    assert not y.any() and x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e3])
def test_bfloat16_is_near_the_wide_result(size: float) -> None:
    torch.manual_seed(0)
    module = norm(128, torch.float32)
    x = (size * torch.randn(50, 128)).bfloat16()
    narrow = module(x)
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), module(x.float()), atol=0.02, rtol=0.02)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.floats(-3, 3), st.integers(0, 99))
def test_moments_and_their_gradients_are_those_of_torch(shape: list[int], middle: float, seed: int) -> None:
    torch.manual_seed(seed)
    x = (middle + torch.randn(shape, dtype=torch.float64)).requires_grad_()
    var, mean = torch.var_mean(x, correction=0)
    torch.testing.assert_close(moments(x), (mean, var))
    got, want = (torch.autograd.grad(3 * m + m * v + v**2, x)[0] for m, v in (moments(x), (mean, var)))
    torch.testing.assert_close(got, want)
