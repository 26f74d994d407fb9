"""The state-space scan of Mamba-2: state-space duality (Dao & Gu 2024, arXiv 2405.21060, section 6).

The recurrence, for each sequence and head::

    s_i = exp(dt_i A) s_{i-1} + dt_i x_i B_i^T        s_i: (P, S);  s_{i-1} = 0 where reset_i
    y_i = s_i C_i

Letters (with the paper's): b sequences, L positions, H heads, P head width, S state size (N in the paper),
Q chunk length, c chunks. B and C are shared by all heads (the paper's multi-value attention, one group).

Cost and memory are linear in L: (Q x Q) products inside a chunk, one (P x S) state a chunk.
"""

import logging
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

log = logging.getLogger(__name__)


def scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, reset: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """The scan from an initial state, by the fastest implementation for the tensors' device.

    x (b, L, H, P); dt (b, L, H) positive; A (H,) negative; B and C (b, L, S); state (b, H, P, S), float32 or
    wider; reset (b, L) bool: the state before that position is forgotten. L need not divide by `chunk`.

    Returns y (b, L, H, P) in x's type and the states (b, c, H, P, S) after each chunk's last position.
    """
    _report(x.device.type)
    if has_kernel(x.is_cuda):
        return scan_kernel(x, dt, A, B, C, state, reset, chunk)
    return scan_torch(x, dt, A, B, C, state, reset, chunk)


