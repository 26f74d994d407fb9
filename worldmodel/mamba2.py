"""One Mamba-2 layer whose memory is an argument and a result (Dao & Gu 2024, figure 6, the parallel block).

The weights have the names, shapes and order of the public checkpoints (state-spaces/mamba2-*): `in_proj` gives
[gate z, x, B, C, dt]. The package's own module neither takes an initial state nor steps without changing its
caches in place, so this one calls the scan itself.

Letters: b sequences, L positions, D width, I = expand * D inner width, H = I / P heads, S state size, W taps.
"""

import math

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel import cpu
from worldmodel.boundaries import boundaries, convolve_masked, gather_boundaries, last_inputs
from worldmodel.norm import RMSNorm
from worldmodel.ssd import longest_chunk, scan

D_CONV = 4

SLOW_FRAMES = 0.25, 8192.0
"""Time constants of the slow heads, in frames: the shortest, the longest."""


class Mamba2(nn.Module):
    """(b, L, D) -> (b, L, D), causal, from a given memory and with resets.

    Two options beyond Mamba-2. `normalised`: the convolution's B and C pass through an RMSNorm in SiLU's place, as in
    Mamba-3 (arXiv 2603.15569). `slow`: so many heads, the last ones, have A = -1 and a dt whose logarithm a sigmoid
    interpolates, such that the time constant, 1 / dt, is within `SLOW_FRAMES`. All but shut, that gate holds what was
    written for thousands of frames, where softplus would have to learn an input of -9; open, it overwrites at once.
    """

    decay_scale = 1.0
    """Factor of A. Less than 1 in a trained layer tells forgetting from drift (arXiv 2509.19633)."""

    def __init__(
        self,
        width: int,
        expand: int = 2,
        headdim: int = 64,
        state: int = 128,
        positions: int = 1,
        normalised: bool = False,
        slow: int = 0,
    ):
        """`positions` of the sequence make one step of time."""
        super().__init__()
        inner = expand * width
        self.inner, self.headdim, self.state = inner, headdim, state
        self.heads, self.slow, self.positions = inner // headdim, slow, positions
        self.mixed = inner + 2 * state  # channels that the convolution sees: x, B, C
        self.in_proj = nn.Linear(width, inner + self.mixed + self.heads, bias=False)
        self.conv1d = nn.Conv1d(self.mixed, self.mixed, D_CONV, groups=self.mixed)
        # Heads forget over 4 to 256 steps of time at first, evenly by the logarithm, and all write strongly: dt is
        # log-uniform in 0.1..1 a step. (As published, dt in 0.001..0.1 and A in -16..-1 are independent: heads that
        # keep for long write next to nothing, and whether there are any is chance.)
        forget = torch.logspace(math.log10(4.0), math.log10(256.0), self.heads) * positions
        dt = torch.exp((torch.rand(self.heads) - 1) * math.log(10.0)) / positions
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # inverse of softplus
        self.A_log = nn.Parameter(-(forget * dt).log()[: self.heads - slow])
        if slow:  # time constants of 16 to 256 frames at first
            shortest, longest = SLOW_FRAMES
            open_share = 1 - (torch.logspace(4, 8, slow, 2.0) / shortest).log() / math.log(longest / shortest)
            self.dt_bias.data[-slow:] = torch.logit(open_share)
        self.B_norm = RMSNorm(state, eps=1e-5) if normalised else None
        self.C_norm = RMSNorm(state, eps=1e-5) if normalised else None
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = RMSNorm(inner, eps=1e-5)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def initial(self, batch: int) -> TensorDict:
        """Empty memory: the convolution's last W - 1 inputs and the scan's state."""
        like = self.A_log
        return TensorDict(
            {
                "conv": like.new_zeros(batch, D_CONV - 1, self.mixed),
                "ssm": like.new_zeros(batch, self.heads, self.headdim, self.state),
            },
            batch_size=[batch],
        )

    def forward(self, u: Tensor, memory: TensorDict, reset: Tensor, save_every: int) -> tuple[Tensor, TensorDict]:
        """u (b, L, D), reset (b, L) -> y (b, L, D) and the memories (b, K) after every `save_every` positions
        and after the last."""
        b, L, _ = u.shape
        z, mixed, dt = self.in_proj(u).split([self.inner, self.mixed, self.heads], -1)
        segment = F.pad(reset.cumsum(1), (D_CONV - 1, 0))  # (b, W - 1 + L); what memory holds is segment 0
        past = torch.cat([memory["conv"].to(mixed.dtype), mixed], 1)  # (b, W - 1 + L, I + 2S)
        x, B, C = self._activated(self._convolve(past, segment))
        x = x.unflatten(-1, (self.heads, self.headdim))  # (b, L, H, P)
        dt = self._steps(dt.to(self.dt_bias.dtype) + self.dt_bias)  # (b, L, H)

        y, states = _scan_blocks(x, dt, self._decays() * self.decay_scale, B, C, memory["ssm"], reset, save_every)
        y = (y + x * self.D.to(x.dtype).unsqueeze(-1)).flatten(2)  # (b, L, I)
        y = self.out_proj(self.norm(y * F.silu(z)))

        ends = boundaries(L, save_every)
        memories = TensorDict(
            {
                "conv": last_inputs(past, segment, ends, D_CONV).to(memory["conv"].dtype),
                "ssm": states,
            },
            batch_size=[b, len(ends)],
        )
        return y, memories

    def _activated(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the convolution gives -> x, B, C."""
        sizes = [self.inner, self.state, self.state]
        if self.B_norm is None or self.C_norm is None:
            x, B, C = F.silu(mixed).split(sizes, -1)
            return x, B, C
        x, B, C = mixed.split(sizes, -1)
        return F.silu(x), self.B_norm(B), self.C_norm(C)

    def _steps(self, dt: Tensor) -> Tensor:
        """(b, L, H) -> dt, positive."""
        if not self.slow:
            return F.softplus(dt)
        fast, slow = dt.split([self.heads - self.slow, self.slow], -1)
        return torch.cat([F.softplus(fast), slow_gate(slow, *SLOW_FRAMES) / self.positions], -1)

    def _decays(self) -> Tensor:
        """A (H,), negative."""
        return F.pad(-self.A_log.exp(), (0, self.slow), value=-1.0) if self.slow else -self.A_log.exp()

    def _convolve(self, past: Tensor, segment: Tensor) -> Tensor:
        """Causal depthwise convolution in which no tap reaches over a reset. -> (b, L, I + 2S)"""
        assert self.conv1d.bias is not None
        weight, bias = self.conv1d.weight.squeeze(1).to(past.dtype), self.conv1d.bias.to(past.dtype)
        return (convolve_masked if past.is_cuda else cpu.convolve)(past, weight.T, bias, segment)


def slow_gate(x: Tensor, shortest: float, longest: float) -> Tensor:
    """What a sigmoid interpolates by the logarithm: 1 / longest where it is shut, 1 / shortest where it is open."""
    return torch.exp(x.sigmoid() * math.log(longest / shortest)) / longest


def _scan_blocks(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, reset: Tensor, save_every: int
) -> tuple[Tensor, Tensor]:
    """`scan` in chunks that end at boundaries: y (b, L, H, P), and the states (b, K, H, P, S) there."""
    L = x.shape[1]
    chunk = chunk_length(save_every, longest_chunk(x.is_cuda))
    chunks = -(-save_every // chunk)  # of `save_every` positions
    spare = chunks * chunk - save_every if L > save_every else 0
    if spare:  # the last chunk of every `save_every` is padded: dt = 0 neither decays the state nor adds to it
        x, dt, B, C, reset = (_spread(t, save_every, spare) for t in (x, dt, B, C, reset))
    y, states = scan(x, dt, A, B, C, state, reset, chunk)
    if spare:
        y = y.unflatten(1, (-1, chunks * chunk))[:, :, :save_every].flatten(1, 2)[:, :L]
    ends = boundaries(L, save_every)
    return y, gather_boundaries(states, [end // save_every * chunks + end % save_every // chunk for end in ends])


def _spread(x: Tensor, every: int, spare: int) -> Tensor:
    """(b, L, ...) with `spare` zeros after each `every` positions; L is padded to a multiple of `every` first."""
    others = (0, 0) * (x.ndim - 2)
    parts = F.pad(x, (*others, 0, -x.shape[1] % every)).unflatten(1, (-1, every))
    return F.pad(parts, (*others, 0, spare)).flatten(1, 2)


def chunk_length(save_every: int, most: int) -> int:
    """The length of as few chunks as `save_every` positions can be cut into, `most` each; the last may be shorter."""
    return -(-save_every // -(-save_every // most))
