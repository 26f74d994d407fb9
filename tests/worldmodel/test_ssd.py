"""The chunked scan against the recurrence it stands for, written out position by position."""

import importlib.util
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldmodel import ssd
from worldmodel.ssd import kernel_chunk, longest_chunk, scan, scan_kernel, scan_torch


@dataclass
class Inputs:
    """Arguments of a scan, without the chunk length."""

    x: Tensor  # (b, L, H, P)
    dt: Tensor  # (b, L, H)
    A: Tensor  # (H,)
    B: Tensor  # (b, L, S)
    C: Tensor  # (b, L, S)
    state: Tensor  # (b, H, P, S)
    reset: Tensor  # (b, L)

    def scan(self, chunk: int) -> tuple[Tensor, Tensor]:
        """By the chunked scan."""
        return scan_torch(self.x, self.dt, self.A, self.B, self.C, self.state, self.reset, chunk)

    def part(self, start: int, stop: int | None, state: Tensor) -> "Inputs":
        """Positions start..stop, from another state."""
        at = slice(start, stop)
        return Inputs(self.x[:, at], self.dt[:, at], self.A, self.B[:, at], self.C[:, at], state, self.reset[:, at])


def recurrence(i: Inputs) -> tuple[Tensor, Tensor]:
    """y (b, L, H, P), and the state after every position (b, L, H, P, S)."""
    ys, states = [], []
    state = i.state
    for t in range(i.x.shape[1]):
        state = torch.where(i.reset[:, t, None, None, None], 0.0, state)
        fade = torch.exp(i.dt[:, t] * i.A)[:, :, None, None]
        state = fade * state + torch.einsum("bh,bhp,bs->bhps", i.dt[:, t], i.x[:, t], i.B[:, t])
        ys.append(torch.einsum("bhps,bs->bhp", state, i.C[:, t]))
        states.append(state)
    return torch.stack(ys, 1), torch.stack(states, 1)


def random_inputs(b: int, L: int, H: int, P: int, S: int, resets: set[int] | None = None, seed: int = 0) -> Inputs:
    """Noise in float64; `resets` are flat indices into (b, L)."""
    random = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    reset = torch.zeros(b * L, dtype=torch.bool)
    reset[list(resets or ())] = True
    return Inputs(
        x=noise(b, L, H, P),
        dt=noise(b, L, H).exp(),
        A=-noise(H).exp(),
        B=noise(b, L, S),
        C=noise(b, L, S),
        state=noise(b, H, P, S),
        reset=reset.reshape(b, L),
    )


@st.composite
def inputs(draw: st.DrawFn) -> Inputs:
    """Scans of any small shape, with resets anywhere."""
    b, L, H, P, S = (draw(st.integers(1, most)) for most in (3, 21, 3, 3, 4))
    resets = draw(st.sets(st.integers(0, b * L - 1), max_size=8))
    return random_inputs(b, L, H, P, S, resets, draw(st.integers(0, 1000)))


def ends(length: int, chunk: int) -> list[int]:
    """The last position of each chunk."""
    return [min(start + chunk, length) - 1 for start in range(0, length, chunk)]


