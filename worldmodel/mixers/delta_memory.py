"""A memory that is addressed by keys: the gated delta rule (Yang, Kautz & Hatamizadeh 2024, arXiv 2412.06464).

For each sequence and head, with unit keys k, unit queries q, values v, write strengths beta in 0..1 and decays alpha in
0..1 (equation 10, its state transposed)::

    S_i = alpha_i S_{i-1} + k_i u_i^T        u_i = beta_i (v_i - alpha_i S_{i-1}^T k_i);  S_{i-1} = 0 where reset_i
    y_i = S_i^T q_i                          S_i: (d_k, d_v)

A write replaces the value of its key, where Mamba-2 adds to it: with beta = 1 the key reads back v_i exactly, and what
orthogonal keys read stays as it is.

Letters: b sequences, L positions, D width, H heads, C chunk length, n chunks, K boundaries, W taps.
"""

import math

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel import cpu
from worldmodel.boundaries import boundaries, convolve_masked, last_inputs
from worldmodel.mamba2 import SLOW_FRAMES, chunk_length, slow_gate
from worldmodel.mixers.blocks import BlockMixer
from worldmodel.norm import RMSNorm

LONGEST_CHUNK = 32
"""Positions of a chunk at most. Products inside a chunk grow with it; passes over the state become fewer."""

DECAY_FRAMES = 4.0, SLOW_FRAMES[1]
"""Time constants of the heads with decay at first: the shortest, the longest. None ever exceeds twice the longest."""

EPS = 1e-6
"""The least length that a key or a query is divided by."""


class DeltaMemory(BlockMixer):
    """`GatedDelta` over each block, with its arguments."""

    def __init__(
        self,
        width: int,
        grid: tuple[int, int],
        block: tuple[int, int],
        heads: int = 4,
        d_k: int = 64,
        d_v: int = 32,
        d_conv: int = 4,
        chunk: int = LONGEST_CHUNK,
        normalised: bool = False,
        slow_heads: float = 0.0,
    ):
        """`slow_heads` is a share of the heads."""
        slow, positions = round(slow_heads * heads), block[0] * block[1]
        layer = GatedDelta(width, heads, d_k, d_v, d_conv, positions, chunk, normalised, slow)
        super().__init__(grid, block, layer)
        self.state_width = heads * d_k * d_v

    def recurrent_state(self, memory: TensorDict) -> Tensor:
        """See `Mixer`: one for each block."""
        return memory["fast_weights"].flatten(-3)


