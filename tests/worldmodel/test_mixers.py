"""The contract of mixers, for all of them; then what is each one's own, against naive forms of it."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.worldmodel.small import assert_close, shake
from worldmodel.mamba2 import kept
from worldmodel.mixers import BlockSSM, FullAttention, LocalAttention, Mixer
from worldmodel.mixers.local_attention import attend

WIDTH, GRID, TOKENS = 16, (2, 4), 8

MIXERS: dict[str, Callable[[], Mixer]] = {
    "ssm 1x1": lambda: BlockSSM(WIDTH, GRID, (1, 1), 2, 8, 4),
    "ssm 1x2": lambda: BlockSSM(WIDTH, GRID, (1, 2), 2, 8, 4),
    "ssm 2x2": lambda: BlockSSM(WIDTH, GRID, (2, 2), 2, 8, 4),
    "ssm 2x4": lambda: BlockSSM(WIDTH, GRID, (2, 4), 2, 8, 4),
    "attention 1": lambda: LocalAttention(WIDTH, TOKENS, 1, 2),
    "attention 3": lambda: LocalAttention(WIDTH, TOKENS, 3, 2),
    "attention 5": lambda: LocalAttention(WIDTH, TOKENS, 5, 4),
    "full 1": lambda: FullAttention(WIDTH, TOKENS, 1, 2),
    "full 5": lambda: FullAttention(WIDTH, TOKENS, 5, 4),
    "full 40": lambda: FullAttention(WIDTH, TOKENS, 40, 2),
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


SOME = ((0, 3), (0, 4), (1, 7), (1, 0))


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 11])
def test_step_by_step_is_in_parallel(mixer: Mixer, frames: int) -> None:
    x, reset = noise(frames), resets(frames, *[at for at in SOME if at[1] < frames])
    memory = mixer(noise(6, seed=1), mixer.initial(2), resets(6), 4)[1][:, -1]
    y, memories = mixer(x, memory, reset, 4)
    assert y.shape == x.shape and memories.batch_size == (2, len(kept(frames, 4)))
    for t in range(frames):
        step, after = mixer(x[:, t : t + 1], memory, reset[:, t : t + 1], 1)
        memory = after[:, -1]
        torch.testing.assert_close(step, y[:, t : t + 1], atol=1e-10, rtol=0)
        if t in kept(frames, 4):
            assert_close(memories[:, kept(frames, 4).index(t)], memory, atol=1e-10)
    assert_close(memories[:, -1], memory, atol=1e-10)


@pytest.mark.parametrize("block_frames", [1, 3, 4, 50])
def test_memories_at_boundaries_are_those_of_prefixes(mixer: Mixer, block_frames: int) -> None:
    x, reset = noise(10), resets(10, *SOME)
    y, memories = mixer(x, mixer.initial(2), reset, block_frames)
    for k, end in enumerate(kept(10, block_frames)):
        prefix, after = mixer(x[:, : end + 1], mixer.initial(2), reset[:, : end + 1], 100)
        torch.testing.assert_close(prefix, y[:, : end + 1], atol=1e-10, rtol=0)
        assert_close(memories[:, k], after[:, -1], atol=1e-10)


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


def test_an_odd_head_cannot_be_turned() -> None:
    with pytest.raises(ValueError, match="15 / 5"):
        FullAttention(15, TOKENS, 4, 5)


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


@pytest.mark.parametrize("block", ["ssm 1x1", "ssm 2x2"])
def test_the_scan_never_forgets_by_itself(block: str) -> None:
    torch.manual_seed(0)
    assert frames_changed(exact(MIXERS[block]()), 2) == list(range(2, 10))


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
            want, _ = mixer.mamba(flat, mixer.mamba.initial(2), first.reshape(2, -1), 1000)
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
    score = rotary if isinstance(module, FullAttention) else alibi
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
@pytest.mark.parametrize("kind", [LocalAttention, FullAttention])
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


def test_plain_products_are_torch_s_attention() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, n, 8, dtype=torch.float64, requires_grad=True) for n in (4, 6, 6))
    bias = torch.randn(3, 2, 4, 6, dtype=torch.float64).masked_fill(torch.rand(3, 2, 4, 6) < 0.4, -torch.inf)
    bias[..., 0] = 0.0
    ours = attend(query, key, value, bias)
    torchs = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    torch.testing.assert_close(ours, torchs)
    gradient = torch.randn_like(ours)
    parts = (query, key, value)
    torch.testing.assert_close(torch.autograd.grad(ours, parts, gradient), torch.autograd.grad(torchs, parts, gradient))