def scan_torch(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, reset: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """The chunked scan in pure torch, on any device; arguments and results as `scan`."""
    b, L, H, P = x.shape
    if L == 1:
        return _scan_one(x, dt, A, B, C, state, reset)
    S = B.shape[-1]
    Q = min(chunk, L)
    c = -(-L // Q)
    pad = c * Q - L
    if pad:  # dt = 0 neither decays the state nor adds to it
        x, dt, B, C = (F.pad(t, (0, 0) * (t.ndim - 2) + (0, pad)) for t in (x, dt, B, C))
        reset = F.pad(reset, (0, pad))

    x = x.reshape(b, c, Q, H, P)
    B, C = B.reshape(b, c, Q, S), C.reshape(b, c, Q, S)
    dt = dt.to(state.dtype).reshape(b, c, Q, H)
    decay = (dt * A.to(state.dtype)).cumsum(2)  # (b, c, Q, H): log of the decay since the chunk's start
    segment = reset.reshape(b, c, Q).cumsum(2)  # (b, c, Q): resets met since the chunk's start
    unbroken = (segment == 0).to(state.dtype).unsqueeze(-1)  # (b, c, Q, 1)
    to_end = (segment == segment[:, :, -1:]).to(state.dtype).unsqueeze(-1)  # (b, c, Q, 1)

    # inside a chunk: y_i = sum over j <= i of the same segment
    causal = torch.ones(Q, Q, dtype=torch.bool, device=x.device).tril()
    same = (segment.unsqueeze(-1) == segment.unsqueeze(-2)) & causal  # (b, c, Q, Q)
    decay_h = decay.transpose(2, 3)  # (b, c, H, Q)
    gap = decay_h.unsqueeze(-1) - decay_h.unsqueeze(-2)  # (b, c, H, Q, Q)
    weight = gap.masked_fill(~same.unsqueeze(2), -torch.inf).exp() * dt.transpose(2, 3).unsqueeze(-2)
    score = C @ B.transpose(-1, -2)  # (b, c, Q, Q)
    inside = (score.unsqueeze(2) * weight).to(x.dtype) @ x.transpose(2, 3)  # (b, c, H, Q, P)

    # each chunk's own contribution to the state at its end
    late = (decay[:, :, -1:] - decay).exp() * dt * to_end  # (b, c, Q, H)
    late_x = (x * late.to(x.dtype).unsqueeze(-1)).reshape(b, c, Q, H * P)
    added = (late_x.transpose(-1, -2) @ B).reshape(b, c, H, P, S).to(state.dtype)
    carried = decay[:, :, -1].exp() * unbroken[:, :, -1]  # (b, c, H)

    befores, states = [], []
    # unbound at once: the gradient of each x[:, i] would be as large as x
    for new, share in zip(added.unbind(1), carried[..., None, None].unbind(1), strict=True):
        befores.append(state)
        state = torch.addcmul(new, state, share)
        states.append(state)
    before = _stack(befores).reshape(b, c, H * P, S)

    # what came before the chunk
    outside = (C @ before.to(C.dtype).transpose(-1, -2)).reshape(b, c, Q, H, P)
    outside = outside * (decay.exp() * unbroken).to(x.dtype).unsqueeze(-1)
    y = (inside.transpose(2, 3) + outside).reshape(b, c * Q, H, P)[:, :L]
    return y.to(x.dtype), _stack(states)


def _stack(states: list[Tensor]) -> Tensor:
    """(b, ...) each -> (b, c, ...); of one, which is what dreaming and acting have, without a copy."""
    return torch.stack(states, 1) if len(states) > 1 else states[0].unsqueeze(1)


def _scan_one(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    """`scan_torch` of one position: the recurrence itself, which acting and dreaming run once a frame."""
    dt = dt[:, 0].to(state.dtype)  # (b, H)
    decay = (dt * A.to(state.dtype)).exp() * ~reset  # (b, H)
    written = dt.unsqueeze(-1) * x[:, 0].to(state.dtype)  # (b, H, P)
    # states are large: each line goes over them once, and one alone is allocated
    added = written.unsqueeze(-1) * B.to(state.dtype).unsqueeze(1)  # (b, H, P, S)
    state = added.addcmul_(state, decay[..., None, None])
    with torch.autocast(x.device.type, enabled=False):  # which would copy the state in half precision
        y = state.flatten(1, 2) @ C.to(state.dtype).transpose(1, 2)  # (b, H * P, 1)
    return y.view_as(x).to(x.dtype), state.unsqueeze(1)


def scan_kernel(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, reset: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """mamba-ssm's fused CUDA kernel; arguments and results as `scan`.

    The kernel gives back only the state after the last position, so it is called once a chunk, each call
    starting from the state before it. Its `seq_idx` counts sequences from 0 = the initial state's own.
    """
    kernel = _kernel()
    if kernel is None:
        raise RuntimeError("mamba-ssm is not installed: pip install 'lssvwm[cuda]' on a machine with nvcc")
    ys, states = [], []
    for start in range(0, x.shape[1], chunk):
        part = slice(start, start + chunk)
        y, state = kernel(
            x[:, part].contiguous(),
            dt[:, part].float().contiguous(),
            A.float(),
            B[:, part].unsqueeze(2).to(x.dtype).contiguous(),
            C[:, part].unsqueeze(2).to(x.dtype).contiguous(),
            chunk_size=kernel_chunk(chunk),
            initial_states=state,
            seq_idx=reset[:, part].cumsum(1).int().contiguous(),
            return_final_states=True,
        )
        ys.append(y)
        states.append(state)
    return torch.cat(ys, 1), torch.stack(states, 1)


def longest_chunk(cuda: bool) -> int:
    """Positions of a chunk at most, for the quickest scan on, or off, a GPU.

    The kernel is called once a chunk; in pure torch the products of long chunks take the more time, and memory.
    """
    return 256 if has_kernel(cuda) else 32


def kernel_chunk(positions: int) -> int:
    """The chunk size to give the kernel for calls of so many positions: a power of two in 16..256.

    With others NaN was met (state-spaces/mamba, issue 449). One beyond the positions changes nothing: the kernel's
    loads and stores stop at the sequence's end.
    """
    return min(256, max(16, 1 << (positions - 1).bit_length()))


@cache
def _kernel() -> Callable[..., tuple[Tensor, Tensor]] | None:
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError:
        return None
    return mamba_chunk_scan_combined


def has_kernel(cuda: bool) -> bool:
    """Whether mamba-ssm's kernel serves tensors on, or off, a GPU."""
    return cuda and _kernel() is not None


def implementation(cuda: bool) -> str:
    """Which scan serves tensors on, or off, a GPU, in words."""
    return "mamba-ssm kernel" if has_kernel(cuda) else "pure torch"


@cache
def _report(device: str) -> None:
    log.info("state-space scan: %s on %s", implementation(device == "cuda"), device)