@settings(max_examples=60)
@given(inputs(), st.integers(1, 24))
def test_the_scan_is_the_recurrence(i: Inputs, chunk: int) -> None:
    y, states = i.scan(chunk)
    want, every = recurrence(i)
    torch.testing.assert_close(y, want, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(states, every[:, ends(i.x.shape[1], chunk)], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("resets", [{0}, {3}, {4}, {7}, {9}, {0, 1, 2}, {3, 4}, {2, 3, 4, 5, 8}, set(range(10))])
def test_resets_at_the_edges_of_chunks_and_in_a_row(resets: set[int]) -> None:
    i = random_inputs(1, 10, 2, 3, 4, resets)
    y, states = i.scan(4)
    want, every = recurrence(i)
    torch.testing.assert_close(y, want, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(states, every[:, [3, 7, 9]], atol=1e-10, rtol=1e-10)


@settings(max_examples=40)
@given(inputs(), st.data())
def test_a_sequence_cut_anywhere_and_carried_is_the_whole(i: Inputs, data: st.DataObject) -> None:
    L = i.x.shape[1]
    cut, first, second, whole = (data.draw(st.integers(1, L)) for _ in range(4))
    y, states = i.scan(whole)
    before, carried = i.part(0, cut, i.state).scan(first)
    torch.testing.assert_close(before, y[:, :cut], atol=1e-10, rtol=1e-10)
    if cut < L:
        after, carried = i.part(cut, None, carried[:, -1]).scan(second)
        torch.testing.assert_close(after, y[:, cut:], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(carried[:, -1], states[:, -1], atol=1e-10, rtol=1e-10)


def test_nothing_passes_a_reset() -> None:
    i = random_inputs(1, 9, 2, 2, 3, {5})
    y, states = i.scan(4)
    i.x, i.B, i.state = i.x.clone(), i.B.clone(), i.state + 1
    i.x[:, :5] += 1
    i.B[:, :5] -= 1
    other, other_states = i.scan(4)
    assert (other[:, :5] - y[:, :5]).abs().min() > 0
    torch.testing.assert_close(other[:, 5:], y[:, 5:], atol=0, rtol=0)
    torch.testing.assert_close(other_states[:, 1:], states[:, 1:], atol=0, rtol=0)


@pytest.mark.parametrize("resets", [set(), {2, 3}, {0}])
def test_gradients(resets: set[int]) -> None:
    i = random_inputs(1, 5, 2, 2, 2, resets)
    arguments = [t.requires_grad_() for t in (i.x, i.dt, i.A, i.B, i.C, i.state)]

    def outputs(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return scan_torch(x, dt, A, B, C, state, i.reset, 2)

    assert torch.autograd.gradcheck(outputs, arguments)
    y, states = outputs(*arguments)
    gradient = torch.autograd.grad(y.sum() + states.sum(), i.state)[0]
    assert (gradient.abs().sum() == 0) == (0 in resets)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strong_decay_gives_numbers(dtype: torch.dtype) -> None:
    i = random_inputs(1, 130, 2, 2, 3, {70})
    i.A, i.dt = torch.full((2,), -50.0), torch.ones(1, 130, 2)
    i.x, i.B, i.C = i.x.to(dtype), i.B.to(dtype), i.C.to(dtype)
    i.state = i.state.float()
    arguments = [t.requires_grad_() for t in (i.x, i.dt, i.A, i.B, i.C, i.state)]
    y, states = i.scan(64)
    gradients = torch.autograd.grad(y.float().square().sum() + states.square().sum(), arguments)
    assert all(t.isfinite().all() for t in (y, states, *gradients))
    alone = torch.einsum("blhp,bls,bls->blhp", i.x.float(), i.B.float(), i.C.float())  # all else has faded
    torch.testing.assert_close(y.float(), alone, atol=1e-5, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5)


def test_bfloat16_is_near_float32_and_keeps_the_state_wide() -> None:
    i = random_inputs(2, 37, 2, 4, 8, {20})
    i.dt = i.dt * 0.1
    want, every = recurrence(i)
    y, states = scan_torch(
        i.x.bfloat16(), i.dt.float(), i.A.float(), i.B.bfloat16(), i.C.bfloat16(), i.state.float(), i.reset, 16
    )
    assert (y.dtype, states.dtype) == (torch.bfloat16, torch.float32)
    for got, exact in ((y, want), (states, every[:, [15, 31, 36]])):
        assert (got - exact).abs().max() < 0.03 * exact.abs().max()


def test_the_dispatcher_takes_pure_torch_on_the_cpu() -> None:
    i = random_inputs(1, 7, 2, 3, 4, {2})
    y, states = scan(i.x, i.dt, i.A, i.B, i.C, i.state, i.reset, 3)
    want, every = recurrence(i)
    torch.testing.assert_close(y, want, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(states, every[:, [2, 5, 6]], atol=1e-10, rtol=1e-10)


@given(st.integers(1, 1000))
def test_the_kernel_s_chunks_are_powers_of_two(positions: int) -> None:
    size = kernel_chunk(positions)
    assert size in (16, 32, 64, 128, 256)
    assert size >= min(positions, 256) and (size == 16 or size < 2 * positions)


@pytest.mark.parametrize("chunk, sizes", [(8, {16}), (32, {32}), (40, {64}), (160, {256}), (256, {256})])
def test_the_kernel_is_given_these_sizes(monkeypatch: pytest.MonkeyPatch, chunk: int, sizes: set[int]) -> None:
    i, seen = random_inputs(1, 300, 2, 3, 4), []

    def kernel(x: Tensor, *_: Tensor, chunk_size: int, initial_states: Tensor, **__: object) -> tuple[Tensor, Tensor]:
        assert x.shape[1] <= chunk
        seen.append(chunk_size)
        return x, initial_states

    monkeypatch.setattr(ssd, "_kernel", lambda: kernel)
    scan_kernel(i.x, i.dt, i.A, i.B, i.C, i.state, i.reset, chunk)
    assert set(seen) == sizes and len(seen) == -(-300 // chunk)


@pytest.mark.parametrize("kernel, cuda, most", [(None, True, 32), (print, True, 256), (print, False, 32)])
def test_chunks_are_long_for_the_kernel_alone(
    monkeypatch: pytest.MonkeyPatch, kernel: object, cuda: bool, most: int
) -> None:
    monkeypatch.setattr(ssd, "_kernel", lambda: kernel)
    assert longest_chunk(cuda) == most


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
@pytest.mark.skipif(importlib.util.find_spec("mamba_ssm") is None, reason="mamba-ssm is not installed")
@pytest.mark.parametrize("resets", [set(), {0}, {31, 32, 33}, {5, 69}])
@pytest.mark.parametrize("chunk", [32, 40])
def test_the_cuda_kernel_is_the_recurrence(resets: set[int], chunk: int) -> None:
    i = random_inputs(2, 70, 2, 32, 16, resets)
    i.dt = i.dt * 0.1
    want, every = recurrence(i)
    x, dt, A, B, C, state = (t.float().cuda() for t in (i.x, i.dt, i.A, i.B, i.C, i.state))
    y, states = scan_kernel(x, dt, A, B, C, state, i.reset.cuda(), chunk)
    for got, exact in ((y, want), (states, every[:, ends(70, chunk)])):
        assert (got.double().cpu() - exact).abs().max() < 1e-2 * exact.abs().max()  # the kernel multiplies in TF32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
def test_pure_torch_on_cuda_is_the_recurrence() -> None:
    i = random_inputs(2, 70, 2, 8, 4, {5, 64})
    want, every = recurrence(i)
    x, dt, A, B, C, state, reset = (t.cuda() for t in (i.x, i.dt, i.A, i.B, i.C, i.state, i.reset))
    y, states = scan_torch(x, dt, A, B, C, state, reset, 32)
    torch.testing.assert_close(y.cpu(), want, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(states.cpu(), every[:, ends(70, 32)], atol=1e-10, rtol=1e-10)
