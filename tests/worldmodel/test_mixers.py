"""The contract of mixers, for all of them; then what is each one's own, against naive forms of it."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.worldmodel.small import assert_close, leaves, shake
from worldmodel.boundaries import boundaries
from worldmodel.mixers import GRU, S5, BlockSSM, CausalConv, DeltaMemory, GlobalAttention, LocalAttention, Mixer

WIDTH, GRID, TOKENS = 16, (2, 4), 8

MIXERS: dict[str, Callable[[], Mixer]] = {
    "ssm 1x1": lambda: BlockSSM(WIDTH, GRID, (1, 1), 2, 8, 4),
    "ssm 1x2": lambda: BlockSSM(WIDTH, GRID, (1, 2), 2, 8, 4),
    "ssm 2x2": lambda: BlockSSM(WIDTH, GRID, (2, 2), 2, 8, 4),
    "ssm 2x4": lambda: BlockSSM(WIDTH, GRID, (2, 4), 2, 8, 4),
    "delta 1x1": lambda: DeltaMemory(WIDTH, GRID, (1, 1), 2, 8, 4),
    "delta 2x2": lambda: DeltaMemory(WIDTH, GRID, (2, 2), 2, 8, 4),
    "delta, short chunks": lambda: DeltaMemory(WIDTH, GRID, (1, 2), 2, 8, 4, chunk=3),
    "delta, gated": lambda: DeltaMemory(WIDTH, GRID, (1, 2), 4, 8, 4, normalised=True, slow_heads=0.5),
    "attention 1": lambda: LocalAttention(WIDTH, TOKENS, 1, 2),
    "attention 3": lambda: LocalAttention(WIDTH, TOKENS, 3, 2),
    "attention 5": lambda: LocalAttention(WIDTH, TOKENS, 5, 4),
    "full 1": lambda: GlobalAttention(WIDTH, TOKENS, 1, 2),
    "full 5": lambda: GlobalAttention(WIDTH, TOKENS, 5, 4),
    "full 40": lambda: GlobalAttention(WIDTH, TOKENS, 40, 2),
    "conv 1": lambda: CausalConv(WIDTH, GRID, 1),
    "conv 3": lambda: CausalConv(WIDTH, GRID, 3),
    "conv 9": lambda: CausalConv(WIDTH, GRID, 9),
    "gru": lambda: GRU(WIDTH, TOKENS),
    "s5": lambda: S5(WIDTH, TOKENS, 2, 8, 4),
    "s5 one block": lambda: S5(WIDTH, TOKENS, 1, 16, 6),
}


def exact(mixer: Mixer) -> Mixer:
    """In float64, with weights large enough that what should matter does."""
    shake(mixer, 0.2)
    return mixer.double().requires_grad_(False)


@pytest.fixture(params=list(MIXERS))
def mixer(request: pytest.FixtureRequest) -> Mixer:
    """Each mixer."""
    torch.manual_seed(0)
    return exact(MIXERS[request.param]())


def attention(frames: int, heads: int = 2) -> LocalAttention:
    """Local attention in float64."""
    torch.manual_seed(0)
    module = LocalAttention(WIDTH, TOKENS, frames, heads)
    exact(module)
    return module


def noise(frames: int, seed: int = 0) -> Tensor:
    """(2, T, N, D) float64"""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(2, frames, TOKENS, WIDTH, generator=random, dtype=torch.float64)


def resets(frames: int, *at: tuple[int, int]) -> Tensor:
    """(2, T), true at these (sequence, frame) places."""
    reset = torch.zeros(2, frames, dtype=torch.bool)
    for b, t in at:
        reset[b, t] = True
    return reset


def frames_changed(mixer: Mixer, at: int, frames: int = 10) -> list[int]:
    """Which frames of the output change when frame `at` of the input does."""
    x, reset = noise(frames), resets(frames)
    other = x.clone()
    other[:, at] += 1
    a, b = (mixer(v, mixer.initial(2), reset, 4)[0] for v in (x, other))
    return [t for t in range(frames) if (a - b)[:, t].abs().max() > 1e-12]


def test_rotary_attention_has_no_slopes() -> None:
    assert not list(GlobalAttention(WIDTH, TOKENS, 5, 4).buffers())
    assert [name for name, _ in LocalAttention(WIDTH, TOKENS, 5, 4).named_buffers()] == ["slopes"]


SOME = ((0, 3), (0, 4), (1, 7), (1, 0))


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 11])
def test_step_by_step_is_in_parallel(mixer: Mixer, frames: int) -> None:
    x, reset = noise(frames), resets(frames, *[at for at in SOME if at[1] < frames])
    memory = mixer(noise(6, seed=1), mixer.initial(2), resets(6), 4)[1][:, -1]
    y, memories = mixer(x, memory, reset, 4)
    assert y.shape == x.shape and memories.batch_size == (2, len(boundaries(frames, 4)))
    for t in range(frames):
        step, after = mixer(x[:, t : t + 1], memory, reset[:, t : t + 1], 1)
        memory = after[:, -1]
        torch.testing.assert_close(step, y[:, t : t + 1], atol=1e-10, rtol=0)
        if t in boundaries(frames, 4):
            assert_close(memories[:, boundaries(frames, 4).index(t)], memory, atol=1e-10)
    assert_close(memories[:, -1], memory, atol=1e-10)


@pytest.mark.parametrize("state_interval", [1, 3, 4, 50])
def test_memories_at_boundaries_are_those_of_prefixes(mixer: Mixer, state_interval: int) -> None:
    x, reset = noise(10), resets(10, *SOME)
    y, memories = mixer(x, mixer.initial(2), reset, state_interval)
    for k, end in enumerate(boundaries(10, state_interval)):
        prefix, after = mixer(x[:, : end + 1], mixer.initial(2), reset[:, : end + 1], 100)
        torch.testing.assert_close(prefix, y[:, : end + 1], atol=1e-10, rtol=0)
        assert_close(memories[:, k], after[:, -1], atol=1e-10)


@settings(max_examples=150)
@given(st.sampled_from(list(MIXERS)), st.integers(1, 14), st.integers(1, 6), st.data())
def test_a_window_cut_anywhere_and_carried_is_the_whole(
    name: str, frames: int, state_interval: int, data: st.DataObject
) -> None:
    torch.manual_seed(0)
    mixer = exact(MIXERS[name]())
    x, reset = noise(frames), resets(frames)
    reset.view(-1)[list(data.draw(st.sets(st.integers(0, 2 * frames - 1), max_size=5)))] = True
    cuts = sorted(data.draw(st.sets(st.integers(1, frames), max_size=3)) | {0, frames})
    memory = mixer(noise(6, seed=1), mixer.initial(2), resets(6), 4)[1][:, -1]
    whole, memories = mixer(x, memory, reset, state_interval)
    pieces = []
    for begin, end in zip(cuts, cuts[1:], strict=False):
        y, after = mixer(x[:, begin:end], memory, reset[:, begin:end], 3)
        memory = after[:, -1]
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-10, rtol=0)
    assert_close(memory, memories[:, -1], atol=1e-10)


@pytest.mark.parametrize("name", list(MIXERS))
def test_bfloat16_is_near_float32_and_keeps_memory_wide(name: str) -> None:
    torch.manual_seed(0)
    mixer = MIXERS[name]()
    x, reset = noise(9).float(), resets(9, *SOME)
    want, memories = mixer(x, mixer.initial(2), reset, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, narrow = mixer(x, mixer.initial(2), reset, 4)
    assert 0 < (y - want).abs().max() < 0.05 * want.abs().max()
    assert {n: leaf.dtype for n, leaf in leaves(narrow).items()} == {n: m.dtype for n, m in leaves(memories).items()}
    (y.float().square().sum() + sum(leaf.sum() for leaf in leaves(narrow).values())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in mixer.parameters())


@pytest.mark.parametrize("at", [0, 1, 4, 7])
def test_nothing_passes_a_reset(mixer: Mixer, at: int) -> None:
    x, reset = noise(9), resets(9, (0, at), (1, at))
    lived = mixer(noise(6, seed=1), mixer.initial(2), resets(6), 4)[1][:, -1]
    y, memories = mixer(x, lived, reset, 4)
    fresh, fresh_memories = mixer(x[:, at:], mixer.initial(2), resets(9 - at), 4)
    torch.testing.assert_close(y[:, at:], fresh, atol=1e-10, rtol=0)
    # nor later, out of the memory
    ahead = noise(5, seed=2)
    later = mixer(ahead, memories[:, -1], resets(5), 4)[0]
    torch.testing.assert_close(later, mixer(ahead, fresh_memories[:, -1], resets(5), 4)[0], atol=1e-10, rtol=0)


def test_no_frame_sees_a_later_one(mixer: Mixer) -> None:
    for at in (0, 4, 9):
        assert min(frames_changed(mixer, at)) == at


def test_a_memory_is_not_changed_in_place(mixer: Mixer) -> None:
    memory = mixer(noise(6), mixer.initial(2), resets(6), 4)[1][:, -1]
    before = memory.clone()
    mixer(noise(5), memory, resets(5, (0, 2)), 2)
    assert_close(memory, before, atol=0)


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_attention_sees_exactly_its_frames(frames: int) -> None:
    assert frames_changed(attention(frames), 2) == list(range(2, 2 + frames))


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_convolution_sees_exactly_its_frames(frames: int) -> None:
    assert frames_changed(exact(CausalConv(WIDTH, GRID, frames)), 2) == list(range(2, 2 + frames))


@pytest.mark.parametrize("name", ["ssm 1x1", "ssm 2x2", "gru", "s5"])
def test_a_recurrence_never_forgets_by_itself(name: str) -> None:
    torch.manual_seed(0)
    assert frames_changed(exact(MIXERS[name]()), 2) == list(range(2, 10))


def reached(mixer: Mixer, token: int) -> list[int]:
    """Which tokens of the frame after change when this token of a frame does."""
    x, reset = noise(2), resets(2)
    other = x.clone()
    other[:, 0, token] += 1
    a, b = (mixer(v, mixer.initial(2), reset, 4)[0][:, 1] for v in (x, other))
    return [n for n in range(TOKENS) if (a - b)[:, n].abs().max() > 1e-12]


@pytest.mark.parametrize("name", ["gru", "s5"])
def test_each_token_has_a_state_of_its_own(name: str) -> None:
    torch.manual_seed(0)
    mixer = exact(MIXERS[name]())
    assert [reached(mixer, token) for token in range(TOKENS)] == [[token] for token in range(TOKENS)]


def test_convolution_reaches_the_neighbours_on_the_grid() -> None:
    torch.manual_seed(0)
    mixer = exact(CausalConv(WIDTH, GRID, 2))
    for token in range(TOKENS):
        row, column = divmod(token, GRID[1])
        near = [n for n in range(TOKENS) if abs(n // GRID[1] - row) <= 1 and abs(n % GRID[1] - column) <= 1]
        assert reached(mixer, token) == near


@pytest.mark.parametrize("block", [(1, 1), (1, 2), (2, 1), (2, 2), (2, 4)])
def test_tokens_mix_inside_their_block_alone(block: tuple[int, int]) -> None:
    torch.manual_seed(0)
    mixer = exact(BlockSSM(WIDTH, GRID, block, 2, 8, 4))
    x, reset = noise(3), resets(3)
    y = mixer(x, mixer.initial(2), reset, 4)[0]
    for token in range(TOKENS):
        other = x.clone()
        other[:, 0, token] += 1
        gap = (mixer(other, mixer.initial(2), reset, 4)[0] - y)[:, -1].abs().amax((0, -1))  # (N,), a frame later
        row, column = divmod(token, GRID[1])
        mates = [
            r * GRID[1] + c
            for r in range(GRID[0])
            for c in range(GRID[1])
            if (r // block[0], c // block[1]) == (row // block[0], column // block[1])
        ]
        assert [n for n in range(TOKENS) if gap[n] > 1e-12] == mates


@pytest.mark.parametrize("block", [(1, 1), (1, 2), (2, 2)])
def test_each_block_is_one_scan_in_order_of_time(block: tuple[int, int]) -> None:
    torch.manual_seed(0)
    mixer = BlockSSM(WIDTH, GRID, block, 2, 8, 4)
    exact(mixer)
    x, reset = noise(5), resets(5, (0, 2))
    y = mixer(x, mixer.initial(2), reset, 4)[0]
    height, width = block
    for r in range(0, GRID[0], height):
        for c in range(0, GRID[1], width):
            tokens = [i * GRID[1] + j for i in range(r, r + height) for j in range(c, c + width)]
            flat = x[:, :, tokens].reshape(2, -1, WIDTH)  # frame by frame
            first = torch.zeros(2, 5, len(tokens), dtype=torch.bool)
            first[..., 0] = reset
            want, _ = mixer.layer(flat, mixer.layer.initial(2), first.reshape(2, -1), 1000)
            torch.testing.assert_close(y[:, :, tokens].reshape(2, -1, WIDTH), want, atol=1e-10, rtol=0)


def alibi(q: Tensor, k: Tensor, distance: int, slope: float) -> Tensor:
    """Scores (queries, keys) of one head and two frames; the farther, the lower."""
    return q @ k.T / math.sqrt(q.shape[-1]) - slope * distance


def rotary(q: Tensor, k: Tensor, distance: int, slope: float) -> Tensor:
    """Scores of pairs of values as complex numbers, turned by the distance at once."""
    half = q.shape[-1] // 2
    turn = torch.polar(torch.ones(half).double(), distance * 10_000.0 ** (-torch.arange(half).double() / half))
    queries, keys = (torch.complex(x[:, :half], x[:, half:]) for x in (q, k))
    return ((queries * turn) @ keys.conj().T).real / math.sqrt(q.shape[-1])


def naive_attention(module: LocalAttention, x: Tensor, reset: Tensor) -> Tensor:
    """Softmax over all keys of the window's frames, one query frame and one head at a time."""
    B, T, N, D = x.shape
    P = D // module.heads
    score = rotary if isinstance(module, GlobalAttention) else alibi
    q, k, v = (x @ module.qkv.weight.T).split(D, -1)
    y = torch.zeros_like(x)
    for b in range(B):
        for t in range(T):
            begins = max([0, *[s for s in range(t + 1) if reset[b, s]]])
            window = range(max(begins, t - module.frames + 1), t + 1)
            for head in range(module.heads):
                part = slice(head * P, (head + 1) * P)
                slope = 2 ** (-4 * (head + 1) / module.heads)
                scores = torch.cat([score(q[b, t, :, part], k[b, s, :, part], t - s, slope) for s in window], -1)
                y[b, t, :, part] = scores.softmax(-1) @ torch.cat([v[b, s, :, part] for s in window])
    return y @ module.out.weight.T


