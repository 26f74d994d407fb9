"""Each hand-written CPU kernel against the plain form that it replaces: values and gradients, in float64."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel import cpu
from worldmodel.boundaries import convolve_masked
from worldmodel.mamba2 import D_CONV


@settings(max_examples=30)
@given(st.lists(st.integers(1, 5), max_size=3), st.integers(1, 40), st.floats(1e-4, 1e3), st.integers(0, 99))
def test_rms_norm(lead: list[int], width: int, size: float, seed: int) -> None:
    torch.manual_seed(seed)
    weight = torch.empty(width, dtype=torch.float64).uniform_(0.5, 2.0).requires_grad_()
    x = (size * torch.randn(*lead, width, dtype=torch.float64)).requires_grad_()
    gradient = torch.randn_like(x)
    y = F.rms_norm(x, (width,), weight, 1e-5)
    want = torch.autograd.grad(y, (x, weight), gradient)
    torch.testing.assert_close(cpu.rms_norm(x, weight, 1e-5), y)
    torch.testing.assert_close(
        torch.autograd.grad(cpu.rms_norm(x, weight, 1e-5), (x, weight), gradient), want, atol=1e-9, rtol=1e-6
    )
    with torch.no_grad():
        torch.testing.assert_close(cpu.rms_norm(x, weight, 1e-5), y)


@settings(max_examples=40)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.floats(0, 1), st.integers(0, 99))
def test_convolve(b: int, length: int, channels: int, share: float, seed: int) -> None:
    torch.manual_seed(seed)
    past, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((b, D_CONV - 1 + length, channels), (D_CONV, channels), (channels,))
    )
    segment = (torch.rand(b, D_CONV - 1 + length) < share).cumsum(1)
    want, got = convolve_masked(past, weight, bias, segment), cpu.convolve(past, weight, bias, segment)
    torch.testing.assert_close(got, want)
    gradient = torch.randn_like(want)
    parts = (past, weight, bias)
    torch.testing.assert_close(torch.autograd.grad(got, parts, gradient), torch.autograd.grad(want, parts, gradient))


def test_attention() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, n, 8, dtype=torch.float64, requires_grad=True) for n in (4, 6, 6))
    bias = torch.randn(3, 2, 4, 6, dtype=torch.float64).masked_fill(torch.rand(3, 2, 4, 6) < 0.4, -torch.inf)
    bias[..., 0] = 0.0
    ours = cpu.attention(query, key, value, bias)
    torchs = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    torch.testing.assert_close(ours, torchs)
    gradient = torch.randn_like(ours)
    parts = (query, key, value)
    torch.testing.assert_close(torch.autograd.grad(ours, parts, gradient), torch.autograd.grad(torchs, parts, gradient))
