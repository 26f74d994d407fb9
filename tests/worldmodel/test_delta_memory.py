"""The chunked gated delta rule against its recurrence, and the mixer against its equations and its contract."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.worldmodel.small import leaves, shake
from worldmodel.boundaries import boundaries
from worldmodel.mixers.delta_memory import DECAY_FRAMES, DeltaMemory, gated_delta_rule

WIDTH, GRID, TOKENS = 6, (2, 4), 8


@dataclass
class Inputs:
    """Arguments of the rule, without lengths of chunks."""

    q: Tensor  # (b, L, H, d_k)
    k: Tensor  # (b, L, H, d_k)
    v: Tensor  # (b, L, H, d_v)
    beta: Tensor  # (b, L, H)
    decay: Tensor  # (b, L, H)
    state: Tensor  # (b, H, d_k, d_v)
    reset: Tensor  # (b, L)

    def run(self, save_every: int = 1000, chunk: int = 4) -> tuple[Tensor, Tensor]:
        """By the rule under test."""
        return gated_delta_rule(*self.floats(), self.reset, save_every, chunk)

    def floats(self) -> tuple[Tensor, ...]:
        """All that gradients flow to."""
        return self.q, self.k, self.v, self.beta, self.decay, self.state

    def part(self, start: int, stop: int | None, state: Tensor) -> "Inputs":
        """Positions start..stop, from another state."""
        parts = (x[:, start:stop] for x in (self.q, self.k, self.v, self.beta, self.decay))
        return Inputs(*parts, state, self.reset[:, start:stop])


def recurrence(i: Inputs) -> tuple[Tensor, Tensor]:
    """Equation 10 of the paper, whose state is (d_v, d_k): y (b, L, H, d_v), and the state after every position."""
    sequences = []
    for n in range(len(i.q)):
        heads = []
        for h in range(i.q.shape[2]):
            S = i.state[n, h].T
            ys, states = [], []
            for t in range(i.q.shape[1]):
                q, k = (x[n, t, h] / x[n, t, h].square().sum().sqrt() for x in (i.q, i.k))
                beta, alpha = i.beta[n, t, h], i.decay[n, t, h].exp()
                S = torch.zeros_like(S) if i.reset[n, t] else S
                eye = torch.eye(len(k), dtype=k.dtype)
                S = alpha * S @ (eye - beta * torch.outer(k, k)) + beta * torch.outer(i.v[n, t, h], k)
                ys.append(S @ q)
                states.append(S.T)
            heads.append((torch.stack(ys), torch.stack(states)))
        sequences.append([torch.stack(parts, 1) for parts in zip(*heads, strict=True)])
    y, states = (torch.stack(parts) for parts in zip(*sequences, strict=True))
    return y, states


def random_inputs(
    b: int, L: int, H: int, d_k: int, d_v: int, resets: set[int] | None = None, seed: int = 0, slow: bool = False
) -> Inputs:
    """Noise in float64; `resets` are flat indices into (b, L); `slow`: half of the heads do not decay."""
    random = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    reset = torch.zeros(b * L, dtype=torch.bool)
    reset[list(resets or ())] = True
    decay = -noise(b, L, H).exp()
    if slow:
        decay[..., H // 2 :] = 0.0
    return Inputs(
        q=noise(b, L, H, d_k),
        k=noise(b, L, H, d_k),
        v=noise(b, L, H, d_v),
        beta=noise(b, L, H).sigmoid(),
        decay=decay,
        state=noise(b, H, d_k, d_v),
        reset=reset.reshape(b, L),
    )


@st.composite
def inputs(draw: st.DrawFn) -> Inputs:
    """Arguments of any small shape, with resets anywhere."""
    b, L, H, d_k, d_v = (draw(st.integers(1, most)) for most in (2, 21, 2, 4, 3))
    resets = draw(st.sets(st.integers(0, b * L - 1), max_size=6))
    return random_inputs(b, L, H, d_k, d_v, resets, draw(st.integers(0, 1000)), draw(st.booleans()))


LENGTHS = st.integers(1, 24)


@settings(max_examples=100)
@given(inputs(), LENGTHS, LENGTHS)
def test_the_rule_is_its_recurrence(i: Inputs, save_every: int, chunk: int) -> None:
    y, states = i.run(save_every, chunk)
    want, every = recurrence(i)
    torch.testing.assert_close(y, want, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(states, every[:, boundaries(i.q.shape[1], save_every)], atol=1e-10, rtol=1e-10)


@settings(max_examples=50)
@given(inputs(), LENGTHS, LENGTHS)
def test_gradients_are_the_recurrence_s(i: Inputs, save_every: int, chunk: int) -> None:
    arguments = [x.requires_grad_() for x in i.floats()]
    y, states = i.run(save_every, chunk)
    want, every = recurrence(i)
    every = every[:, boundaries(i.q.shape[1], save_every)]
    random = torch.Generator().manual_seed(1)
    onto = [torch.randn(x.shape, generator=random, dtype=x.dtype) for x in (y, states)]
    got = torch.autograd.grad((y, states), arguments, onto)
    expected = torch.autograd.grad((want, every), arguments, onto, materialize_grads=True)
    torch.testing.assert_close(got, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("resets", [{0}, {3}, {4}, {7}, {9}, {0, 1, 2}, {3, 4}, {2, 3, 4, 5, 8}, set(range(10))])
@pytest.mark.parametrize("save_every", [4, 5, 100])
def test_resets_at_the_edges_of_chunks_and_in_a_row(resets: set[int], save_every: int) -> None:
    i = random_inputs(1, 10, 2, 3, 4, resets, slow=True)
    y, states = i.run(save_every, 4)
    want, every = recurrence(i)
    torch.testing.assert_close(y, want, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(states, every[:, boundaries(10, save_every)], atol=1e-10, rtol=1e-10)


@settings(max_examples=50)
@given(inputs(), LENGTHS, st.data())
def test_a_sequence_cut_anywhere_and_carried_is_the_whole(i: Inputs, chunk: int, data: st.DataObject) -> None:
    L = i.q.shape[1]
    cut = data.draw(st.integers(1, L))
    y, states = i.run(chunk=chunk)
    before, carried = i.part(0, cut, i.state).run(chunk=data.draw(LENGTHS))
    torch.testing.assert_close(before, y[:, :cut], atol=1e-10, rtol=1e-10)
    if cut < L:
        after, carried = i.part(cut, None, carried[:, -1]).run(chunk=data.draw(LENGTHS))
        torch.testing.assert_close(after, y[:, cut:], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(carried[:, -1], states[:, -1], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("chunk", [1, 3, 32])
def test_steps_are_the_chunks(chunk: int) -> None:
    i = random_inputs(2, 9, 2, 4, 3, {0, 4, 9 + 7}, slow=True)
    y, states = i.run(chunk=chunk)
    state = i.state
    for t in range(9):
        step, after = i.part(t, t + 1, state).run()
        state = after[:, -1]
        torch.testing.assert_close(step, y[:, t : t + 1], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(state, states[:, -1], atol=1e-10, rtol=1e-10)


def test_nothing_passes_a_reset() -> None:
    i = random_inputs(1, 9, 2, 3, 2, {5})
    y, states = i.run(save_every=4)
    other = replace(i, v=i.v.clone(), k=i.k.clone(), state=i.state + 1)
    other.v[:, :5] += 1
    other.k[:, :5] -= 1
    changed, changed_states = other.run(save_every=4)
    assert (changed[:, :5] - y[:, :5]).abs().min() > 0
    torch.testing.assert_close(changed[:, 5:], y[:, 5:], atol=0, rtol=0)
    torch.testing.assert_close(changed_states[:, 1:], states[:, 1:], atol=0, rtol=0)


@pytest.mark.parametrize("length", [1, 7])
def test_a_write_of_no_strength_changes_nothing(length: int) -> None:
    i = random_inputs(1, length, 2, 3, 2)
    i.beta.zero_()
    i.decay.zero_()
    arguments = [x.requires_grad_() for x in i.floats()]
    y, states = i.run()
    torch.testing.assert_close(states[:, -1], i.state, atol=0, rtol=0)
    gradients = torch.autograd.grad(y.square().sum() + states.square().sum(), arguments)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strong_decay_zero_keys_and_equal_keys_give_numbers(dtype: torch.dtype) -> None:
    i = random_inputs(1, 130, 2, 3, 2, {70})
    i.k[:, 20:60] = i.k[:, 20:21]
    i.k[:, 90:95], i.q[:, 90:95] = 0.0, 0.0
    i.decay[..., 0] = -60.0
    narrow = {name: getattr(i, name).to(dtype) for name in ("q", "k", "v")}
    i = replace(i, **narrow, beta=torch.ones(1, 130, 2), decay=i.decay.float(), state=i.state.float())
    arguments = [x.requires_grad_() for x in i.floats()]
    y, states = i.run(64, 32)
    assert y.dtype == dtype and states.dtype == torch.float32
    gradients = torch.autograd.grad(y.float().square().sum() + states.square().sum(), arguments)
    assert all(x.isfinite().all() for x in (y, states, *gradients))


@pytest.mark.parametrize("length", [1, 7])
def test_autocast_narrows_nothing(length: int) -> None:
    i = random_inputs(1, length, 2, 3, 2)
    i = Inputs(*(x.float() for x in i.floats()), i.reset)
    want = i.run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = i.run()
    torch.testing.assert_close(got, want, atol=0, rtol=0)


@pytest.mark.parametrize("chunk", [1, 3, 32])
def test_keys_recall_their_values_and_overwrite_them(chunk: int) -> None:
    """With alpha = 1, beta = 1 and orthonormal keys; a memory that adds (Hebbian, Mamba-2's) reads the sum."""
    d_k, d_v = 6, 5
    random = torch.Generator().manual_seed(0)
    keys = torch.linalg.qr(torch.randn(d_k, d_k, generator=random, dtype=torch.float64))[0]
    values = torch.randn(2 * d_k, d_v, generator=random, dtype=torch.float64)
    order = [*range(d_k), *range(d_k)]  # every key is written twice
    k, v = keys[order][None, :, None], values[None, :, None]
    ones, none = torch.ones(1, 2 * d_k, 1, dtype=torch.float64), torch.zeros(1, 2 * d_k, 1, dtype=torch.float64)
    empty = torch.zeros(1, 1, d_k, d_v, dtype=torch.float64)
    written = Inputs(k, k, v, ones, none, empty, torch.zeros(1, 2 * d_k, dtype=torch.bool))
    y, states = written.run(save_every=d_k, chunk=chunk)
    torch.testing.assert_close(y, v, atol=1e-12, rtol=0)  # what was just written
    torch.testing.assert_close(keys @ states[0, 0, 0], values[:d_k], atol=1e-12, rtol=0)
    torch.testing.assert_close(keys @ states[0, 1, 0], values[d_k:], atol=1e-12, rtol=0)
    added = torch.einsum("tk,tv->kv", keys[order], values)
    assert (keys @ added - values[d_k:]).abs().max() > 1


# --- the mixer


def make(
    block: tuple[int, int] = (2, 2), d_conv: int = 3, heads: int = 2, chunk: int = 3, long: bool = False
) -> DeltaMemory:
    """In float64, with weights large enough that what should matter does."""
    torch.manual_seed(0)
    mixer = DeltaMemory(WIDTH, GRID, block, heads, 4, 3, d_conv, chunk, normalised=long, slow_heads=0.5 * long)
    shake(mixer, 0.3)
    return mixer.double()


@pytest.fixture(params=[((1, 1), 1), ((1, 1), 3), ((1, 2), 3), ((2, 2), 1), ((2, 4), 3), ((1, 2), 3, 4, 3, True)])
def mixer(request: pytest.FixtureRequest) -> DeltaMemory:
    """Of several blocks, with a convolution and without."""
    return make(*request.param)


def noise(frames: int, seed: int = 0, batch: int = 2) -> Tensor:
    """(batch, T, N, D) float64"""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, TOKENS, WIDTH, generator=random, dtype=torch.float64)


