"""S5 over each token's time (Smith et al. 2022, arXiv 2208.04933): the memory of R2I (arXiv 2403.04253).

A linear system with many inputs and outputs whose state is diagonal and complex. With Lambda, B, C, D the
continuous system's and Delta a trained step for each state (section 3, zero-order hold)::

    s_t = A s_{t-1} + G u_t          A = exp(Lambda Delta), G = Lambda^{-1} (A - 1) B;  s_{t-1} = 0 where reset_t
    v_t = 2 Re(C s_t) + D u_t        conjugate pairs: one of each two states is kept
    y_t = v_t * sigmoid(W gelu(v_t))

It starts as HiPPO-N (appendix B.1): the normal part of HiPPO-LegS, in blocks, by its eigenvectors. Unlike Mamba-2's,
the system does not depend on its input. Frames are scanned in parallel.

Letters: B batch, T frames, N tokens, D width; S complex states kept of each token.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel.boundaries import boundaries, gather_boundaries
from worldmodel.mixers.base import Mixer


class S5(Mixer):
    """Memory: `ssm` (B, N, S, 2), the states' real and imaginary parts; weights are shared by the tokens.

    The state is `blocks` = expand * width / headdim HiPPO blocks of `state`, as Mamba-2 has heads of `state`:
    S = blocks * state / 2.
    """

    def __init__(self, width: int, tokens: int, expand: int = 2, headdim: int = 64, state: int = 128):
        super().__init__()
        blocks = expand * width // headdim
        self.tokens, self.states = tokens, blocks * state // 2
        self.state_width = 2 * self.states
        values, vectors = hippo_normal(state)
        self.log_decay = nn.Parameter((-values.real).log().float().repeat(blocks))  # negative: it never grows
        self.frequency = nn.Parameter(values.imag.float().repeat(blocks))
        # dense real matrices of the whole system, seen in its eigenvectors
        B = torch.randn(blocks, state, width) * width**-0.5
        C = torch.randn(width, blocks, state) * (blocks * state) ** -0.5
        B_in, C_in = vectors.mH @ B.to(vectors.dtype), C.to(vectors.dtype) @ vectors
        self.B = nn.Parameter(torch.view_as_real(B_in.flatten(0, 1)).float())  # (S, D, 2)
        self.C = nn.Parameter(torch.view_as_real(C_in.flatten(1)).float())  # (D, S, 2)
        self.D = nn.Parameter(torch.randn(width))
        self.log_step = nn.Parameter(torch.rand(self.states) * math.log(100.0) + math.log(1e-3))
        self.gate = nn.Linear(width, width)

    def initial(self, batch: int) -> TensorDict:
        """Zero states."""
        return TensorDict({"ssm": self.B.new_zeros(batch, self.tokens, self.states, 2)}, batch_size=[batch])

    def forward(self, x: Tensor, memory: TensorDict, reset: Tensor, state_interval: int) -> tuple[Tensor, TensorDict]:
        """See `Mixer`."""
        before = torch.view_as_complex(memory["ssm"].contiguous())
        A, G = self.discretised()
        # products of real matrices, each complex number as two
        u = F.linear(x, torch.view_as_real(G).transpose(1, 2).flatten(0, 1))  # (B, T, N, 2S)
        u = torch.view_as_complex(u.to(memory["ssm"].dtype).unflatten(-1, (-1, 2)))
        states = torch.view_as_real(scan(A, u, before, reset))  # (B, T, N, S, 2)
        readout = torch.stack([self.C[..., 0], -self.C[..., 1]], -1).flatten(1) * 2  # (D, 2S)
        y = F.linear(states.flatten(3), readout) + x * self.D.to(x.dtype)
        y = y * torch.sigmoid(self.gate(F.gelu(y)))
        ends = boundaries(x.shape[1], state_interval)
        return y, TensorDict({"ssm": gather_boundaries(states, ends)}, batch_size=[len(x), len(ends)])

    def recurrent_state(self, memory: TensorDict) -> Tensor:
        """See `Mixer`."""
        return memory["ssm"].flatten(-2)

    def discretised(self) -> tuple[Tensor, Tensor]:
        """A (S,) and G (S, D) of one frame: the input is held for the length of a step (zero-order hold)."""
        eigenvalues = torch.complex(-self.log_decay.exp(), self.frequency)
        A = (eigenvalues * self.log_step.exp()).exp()
        return A, ((A - 1) / eigenvalues).unsqueeze(-1) * torch.view_as_complex(self.B)


def hippo_normal(size: int) -> tuple[Tensor, Tensor]:
    """HiPPO-N's eigenvalues (size / 2,), one of each conjugate pair, and their eigenvectors (size, size / 2).

    HiPPO-N is -1/2 on the diagonal and antisymmetric off it (appendix B.1): i times it is Hermitian. complex128
    """
    root = (torch.arange(size, dtype=torch.float64) + 0.5).sqrt()
    product = torch.outer(root, root)
    antisymmetric = product.triu(1) - product.tril(-1)
    frequencies, vectors = torch.linalg.eigh(-1j * antisymmetric)  # ascending: pairs stand mirrored
    half = size // 2
    return torch.complex(torch.full_like(frequencies[half:], -0.5), frequencies[half:]), vectors[:, half:]


def scan(A: Tensor, u: Tensor, state: Tensor, reset: Tensor) -> Tensor:
    """s_t = A s_{t-1} + u_t for all t, in log2 T passes: (S,), (B, T, N, S), (B, N, S), (B, T) -> (B, T, N, S).

    Doubling (Hillis & Steele 1986): after pass i every s_t holds the last 2^i inputs. A reset before input t makes
    the factor in front of all that came before it zero.
    """
    return _Scan.apply(A, u, state, reset)


class _Scan(torch.autograd.Function):
    """The gradient of a linear recurrence is the same recurrence backwards in time: no pass is kept for it."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, u: Tensor, state: Tensor, reset: Tensor) -> Tensor:
        segment = F.pad(reset.cumsum(1), (1, 0))  # (B, 1 + T); the state before is of segment 0
        states = torch.cat([state.unsqueeze(1), u], 1)
        for step, power in _doublings(A, segment.shape[1]):
            states[:, step:] += _unbroken(segment, step, power) * states[:, :-step]
        ctx.save_for_backward(A, segment, states)
        return states[:, 1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        A, segment, states = ctx.saved_tensors
        onto = torch.cat([torch.zeros_like(gradient[:, :1]), gradient], 1)  # (B, 1 + T, N, S)
        for step, power in _doublings(A.conj(), segment.shape[1]):
            onto[:, :-step] += _unbroken(segment, step, power) * onto[:, step:]
        reached = _unbroken(segment, 1, torch.ones_like(A)) * onto[:, 1:]
        return (reached * states[:, :-1].conj()).sum((0, 1, 2)), onto[:, 1:], onto[:, 0], None


def _doublings(A: Tensor, length: int) -> list[tuple[int, Tensor]]:
    """(1, A), (2, A^2), (4, A^4) ... for steps below the length."""
    found, step = [], 1
    while step < length:
        found.append((step, A))
        step, A = 2 * step, A * A
    return found


def _unbroken(segment: Tensor, step: int, power: Tensor) -> Tensor:
    """`power` where no reset stands between a frame and the one `step` later, else 0. (B, length - step, 1, S)"""
    return (segment[:, step:] == segment[:, :-step])[..., None, None] * power
