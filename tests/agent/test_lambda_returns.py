"""Returns against their definition as mixtures of n-step returns, and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agent.lambda_returns import ReturnNormalizer, lambda_returns, replay_returns


def n_step(reward: list[float], carry: list[float], value: list[float], t: int, n: int) -> float:
    """n rewards from step t on, then the value."""
    total, reach = 0.0, 1.0
    for k in range(t, t + n):
        total += reach * reward[k]
        reach *= carry[k]
    return total + reach * value[t + n]


def mixture(reward: list[float], carry: list[float], value: list[float], lam: float) -> list[float]:
    """R_t = (1 - lam) sum over n of lam^(n - 1) G_n, with all that is left on the longest (Sutton & Barto 12.3)."""
    out = []
    for t in range(len(reward)):
        left = len(reward) - t
        steps = [n_step(reward, carry, value, t, n) for n in range(1, left + 1)]
        short = sum((1 - lam) * lam ** (n - 1) * steps[n - 1] for n in range(1, left))
        out.append(short + lam ** (left - 1) * steps[-1])
    return out


def noise(*shape: int, seed: int = 0) -> Tensor:
    """float64"""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40)
@given(st.integers(1, 8), st.floats(0, 1), st.integers(0, 1000))
def test_lambda_returns_are_mixtures_of_n_step_returns(length: int, lam: float, seed: int) -> None:
    reward, value = noise(length, 2, seed=seed), noise(length + 1, 2, seed=seed + 1)
    carry = 0.9 * (noise(length, 2, seed=seed + 2) > -1).double()  # now and then an end
    got = lambda_returns(reward, carry, value, lam)
    for b in range(2):
        want = mixture(reward[:, b].tolist(), carry[:, b].tolist(), value[:, b].tolist(), lam)
        np.testing.assert_allclose(got[:, b].numpy(), want, rtol=1e-9, atol=1e-9)


def test_lambda_returns_by_hand() -> None:
    reward, carry, value = (torch.tensor(x) for x in ([1.0, 2.0, 4.0], [0.5, 0.0, 0.5], [9.0, 10.0, 20.0, 40.0]))
    # the end after the second reward: nothing from beyond it
    torch.testing.assert_close(lambda_returns(reward, carry, value, 0.0), torch.tensor([6.0, 2.0, 24.0]))
    torch.testing.assert_close(lambda_returns(reward, carry, value, 1.0), torch.tensor([2.0, 2.0, 24.0]))
    torch.testing.assert_close(lambda_returns(reward, carry, value, 0.5), torch.tensor([4.0, 2.0, 24.0]))


def test_the_limits_of_lambda() -> None:
    reward, carry, value = noise(5, 3), torch.full((5, 3), 0.9, dtype=torch.float64), noise(6, 3, seed=1)
    torch.testing.assert_close(lambda_returns(reward, carry, value, 0.0), reward + carry * value[1:])
    whole = sum(0.9**k * reward[k] for k in range(5)) + 0.9**5 * value[5]
    torch.testing.assert_close(lambda_returns(reward, carry, value, 1.0)[0], whole)


@settings(max_examples=60)
@given(st.integers(1, 10), st.floats(0, 1), st.sampled_from([0.0, 0.5, 0.99]), st.integers(0, 1000), st.data())
def test_replayed_returns_are_those_of_each_episode_alone(
    length: int, lam: float, discount: float, seed: int, data: st.DataObject
) -> None:
    reward, value = noise(length, 1, seed=seed), noise(length, 1, seed=seed + 1)
    firsts = data.draw(st.sets(st.integers(0, length - 1)))
    ends = data.draw(st.sets(st.sampled_from([t for t in range(length) if t + 1 in firsts | {length}])))
    is_first, terminated = (torch.tensor([[t in s] for t in range(length)]) for s in (firsts, ends))
    got, counts = replay_returns(reward, terminated, is_first, value, discount, lam)
    want, has_next = [], []
    bounds = sorted(firsts | {0, length})
    for a, b in zip(bounds, bounds[1:], strict=False):
        r, v = reward[a:b, 0].tolist(), value[a:b, 0].tolist()
        carry = [0.0 if t in ends else discount for t in range(a + 1, b)]
        want += [*mixture(r[1:], carry, v, lam), v[-1]]
        has_next += [1.0] * (b - a - 1) + [0.0]
    np.testing.assert_allclose(got[:, 0].numpy(), want, rtol=1e-9, atol=1e-9)
    assert counts[:, 0].tolist() == has_next


def test_replayed_returns_by_hand() -> None:
    # two rows of an episode that terminates, then two of one that goes on after the window
    reward, value = torch.tensor([[7.0], [1.0], [7.0], [2.0]]), torch.tensor([[10.0], [20.0], [30.0], [40.0]])
    terminated = torch.tensor([[False], [True], [False], [False]])
    is_first = torch.tensor([[True], [False], [True], [False]])
    returns, has_next = replay_returns(reward, terminated, is_first, value, 0.5, 0.9)
    torch.testing.assert_close(returns, torch.tensor([[1.0], [20.0], [22.0], [40.0]]))
    assert has_next.flatten().tolist() == [1, 0, 1, 0]


def test_a_time_limit_is_no_end_of_reward() -> None:
    """Cut off, not terminated: the last row's value still counts."""
    reward, value = torch.zeros(3, 1), torch.tensor([[0.0], [8.0], [0.0]])
    is_first = torch.tensor([[True], [False], [True]])
    for terminated, want in ((False, 4.0), (True, 0.0)):
        end = torch.tensor([[False], [terminated], [False]])
        assert replay_returns(reward, end, is_first, value, 0.5, 0.9)[0][0].item() == want


def test_the_range_is_never_below_one() -> None:
    scale = ReturnNormalizer(1.0)
    assert scale.update(torch.full((4, 4), 3.0)) == 1.0
    assert scale.update(torch.linspace(0, 0.5, 100)) == 1.0
    torch.testing.assert_close(scale.update(torch.linspace(0, 100, 101)), torch.tensor(90.0))


def test_the_range_follows_percentiles_at_its_rate() -> None:
    scale = ReturnNormalizer(0.25)
    low = high = 0.0
    for seed in range(5):
        returns = noise(6, 7, seed=seed) * 10 + 5
        got = scale.update(returns)
        percentiles = np.percentile(returns.numpy(), [5, 95])
        low, high = low + 0.25 * (percentiles[0] - low), high + 0.25 * (percentiles[1] - high)
        assert got.item() == pytest.approx(max(high - low, 1.0), rel=1e-5)
    assert high - low > 1
    assert set(scale.state_dict()) == {"low", "high"}  # a checkpoint keeps it


def test_the_range_takes_narrow_returns_and_no_gradient() -> None:
    scale = ReturnNormalizer(0.5)
    returns = torch.randn(50).bfloat16().requires_grad_()
    assert not scale.update(returns * 3).requires_grad and scale.low.dtype == torch.float32


def test_returns_that_are_not_finite_leave_the_range_as_it_was() -> None:
    scale = ReturnNormalizer(rate=0.5)
    scale.update(torch.linspace(0.0, 40.0, 101))
    before = (scale.low.clone(), scale.high.clone())
    for bad in (torch.nan, torch.inf):
        assert torch.isfinite(scale.update(torch.full((5,), bad)))
    assert (scale.low, scale.high) == before
