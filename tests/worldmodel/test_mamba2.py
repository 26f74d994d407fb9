"""The Mamba-2 layer against transformers' own with the same weights; its memory; its resets."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torch import Tensor
from transformers import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from tests.worldmodel.small import assert_close, shake
from worldmodel.boundaries import boundaries, gather_boundaries
from worldmodel.mamba2 import D_CONV, Mamba2, chunk_length

WIDTH, EXPAND, HEAD_WIDTH, STATE = 16, 2, 8, 6


OPTIONS: list[dict[str, Any]] = [{}, {"normalised": True}, {"slow": 3}, {"normalised": True, "slow": 4}]


def layer(dtype: torch.dtype = torch.float64, **options: Any) -> Mamba2:
    """A small layer with no weight left at a round number."""
    torch.manual_seed(0)
    module = Mamba2(WIDTH, EXPAND, HEAD_WIDTH, STATE, **options)
    shake(module, 0.2)
    return module.to(dtype)


def reference(module: Mamba2, chunk: int) -> Mamba2Mixer:
    """transformers' layer with the same weights, by name."""
    config = Mamba2Config(
        num_heads=EXPAND * WIDTH // HEAD_WIDTH,
        head_dim=HEAD_WIDTH,
        hidden_size=WIDTH,
        state_size=STATE,
        expand=EXPAND,
        n_groups=1,
        conv_kernel=D_CONV,
        use_bias=False,
        use_conv_bias=True,
        chunk_size=chunk,
        num_hidden_layers=1,
    )
    mixer = Mamba2Mixer(config, layer_idx=0).to(module.D.dtype).eval()
    mixer.load_state_dict(module.state_dict(), strict=True)
    return mixer


