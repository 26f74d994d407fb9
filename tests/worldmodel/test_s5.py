"""S5 against the recurrence written out, against the dense real system it starts as, and its gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.worldmodel.small import shake
from worldmodel.mixers import S5
from worldmodel.mixers.s5 import hippo_normal, scan

WIDTH, TOKENS = 6, 3


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """The same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layer(shaken: float = 0.2) -> S5:
    """In float64: two HiPPO blocks of four states."""
    torch.manual_seed(0)
    module = S5(WIDTH, TOKENS, 2, 6, 4)
    shake(module, shaken)
    return module.double()


@st.composite
def scans(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Arguments of `scan`, of any small shape, with resets anywhere."""
    B, T, N, S = (draw(st.integers(1, most)) for most in (3, 20, 3, 4))
    seed = draw(st.integers(0, 1000))
    u, state = (
        noise(*shape, seed=seed + i, dtype=torch.complex128) for i, shape in enumerate([(B, T, N, S), (B, N, S)])
    )
    A = torch.polar(0.5 + noise(S, seed=seed).sigmoid(), noise(S, seed=seed + 2) * 3)
    reset = torch.zeros(B * T, dtype=torch.bool)
    reset[list(draw(st.sets(st.integers(0, B * T - 1), max_size=6)))] = True
    return A, u, state, reset.reshape(B, T)


def recurrence(A: Tensor, u: Tensor, state: Tensor, reset: Tensor) -> Tensor:
    """Frame by frame."""
    states = []
    for t in range(u.shape[1]):
        state = A * torch.where(reset[:, t, None, None], 0, state) + u[:, t]
        states.append(state)
    return torch.stack(states, 1)


@settings(max_examples=100)
@given(scans())
def test_the_scan_is_the_recurrence(arguments: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    torch.testing.assert_close(scan(*arguments), recurrence(*arguments), atol=1e-9, rtol=1e-9)


@settings(max_examples=50)
@given(scans())
def test_gradients_of_the_scan_are_the_recurrence_s(arguments: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    *parts, reset = arguments
    parts = [part.requires_grad_() for part in parts]
    gradient = noise(*parts[1].shape, seed=7, dtype=torch.complex128)
    got, want = (torch.autograd.grad(f(*parts, reset), parts, gradient) for f in (scan, recurrence))
    torch.testing.assert_close(got, want, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("resets", [(), (0,), (2, 3)])
def test_gradients_of_the_layer(resets: tuple[int, ...]) -> None:
    """By finite differences, of every parameter, the input and the memory."""
    module = layer()
    names, parameters = zip(*module.named_parameters(), strict=True)
    reset = torch.zeros(1, 5, dtype=torch.bool)
    reset[:, list(resets)] = True
    x, state = noise(1, 5, TOKENS, WIDTH), noise(1, TOKENS, module.states, 2, seed=1)

    def outputs(x: Tensor, state: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        memory = module.initial(1).set("ssm", state)
        y, memories = torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x, memory, reset, 2))
        return y, memories["ssm"]

    inputs = [t.detach().clone().requires_grad_() for t in (x, state, *parameters)]
    assert torch.autograd.gradcheck(outputs, inputs)


@pytest.mark.parametrize("frames", [1, 2, 5, 8, 13])
@torch.no_grad()
def test_the_layer_is_its_equations(frames: int) -> None:
    module = layer()
    eigenvalues = torch.complex(-module.log_decay.exp(), module.frequency)
    B, C = (torch.view_as_complex(part) for part in (module.B, module.C))
    x, reset = noise(2, frames, TOKENS, WIDTH), torch.zeros(2, frames, dtype=torch.bool)
    reset[0, frames // 2] = reset[1, 0] = True
    memory = module(noise(2, 4, TOKENS, WIDTH, seed=1), module.initial(2), torch.zeros(2, 4, dtype=torch.bool), 4)[1]
    y, memories = module(x, memory[:, -1], reset, 100)
    for b in range(2):
        for n in range(TOKENS):
            s = torch.view_as_complex(memory["ssm"][b, -1, n].clone())
            for t in range(frames):
                s = torch.zeros_like(s) if reset[b, t] else s
                for i, (value, step) in enumerate(zip(eigenvalues, module.log_step.exp(), strict=True)):
                    A = torch.exp(value * step)
                    s[i] = A * s[i] + (A - 1) / value * (B[i] * x[b, t, n]).sum()
                v = 2 * (C @ s).real + module.D * x[b, t, n]
                gelu = v * 0.5 * (1 + torch.erf(v / 2**0.5))
                want = v * torch.sigmoid(module.gate.weight @ gelu + module.gate.bias)
                torch.testing.assert_close(y[b, t, n], want, atol=1e-10, rtol=0)
            torch.testing.assert_close(memories["ssm"][b, -1, n], torch.view_as_real(s), atol=1e-10, rtol=0)


def legs(size: int) -> Tensor:
    """HiPPO-LegS (Gu et al. 2020, arXiv 2008.07669)."""
    A = torch.zeros(size, size, dtype=torch.float64)
    for n in range(size):
        for k in range(n + 1):
            A[n, k] = -(n + 1) if n == k else -(((2 * n + 1) * (2 * k + 1)) ** 0.5)
    return A


def normal(size: int) -> Tensor:
    """HiPPO-LegS but for a matrix of rank one: HiPPO-N."""
    root = (torch.arange(size, dtype=torch.float64) + 0.5).sqrt()
    return legs(size) + torch.outer(root, root)


@pytest.mark.parametrize("size", [2, 4, 8, 32])
def test_hippo_s_normal_part_by_its_eigenvectors(size: int) -> None:
    values, vectors = hippo_normal(size)
    assert values.shape == (size // 2,) and (values.imag > 0).all()
    whole = 2 * (vectors * values @ vectors.mH).real  # a pair's two parts are each other's conjugates
    torch.testing.assert_close(whole, normal(size), atol=1e-9, rtol=0)
    torch.testing.assert_close(vectors.mH @ vectors, torch.eye(size // 2, dtype=torch.complex128))


@torch.no_grad()
def test_it_starts_as_a_dense_real_system() -> None:
    """x' = A x + B u with HiPPO-N blocks, its input held for a step; by matrix exponentials."""
    module = layer(shaken=0.0)
    module.log_step.fill_(-0.7)
    _, vectors = hippo_normal(4)
    V = torch.block_diag(vectors, vectors)  # (8, 4)
    A = torch.block_diag(normal(4), normal(4))
    B = 2 * (V @ torch.view_as_complex(module.B)).real
    C = 2 * (torch.view_as_complex(module.C) @ V.mH).real
    step = torch.tensor(-0.7, dtype=torch.float64).exp()
    held = torch.cat([torch.cat([A, B], 1), torch.zeros(WIDTH, 8 + WIDTH, dtype=torch.float64)]) * step
    discrete = torch.matrix_exp(held)  # [[A', B'], [0, 1]]
    module.gate.weight.zero_()
    module.gate.bias.fill_(100.0)  # wide open
    x = noise(1, 9, TOKENS, WIDTH)
    y, _ = module(x, module.initial(1), torch.zeros(1, 9, dtype=torch.bool), 9)
    state = torch.zeros(TOKENS, 8, dtype=torch.float64)
    for t in range(9):
        state = state @ discrete[:8, :8].T + x[0, t] @ discrete[:8, 8:].T
        # weights are made in float32
        torch.testing.assert_close(y[0, t], state @ C.T + module.D * x[0, t], atol=1e-5, rtol=0)


def test_long_sequences_stay_finite() -> None:
    module = layer().float()
    x = noise(1, 600, TOKENS, WIDTH, dtype=torch.float32)
    y, memories = module(x, module.initial(1), torch.zeros(1, 600, dtype=torch.bool), 100)
    y.square().sum().backward()
    assert y.isfinite().all() and memories["ssm"].isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