@pytest.mark.parametrize("frames, heads, length", [(1, 2, 4), (2, 1, 5), (3, 2, 9), (3, 4, 11), (6, 2, 4), (30, 2, 35)])
@pytest.mark.parametrize("kind", [LocalAttention, GlobalAttention])
def test_attention_is_a_masked_softmax(kind: type[LocalAttention], frames: int, heads: int, length: int) -> None:
    module = kind(WIDTH, TOKENS, frames, heads)
    exact(module)
    x, reset = noise(length) * 2, resets(length, (0, 2), (1, 0), (1, 3))
    y = module(x, module.initial(2), reset, 4)[0]
    torch.testing.assert_close(y, naive_attention(module, x, reset), atol=1e-10, rtol=0)


def test_attention_has_numbers_for_gradients_where_nothing_is_seen() -> None:
    module = attention(3).requires_grad_(True)
    y, memories = module(noise(4), module.initial(2), resets(4, (0, 1), (1, 3)), 2)
    (y.square().sum() + memories["kv"].sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def begun(reset: Tensor, b: int, t: int) -> int:
    """The frame that the episode of frame t began at; what is before the window is none of it here."""
    return max([0, *[s for s in range(t + 1) if reset[b, s]]])


@pytest.mark.parametrize("frames, length", [(1, 4), (2, 5), (3, 9), (6, 4)])
def test_convolution_is_a_sum_over_frames_and_neighbours(frames: int, length: int) -> None:
    module = CausalConv(WIDTH, GRID, frames)
    exact(module)
    x, reset = noise(length), resets(length, (0, 2), (1, 0), (1, 3))
    value, gate = x @ module.in_proj.weight[:WIDTH].T, x @ module.in_proj.weight[WIDTH:].T
    (rows, columns), kernel = GRID, module.space.weight[:, 0]  # (D, 3, 3)
    mixed = torch.zeros_like(x)
    for b in range(2):
        for t in range(length):
            for r in range(rows):
                for c in range(columns):
                    total = module.bias.clone()
                    for s in range(max(begun(reset, b, t), t - frames + 1), t + 1):
                        for i in range(max(0, r - 1), min(rows, r + 2)):
                            for j in range(max(0, c - 1), min(columns, c + 2)):
                                weight = module.time[frames - 1 - (t - s)] * kernel[:, 1 + i - r, 1 + j - c]
                                total += weight * value[b, s, i * columns + j]
                    mixed[b, t, r * columns + c] = total
    want = (mixed * gate / (1 + (-gate).exp())) @ module.out.weight.T
    y = module(x, module.initial(2), reset, 4)[0]
    torch.testing.assert_close(y, want, atol=1e-10, rtol=0)


def lived_gru() -> tuple[GRU, Tensor]:
    """A GRU in float64, and hidden states (2, N, D) to start from."""
    torch.manual_seed(0)
    module = GRU(WIDTH, TOKENS)
    exact(module)
    return module, noise(1, seed=3)[:, 0]


@settings(max_examples=25)
@given(st.integers(1, 9), st.sets(st.tuples(st.integers(0, 1), st.integers(0, 8)), max_size=5))
def test_the_gru_is_its_equations(frames: int, firsts: set[tuple[int, int]]) -> None:
    module, h = lived_gru()
    x, reset = noise(frames), resets(frames, *[first for first in firsts if first[1] < frames])
    y, memories = module(x, module.initial(2).set("hidden", h), reset, 4)
    gru = module.gru
    W_r, W_u, W_n = gru.weight_ih_l0.chunk(3)
    U_r, U_u, U_n = gru.weight_hh_l0.chunk(3)
    b_r, b_u, b_n = gru.bias_ih_l0.chunk(3)
    c_r, c_u, c_n = gru.bias_hh_l0.chunk(3)
    for t in range(frames):
        h, now = h.clone(), x[:, t]
        h[reset[:, t]] = 0
        r = torch.sigmoid(now @ W_r.T + b_r + h @ U_r.T + c_r)
        u = torch.sigmoid(now @ W_u.T + b_u + h @ U_u.T + c_u)
        n = torch.tanh(now @ W_n.T + b_n + r * (h @ U_n.T + c_n))
        h = (1 - u) * n + u * h
        torch.testing.assert_close(y[:, t], h, atol=1e-10, rtol=0)
    torch.testing.assert_close(memories[:, -1]["hidden"], h, atol=1e-10, rtol=0)


def test_the_gru_is_torch_s_and_so_are_its_gradients() -> None:
    module, h = lived_gru()
    module.requires_grad_(True)
    torchs = nn.GRU(WIDTH, WIDTH, batch_first=True).double()
    torchs.load_state_dict(module.gru.state_dict())
    x = noise(7)
    y = module(x, module.initial(2).set("hidden", h), resets(7), 4)[0]
    want = torchs(x.transpose(1, 2).flatten(0, 1), h.flatten(0, 1).unsqueeze(0))[0]
    want = want.unflatten(0, (2, TOKENS)).transpose(1, 2)
    torch.testing.assert_close(y, want, atol=1e-10, rtol=0)
    gradient = noise(7, seed=4)
    got = torch.autograd.grad(y, list(module.parameters()), gradient)
    torch.testing.assert_close(got, torch.autograd.grad(want, list(torchs.parameters()), gradient))