def resets(frames: int, *at: tuple[int, int]) -> Tensor:
    """(2, T), true at these (sequence, frame) places."""
    reset = torch.zeros(2, frames, dtype=torch.bool)
    for b, t in at:
        reset[b, t] = True
    return reset


SOME = ((0, 3), (0, 4), (1, 0), (1, 7))


def lived(mixer: DeltaMemory) -> Tensor:
    """A memory that holds something."""
    return mixer(noise(5, seed=1), mixer.initial(2), resets(5), 5)[1][:, -1]


@torch.no_grad()
def test_the_mixer_is_its_equations(mixer: DeltaMemory) -> None:
    layer, taps = mixer.layer, mixer.layer.d_conv
    H, d_k, d_v = layer.heads, layer.d_k, layer.d_v
    x, reset = noise(5), resets(5, (0, 2), (1, 0))
    y = mixer(x, mixer.initial(2), reset, 5)[0]
    height, width = GRID[0] // mixer._axes["r"], GRID[1] // mixer._axes["c"]
    for b in range(2):
        for row in range(0, GRID[0], height):
            for column in range(0, GRID[1], width):
                tokens = [r * GRID[1] + c for r in range(row, row + height) for c in range(column, column + width)]
                u = x[b][:, tokens].flatten(0, 1) @ layer.in_proj.weight.T  # frame by frame
                first = [bool(reset[b, t]) and n == 0 for t in range(5) for n in range(len(tokens))]
                gate, mixed, beta, rate = u.split([H * d_v, H * (2 * d_k + d_v), H, H // 2], -1)
                S = torch.zeros(H, d_v, d_k, dtype=u.dtype)
                begun = 0
                for i in range(len(u)):
                    if first[i]:
                        S, begun = torch.zeros_like(S), i
                    z = mixed[i]
                    if taps > 1:
                        inputs = [(tap, i - taps + 1 + tap) for tap in range(taps) if i - taps + 1 + tap >= begun]
                        z = sum(layer.conv_weight[tap] * mixed[j] for tap, j in inputs) + layer.conv_bias
                    z = z.reshape(H, -1)
                    opened = (z * z.sigmoid())[:, 0 if not layer.normalised else 2 * d_k :]
                    z = torch.cat([z[:, : z.shape[1] - opened.shape[1]], opened], 1)
                    outputs = []
                    for h in range(H):
                        k, q, v = z[h, :d_k], z[h, d_k : 2 * d_k], z[h, 2 * d_k :]
                        k, q = k / k.norm(), q / q.norm()
                        strength, alpha = (beta[i, h] + layer.beta_bias[h]).sigmoid(), torch.tensor(1.0)
                        if layer.slow and h >= H // 2:
                            strength = (8192.0 * len(tokens)) ** (strength - 1)
                        if h < H // 2:
                            softplus = torch.log1p((rate[i, h] + layer.decay_bias[h]).exp())
                            alpha = torch.exp(-(softplus + 0.5 / DECAY_FRAMES[1]) / len(tokens))
                        S[h] = alpha * (S[h] - strength * torch.outer(S[h] @ k, k)) + strength * torch.outer(v, k)
                        read = S[h] @ q
                        outputs.append(read / (read.square().mean() + 1e-5).sqrt() * layer.norm.weight)
                    out = layer.out_proj.weight @ (torch.cat(outputs) * gate[i] * gate[i].sigmoid())
                    got = y[b, i // len(tokens), tokens[i % len(tokens)]]
                    torch.testing.assert_close(got, out, atol=1e-9, rtol=0)


@pytest.mark.parametrize("at", [(), (0,), (2,)])
def test_gradients_of_the_mixer(at: tuple[int, ...]) -> None:
    """By finite differences, of every parameter, the input and the memory."""
    mixer = make((2, 4))
    names, parameters = zip(*mixer.named_parameters(), strict=True)
    reset = torch.zeros(1, 3, dtype=torch.bool)
    reset[:, list(at)] = True
    memory = mixer(noise(2, 1, 1), mixer.initial(1), torch.zeros(1, 2, dtype=torch.bool), 2)[1][:, -1].detach()

    def outputs(x: Tensor, conv: Tensor, state: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        given = memory.clone().set("conv", conv).set("fast_weights", state)
        y, memories = torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), (x, given, reset, 2))
        return y, memories["conv"], memories["fast_weights"]

    inputs = [noise(3, batch=1), memory["conv"], memory["fast_weights"], *parameters]
    assert torch.autograd.gradcheck(outputs, [x.detach().clone().requires_grad_() for x in inputs], fast_mode=True)


@torch.no_grad()
def test_what_a_token_changes(mixer: DeltaMemory) -> None:
    """Nothing before its frame, no other sequence, no token outside its block; everything in it from then on."""
    x, memory = noise(6), lived(mixer)
    y = mixer(x, memory, resets(6), 4)[0]
    height, width = GRID[0] // mixer._axes["r"], GRID[1] // mixer._axes["c"]
    for token in range(TOKENS):
        other = x.clone()
        other[0, 3, token] += 1
        gap = (mixer(other, memory, resets(6), 4)[0] - y).abs().amax(-1) > 1e-12  # (B, T, N)
        row, column = token // GRID[1] // height, token % GRID[1] // width
        mates = [n for n in range(TOKENS) if (n // GRID[1] // height, n % GRID[1] // width) == (row, column)]
        want = torch.zeros(2, 6, TOKENS, dtype=torch.bool)
        want[0, 4:, mates] = True
        assert torch.equal(gap[:, 4:], want[:, 4:])
        assert not gap[1].any() and not gap[0, :3].any()


@pytest.mark.parametrize("frames", [1, 9])
@pytest.mark.parametrize("block", [(1, 1), (2, 2)])
def test_bfloat16_is_near_float32_and_keeps_memory_wide(block: tuple[int, int], frames: int) -> None:
    mixer = make(block).float()
    x, reset, memory = noise(frames).float(), resets(frames), lived(make(block)).detach().float()
    want, memories = mixer(x, memory, reset, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, narrow = mixer(x, memory, reset, 4)
    assert 0 < (y - want).norm() < 0.05 * want.norm()
    state, state_wanted = narrow["fast_weights"], memories["fast_weights"]
    assert 0 < (state - state_wanted).norm() < 0.02 * state_wanted.norm()
    assert {leaf.dtype for leaf in leaves(narrow).values()} == {torch.float32}
    (y.float().square().sum() + sum(leaf.sum() for leaf in leaves(narrow).values())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in mixer.parameters())


def test_long_sequences_stay_finite() -> None:
    mixer = make((1, 1), chunk=32).float()
    x = noise(600).float()
    y, memories = mixer(x, mixer.initial(2), resets(600), 100)
    y.square().sum().backward()
    assert memories["fast_weights"].abs().max() < 10
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mixer.parameters())


@torch.no_grad()
@pytest.mark.parametrize("block", [(1, 1), (2, 2)])
def test_half_of_the_heads_decay_over_4_to_8192_frames(block: tuple[int, int]) -> None:
    torch.manual_seed(0)
    mixer = DeltaMemory(WIDTH, GRID, block, heads=4, d_k=4, d_v=3)
    mixer.layer.beta_bias.fill_(-200.0)  # nothing is written
    mixer.layer.in_proj.weight[-2:] = 0.0  # rates do not depend on the input
    memory = mixer.initial(2)
    memory["fast_weights"] += 1
    frames = 40
    after = mixer(noise(frames).float(), memory, resets(frames), frames)[1]["fast_weights"]
    for head, time in enumerate([4.0, 8192.0, torch.inf, torch.inf]):
        want = torch.full_like(after[..., head, :, :], torch.tensor(-frames / time).exp().item())
        torch.testing.assert_close(after[..., head, :, :], want, rtol=1e-4, atol=0)


def test_each_token_gets_its_block_s_state(mixer: DeltaMemory) -> None:
    memory = lived(mixer)
    state = mixer.recurrent_state(memory)
    assert state.shape == (2, mixer.blocks, mixer.state_width)
    numbers = torch.arange(mixer.blocks).reshape(1, -1, 1)
    spread = mixer.spread(numbers)[0, :, 0].reshape(GRID)
    rows, columns = mixer._axes["r"], mixer._axes["c"]
    for r in range(GRID[0]):
        for c in range(GRID[1]):
            assert spread[r, c] == r * rows // GRID[0] * columns + c * columns // GRID[1]


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="block 2x3 does not divide the grid of 2x4 tokens"):
        DeltaMemory(WIDTH, GRID, (2, 3))
    with pytest.raises(ValueError, match="3 heads: half of them decay"):
        DeltaMemory(WIDTH, GRID, (2, 2), heads=3)