def noise(b: int, L: int, seed: int = 0) -> Tensor:
    """(b, L, D) float64"""
    return torch.randn(b, L, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def never(b: int, L: int) -> Tensor:
    """(b, L): no reset."""
    return torch.zeros(b, L, dtype=torch.bool)


def lived(module: Mamba2, b: int) -> TensorDict:
    """A memory that has seen something."""
    return module(noise(b, 9, seed=5), module.initial(b), never(b, 9), 9)[1][:, -1]


@pytest.mark.parametrize("length, save_every", [(1, 1), (3, 4), (32, 8), (37, 8), (130, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_same_as_transformers(length: int, save_every: int, dtype: torch.dtype) -> None:
    module = layer(dtype)
    u = noise(2, length).to(dtype)
    y, _ = module(u, module.initial(2), never(2, length), save_every)
    want = reference(module, chunk=16)(u)
    assert y.dtype == dtype
    assert want.abs().max() > 0.1
    torch.testing.assert_close(y, want, atol=1e-5, rtol=1e-5)


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(1, 12), st.sampled_from(OPTIONS), st.data())
@torch.no_grad()
def test_memory_carried_in_pieces_is_the_whole(
    length: int, save_every: int, options: dict[str, Any], data: st.DataObject
) -> None:
    module = layer(**options)
    u, reset = noise(2, length), never(2, length)
    reset.view(-1)[list(data.draw(st.sets(st.integers(0, 2 * length - 1), max_size=4)))] = True
    cuts = sorted(data.draw(st.sets(st.integers(1, length), max_size=3)) | {0, length})
    start = lived(module, 2)
    whole, memories = module(u, start, reset, save_every)
    memory, pieces = start, []
    for a, b in zip(cuts, cuts[1:], strict=False):
        y, kept_memories = module(u[:, a:b], memory, reset[:, a:b], 5)
        memory = kept_memories[:, -1]
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-10, rtol=0)
    assert_close(memory, memories[:, -1], atol=1e-10)


@pytest.mark.parametrize("length, every", [(11, 4), (74, 37), (80, 37), (150, 67), (36, 37)])
@torch.no_grad()
def test_each_kept_memory_is_that_of_a_prefix(length: int, every: int) -> None:
    """Of blocks that chunks of one length fill, and of those that they do not."""
    module = layer()
    u, reset = noise(2, length), never(2, length)
    reset[0, 3] = reset[1, 5] = reset[1, 6] = reset[0, 2 * length // 3] = reset[1, every % length] = True
    y, memories = module(u, lived(module, 2), reset, every)
    assert memories.batch_size == (2, len(boundaries(length, every)))
    for k, end in enumerate(boundaries(length, every)):
        prefix, after = module(u[:, : end + 1], lived(module, 2), reset[:, : end + 1], 256)
        torch.testing.assert_close(y[:, : end + 1], prefix, atol=1e-10, rtol=0)
        assert_close(memories[:, k], after[:, -1], atol=1e-10)


@pytest.mark.parametrize("at", [0, 1, 2, 3, 6, 8])
@torch.no_grad()
def test_a_reset_is_a_fresh_start(at: int) -> None:
    module = layer()
    u, reset = noise(1, 9), never(1, 9)
    reset[:, at] = True
    y, memories = module(u, lived(module, 1), reset, 4)
    fresh, fresh_memories = module(u[:, at:], module.initial(1), never(1, 9 - at), 4)
    torch.testing.assert_close(y[:, at:], fresh, atol=1e-10, rtol=0)
    assert_close(memories[:, -1], fresh_memories[:, -1], atol=1e-10)


@torch.no_grad()
def test_the_taps_of_the_convolution_do_not_reach_over_a_reset() -> None:
    module = layer()
    module.A_log.add_(20)  # the scan forgets at once: what is left of the past is the convolution's
    u, reset = noise(1, 8), never(1, 8)
    other = u.clone()
    other[:, 3] += 1

    def changed(reset: Tensor) -> list[int]:
        a, b = (module(v, module.initial(1), reset, 8)[0] for v in (u, other))
        return [t for t in range(8) if (a - b)[:, t].abs().max() > 1e-6]

    assert changed(reset) == [3, 4, 5, 6]  # four taps
    reset[:, 5] = True
    assert changed(reset) == [3, 4]


@torch.no_grad()
def test_forward_changes_no_memory_in_place() -> None:
    module = layer()
    memory = lived(module, 1)
    before = memory.clone()
    module(noise(1, 5), memory, never(1, 5), 2)
    assert_close(memory, before, atol=0)


def test_boundaries() -> None:
    assert boundaries(8, 4) == [3, 7]
    assert boundaries(10, 4) == [3, 7, 9]
    assert boundaries(3, 4) == [2]
    assert boundaries(3, 1) == [0, 1, 2]
    assert boundaries(1, 1) == [0]


@given(st.integers(1, 200), st.integers(1, 64))
def test_chunks_are_as_few_as_can_be_and_alike(save_every: int, most: int) -> None:
    length, few = chunk_length(save_every, most), -(-save_every // most)
    assert length <= most and -(-save_every // length) == few
    assert save_every % few or length * few == save_every


def test_a_prime_block_is_not_cut_into_single_positions() -> None:
    assert (chunk_length(37, 32), chunk_length(31, 32), chunk_length(257, 256)) == (19, 31, 129)


@pytest.mark.parametrize("indices", [[0], [9], [3, 7], [3, 7, 9], [0, 1, 2], [2, 5, 8, 9], list(range(10))])
def test_gather_boundaries_is_indexing(indices: list[int]) -> None:
    x = torch.arange(20).reshape(2, 10)
    assert torch.equal(gather_boundaries(x, indices), x[:, indices])


@pytest.mark.parametrize("positions", [1, 4, 16])
def test_heads_start_out_to_forget_over_4_to_256_steps(positions: int) -> None:
    torch.manual_seed(0)
    module = Mamba2(WIDTH * 2, EXPAND, HEAD_WIDTH, STATE, positions)  # 8 heads
    for name in ("in_proj.weight", "conv1d.bias"):  # nothing is written, and dt is what it starts from
        torch.nn.init.zeros_(module.get_parameter(name))
    for steps in (4, 256):
        full = module.initial(1)
        full["ssm"] += 1
        u = torch.zeros(1, steps * positions, WIDTH * 2)
        left = module(u, full, never(1, steps * positions), steps * positions)[1]["ssm"][0, -1, :, 0, 0]
        want = torch.tensor([math.exp(-steps / 4 ** (1 + 3 * head / 7)) for head in range(8)])
        torch.testing.assert_close(left, want, rtol=1e-3, atol=1e-6)
    dt = torch.nn.functional.softplus(module.dt_bias) * positions
    assert (dt > 0.09).all() and (dt < 1.01).all()


@torch.no_grad()
def by_hand(module: Mamba2, u: Tensor) -> Tensor:
    """The layer of one sequence u (L, D) from an empty memory, position after position, in float64."""
    inner, S, H, positions = module.inner, module.state, module.heads, module.positions
    weight, bias = module.conv1d.weight[:, 0], module.conv1d.bias
    assert bias is not None
    inputs = torch.zeros(D_CONV, module.mixed, dtype=u.dtype)
    state = torch.zeros(H, module.headdim, S, dtype=u.dtype)
    ys = []
    for row in u @ module.in_proj.weight.T:
        z, mixed, raw = row.split([inner, module.mixed, H])
        inputs = torch.cat([inputs[1:], mixed[None]])
        x, B, C = ((inputs.T * weight).sum(1) + bias).split([inner, S, S])
        silu = torch.nn.functional.silu
        if module.B_norm is not None and module.C_norm is not None:
            B = B / (B.square().mean() + 1e-5).sqrt() * module.B_norm.weight
            C = C / (C.square().mean() + 1e-5).sqrt() * module.C_norm.weight
        else:
            B, C = silu(B), silu(C)
        heads = silu(x).view(H, -1)
        read = []
        for h in range(H):
            step = float(raw[h] + module.dt_bias[h])
            if h < H - module.slow:
                dt, A = math.log1p(math.exp(step)), -math.exp(module.A_log[h])
            else:
                share = 1 / (1 + math.exp(-step))
                dt, A = (1 / 8192) ** (1 - share) * 4**share / positions, -1.0
            state[h] = math.exp(dt * A * module.decay_scale) * state[h] + dt * torch.outer(heads[h], B)
            read.append(state[h] @ C + module.D[h] * heads[h])
        y = torch.cat(read) * silu(z)
        ys.append(y / (y.square().mean() + 1e-5).sqrt() * module.norm.weight)
    return torch.stack(ys) @ module.out_proj.weight.T


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("positions, scale", [(1, 1.0), (4, 0.25)])
@torch.no_grad()
def test_options_against_a_recurrence_by_hand(options: dict[str, Any], positions: int, scale: float) -> None:
    module = layer(**options, positions=positions)
    module.decay_scale = scale
    u = noise(2, 70)
    y, _ = module(u, module.initial(2), never(2, 70), 40)
    assert y.abs().max() > 0.1
    torch.testing.assert_close(y, torch.stack([by_hand(module, row) for row in u]), atol=1e-10, rtol=0)


def test_without_options_nothing_is_drawn_or_named_otherwise() -> None:
    torch.manual_seed(0)
    plain = Mamba2(WIDTH, EXPAND, HEAD_WIDTH, STATE)
    torch.manual_seed(0)
    both = Mamba2(WIDTH, EXPAND, HEAD_WIDTH, STATE, normalised=True, slow=2)
    assert set(both.state_dict()) - set(plain.state_dict()) == {"B_norm.weight", "C_norm.weight"}
    assert torch.equal(plain.in_proj.weight, both.in_proj.weight) and torch.equal(plain.A_log[:2], both.A_log)


@pytest.mark.parametrize("weights, frames", [(-30.0, 8192.0), (30.0, 0.25)])
@torch.no_grad()
def test_time_constants_of_slow_heads_have_bounds(weights: float, frames: float) -> None:
    module = layer(slow=2, positions=4)
    module.dt_bias.fill_(weights)
    u = noise(2, 8)
    full = lived(module, 2)
    full["ssm"] += 1
    empty = full.clone()
    empty["ssm"] = torch.zeros_like(full["ssm"])
    after = [module(u, memory, never(2, 8), 8)[1]["ssm"][:, -1, -2:] for memory in (full, empty)]
    left = (after[0] - after[1]) / full["ssm"][:, -2:]  # after two frames
    torch.testing.assert_close(left, torch.full_like(left, math.exp(-2 / frames)), rtol=1e-6, atol=1e-12)


def test_slow_heads_start_between_16_and_256_frames() -> None:
    module = Mamba2(WIDTH, EXPAND, HEAD_WIDTH, STATE, positions=4, slow=3)
    constants = 1 / (4 * module._steps(module.dt_bias)[-3:])
    torch.testing.assert_close(constants, torch.tensor([16.0, 64.0, 256.0]), rtol=1e-4, atol=0)
    assert module._decays()[-3:].tolist() == [-1, -1, -1]


@torch.no_grad()
def test_normalised_keys_of_opposite_inputs_are_opposite() -> None:
    """SiLU would leave both in the positive orthant."""
    module = layer(normalised=True)
    torch.nn.init.zeros_(module.get_parameter("conv1d.bias"))
    mixed = module._convolve(torch.randn(2, D_CONV, module.mixed, dtype=torch.float64), never(2, D_CONV).cumsum(1))
    _, B, C = module._activated(mixed)
    _, B_opposite, C_opposite = module._activated(-mixed)
    torch.testing.assert_close(B, -B_opposite)
    torch.testing.assert_close(C, -C_opposite)