class GatedDelta(nn.Module):
    """A layer of Gated DeltaNet (arXiv 2412.06464, figure 1): (b, L, D) -> (b, L, D), a `SequenceLayer`.

    Keys, queries and values are linear in the input, then mixed over the last W positions by a causal depthwise
    convolution and passed through SiLU. What is read is normalised for each head, gated and projected.

    The first half of the heads decay, at a rate that depends on the input. The others keep what they hold until it is
    overwritten.

    Memory: `fast_weights` (b, H, d_k, d_v), and `conv` (b, W - 1, channels), the last inputs of the convolution.
    """

    decay_scale = 1.0
    """Factor of the decays' logarithms; see `Mamba2`."""

    def __init__(
        self,
        width: int,
        heads: int,
        d_k: int,
        d_v: int,
        d_conv: int,
        positions: int,
        chunk: int,
        normalised: bool = False,
        slow: int = 0,
    ):
        """
        Args:
            width: of the input, D.
            heads: an even number, each with keys and queries of d_k and values of d_v numbers.
            d_conv: taps of the convolution, W; 1: no convolution.
            positions: of the sequence that make one frame.
            chunk: positions of a chunk at most.
            normalised: keys and queries, which are normalised anyhow, do not pass through SiLU: it would leave them
                positive for the most part, and so nearly parallel.
            slow: so many heads, the last ones, write by a gate whose logarithm a sigmoid interpolates, from 1 / 8,192
                of a frame to 1 a position: all but shut, it keeps what the head holds from frames to come.
        """
        super().__init__()
        if heads % 2:
            raise ValueError(f"{heads} heads: half of them decay, so their number must be even")
        self.heads, self.d_k, self.d_v, self.d_conv = heads, d_k, d_v, d_conv
        self.positions, self.chunk, self.normalised, self.slow = positions, chunk, normalised, slow
        self.mixed = heads * (2 * d_k + d_v)  # channels that the convolution sees: k, q, v
        self.in_proj = nn.Linear(width, heads * d_v + self.mixed + heads + heads // 2, bias=False)
        if d_conv > 1:
            self.conv_weight = nn.Parameter(torch.empty(d_conv, self.mixed).uniform_(-1, 1) * d_conv**-0.5)
            self.conv_bias = nn.Parameter(torch.zeros(self.mixed))
        self.beta_bias = nn.Parameter(torch.full((heads,), 2.0))  # beta = 0.88: it writes from the start
        shortest, longest = DECAY_FRAMES
        rate = 1 / torch.logspace(math.log10(shortest), math.log10(longest), heads // 2) - 0.5 / longest
        self.decay_bias = nn.Parameter(rate + torch.log(-torch.expm1(-rate)))  # inverse of softplus
        self.norm = RMSNorm(d_v, eps=1e-5)
        self.out_proj = nn.Linear(heads * d_v, width, bias=False)

    def initial(self, batch: int) -> TensorDict:
        """Zeros."""
        like = self.beta_bias
        memory = {"fast_weights": like.new_zeros(batch, self.heads, self.d_k, self.d_v)}
        if self.d_conv > 1:
            memory["conv"] = like.new_zeros(batch, self.d_conv - 1, self.mixed)
        return TensorDict(memory, batch_size=[batch])

    def forward(self, u: Tensor, memory: TensorDict, reset: Tensor, save_every: int) -> tuple[Tensor, TensorDict]:
        """See `SequenceLayer`."""
        H = self.heads
        gate, mixed, beta, rate = self.in_proj(u).split([H * self.d_v, self.mixed, H, H // 2], -1)
        ends = boundaries(u.shape[1], save_every)
        memories = {}
        if self.d_conv > 1:
            mixed, memories["conv"] = self._convolve(mixed, memory["conv"], reset, ends)
        k, q, v = self._activated(mixed.unflatten(-1, (H, -1)))  # (b, L, H, ...)
        wide = self.beta_bias.dtype
        beta = self._strength(beta.to(wide) + self.beta_bias)  # (b, L, H)
        rate = F.softplus(rate.to(wide) + self.decay_bias) + 0.5 / DECAY_FRAMES[1]  # (b, L, H / 2), of a frame
        decay = F.pad(-rate * self.decay_scale / self.positions, (0, H // 2))  # (b, L, H)
        y, memories["fast_weights"] = gated_delta_rule(
            q, k, v, beta, decay, memory["fast_weights"], reset, save_every, self.chunk
        )
        y = self.norm(y).flatten(2) * F.silu(gate)
        return self.out_proj(y), TensorDict(memories, batch_size=[len(u), len(ends)])

    def _activated(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """k, q and v by head."""
        widths = [self.d_k, self.d_k, self.d_v]
        if not self.normalised:
            k, q, v = F.silu(mixed).split(widths, -1)
            return k, q, v
        k, q, v = mixed.split(widths, -1)
        return k, q, F.silu(v)

    def _strength(self, beta: Tensor) -> Tensor:
        """(b, L, H) -> beta in 0..1."""
        if not self.slow:
            return torch.sigmoid(beta)
        fast, slow = beta.split([self.heads - self.slow, self.slow], -1)
        return torch.cat([torch.sigmoid(fast), slow_gate(slow, 1.0, SLOW_FRAMES[1] * self.positions)], -1)

    def _convolve(self, x: Tensor, before: Tensor, reset: Tensor, ends: list[int]) -> tuple[Tensor, Tensor]:
        """x (b, L, channels) after the inputs `before` it; no tap reaches over a reset. Also the last inputs at the
        ends."""
        segment = F.pad(reset.cumsum(1), (self.d_conv - 1, 0))  # (b, W - 1 + L); what memory holds is segment 0
        past = torch.cat([before.to(x.dtype), x], 1)
        weight, bias = self.conv_weight.to(x.dtype), self.conv_bias.to(x.dtype)
        y = (convolve_masked if x.is_cuda else cpu.convolve)(past, weight, bias, segment)
        return y, last_inputs(past, segment, ends, self.d_conv).to(before.dtype)


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    decay: Tensor,
    state: Tensor,
    reset: Tensor,
    save_every: int,
    chunk: int = LONGEST_CHUNK,
) -> tuple[Tensor, Tensor]:
    """The recurrence from an initial state, in chunks (arXiv 2412.06464, section 3.3); cost and memory are linear in L.

    Args:
        q, k: queries and keys (b, L, H, d_k) of any length; they are normalised here.
        v: values (b, L, H, d_v).
        beta: write strengths (b, L, H), 0 to 1; 0 writes nothing and has no gradient.
        decay: log of alpha (b, L, H), finite, at most 0.
        state: (b, H, d_k, d_v), float32 or wider.
        reset: (b, L) bool; the state before that position is forgotten.
        save_every: positions between the states that are returned.
        chunk: positions of a chunk at most.

    Returns y (b, L, H, d_v) in v's type, and the states (b, K, H, d_k, d_v) at `boundaries(L, save_every)`.
    """
    with torch.autocast(q.device.type, enabled=False):  # which would take states and decays in half precision
        # keys and values are scaled by sqrt(beta), u by its inverse: beta then stands nowhere else
        writes = beta > 0  # a root's slope at 0 is infinite
        strength = (torch.where(writes, beta, 1.0).to(state.dtype).sqrt() * writes).unsqueeze(-1)  # (b, L, H, 1)
        v = v * strength.to(v.dtype)
        if q.shape[1] == 1:
            return _step(q, k, v, strength, decay, state, reset)
        return _chunked(q, k, v, strength, decay, state, reset, save_every, chunk)


def _step(
    q: Tensor, k: Tensor, v: Tensor, strength: Tensor, decay: Tensor, state: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    """`_chunked` of one position: the recurrence itself."""
    both = torch.stack([k[:, 0], q[:, 0]], 2).to(state.dtype)  # (b, H, 2, d_k)
    both = _normalised(both, strength[:, 0].unsqueeze(2))
    alpha = (decay[:, 0].to(state.dtype).exp() * ~reset)[..., None, None]  # (b, H, 1, 1)
    by_key, by_query = ((both @ state) * alpha).unbind(2)  # (b, H, d_v)
    key, query = both.unbind(2)
    written = v[:, 0].to(state.dtype) - by_key
    y = by_query + (key * query).sum(-1, keepdim=True) * written
    added = key.unsqueeze(-1) * written.unsqueeze(-2)  # states are large: one alone is allocated
    return y.to(v.dtype).unsqueeze(1), added.addcmul_(state, alpha).unsqueeze(1)


def _chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    strength: Tensor,
    decay: Tensor,
    state: Tensor,
    reset: Tensor,
    save_every: int,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """`gated_delta_rule` of values that are scaled by their strengths, sqrt(beta) (b, L, H, 1).

    With D_ij = alpha_{j+1} ... alpha_i, 0 where a reset stands between, and e_i = alpha_1 ... alpha_i from the state
    before the chunk, and with K and V scaled by sqrt(beta), a chunk is the solution of a triangular system::

        U = (I + tril(D * K K^T, -1))^{-1} (V - diag(e) K S)
        Y = diag(e) Q S + tril(D * Q K^T) U
        S' = e_C S + (diag(D_C) K)^T U
    """
    L, wide, narrow = q.shape[1], state.dtype, q.dtype
    every = min(save_every, L)
    C = chunk_length(every, chunk)
    chunks = -(-every // C)  # of `every` positions

    def cut(x: Tensor) -> Tensor:
        """(b, L, H, ...) -> (n, b, H, C, ...). The last chunk of every `every` is padded: zeros neither decay nor
        write."""
        others = (0, 0) * (x.ndim - 2)
        parts = F.pad(x, (*others, 0, -L % every)).unflatten(1, (-1, every))
        parts = F.pad(parts, (*others, 0, chunks * C - every)).flatten(1, 2).unflatten(1, (-1, C))
        return parts.transpose(0, 1).transpose(2, 3)

    both = _normalised(torch.cat([cut(k), cut(q)], 3), cut(strength))  # (n, b, H, 2C, d_k)
    past = cut(decay.to(wide)).cumsum(-1)  # (n, b, H, C): log of the decay since the chunk's start
    segment = cut(reset.unsqueeze(-1)).cumsum(-1)  # (n, b, 1, C): resets since the chunk's start
    causal = torch.ones(C, C, dtype=torch.bool, device=q.device).tril()
    same = (segment.unsqueeze(-1) == segment.unsqueeze(-2)) & causal  # (n, b, 1, C, C)
    hidden = torch.zeros_like(same, dtype=wide).masked_fill_(~same, -torch.inf)
    D = (past.unsqueeze(-1) - past.unsqueeze(-2)).add_(hidden).exp_()  # (n, b, H, C, C)
    early = (past.exp() * (segment == 0)).unsqueeze(-1)  # (n, b, H, C, 1)
    late = ((past[..., -1:] - past).exp() * (segment == segment[..., -1:])).unsqueeze(-1)

    kk, qk = (both @ both[..., :C, :].mT).unflatten(-2, (2, C)).unbind(-3)
    eye = torch.eye(C, dtype=wide, device=q.device).expand_as(D)
    inverse = torch.linalg.solve_triangular(kk * D, eye, upper=False, unitriangular=True)  # reads tril(kk * D, -1)
    inside = qk * D.to(narrow)
    carried = early[..., -1:, :]
    inverse, early, late = inverse.to(narrow), early.to(narrow), late.to(narrow)

    ys, states = [], []
    # unbound at once: the gradient of each both[i] would be as large as both
    for kq, x, solve, weight, begin, end, share in zip(
        *(t.unbind(0) for t in (both, cut(v), inverse, inside, early, late, carried)), strict=True
    ):
        by_key, by_query = (kq @ state.to(narrow)).unflatten(-2, (2, C)).unbind(-3)  # (b, H, C, d_v)
        written = solve @ torch.addcmul(x, by_key, begin, value=-1)
        ys.append(torch.addcmul(weight @ written, by_query, begin).transpose(1, 2))
        # states are large: nothing but the product is allocated
        state = (kq[..., :C, :].mT @ (written * end)).to(wide).addcmul_(state, share)
        states.append(state)

    y = torch.stack(ys, 1).flatten(1, 2).unflatten(1, (-1, chunks * C))[:, :, :every].flatten(1, 2)[:, :L]
    ends = [end // save_every * chunks + end % save_every // C for end in boundaries(L, save_every)]
    return y, torch.stack([states[end] for end in ends], 1) if len(ends) > 1 else state.unsqueeze(1)


def _normalised(both: Tensor, strength: Tensor) -> Tensor:
    """Keys, then queries (..., keys + queries, d_k): queries of unit length, keys as long as their strengths
    (..., keys, 1)."""
    norm = torch.linalg.vector_norm(both, dim=-1, keepdim=True).clamp_min(EPS)
    ones = torch.ones_like(norm[..., strength.shape[-2] :, :])
    return both * (torch.cat([strength, ones], -2) / norm).to(both.dtype)
