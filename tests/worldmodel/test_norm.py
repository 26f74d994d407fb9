"""RMSNorm's gradients and types. RunningNorm is tested with the tokenizer."""

import pytest
import torch

from worldmodel.norm import RMSNorm


def norm(width: int, dtype: torch.dtype) -> RMSNorm:
    """With weights that are not one."""
    module = RMSNorm(width, eps=1e-5).to(dtype)
    torch.nn.init.uniform_(module.weight, 0.5, 2.0)
    return module


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
