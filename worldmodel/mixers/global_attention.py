"""Dense causal attention over a long, bounded past: what a transformer world model remembers with.

Memory is the keys and values of every frame, so a State grows with the past that it holds; those of state-space models
do not. Distance in frames enters by rotary embedding (Su et al. 2021, arXiv 2104.09864).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.mixers.local_attention import Attention

QUERY_FRAMES = 16
"""Frames whose tokens are queries at once: scores and masks are linear in T."""


class GlobalAttention(Attention):
    """Over many more frames than `LocalAttention`."""

    def _attend(self, q: Tensor, past: Tensor, segment: Tensor, segments: Tensor) -> Tensor:
        """See `Attention`."""
        T, N = q.shape[1:3]
        k = self.frames
        key, value = past.unflatten(-1, (2, self.heads, -1)).unbind(-3)  # (B, k - 1 + T, N, heads, D / heads)
        place = torch.arange(k - 1 + T, device=q.device)
        key, query = rotate(key, place), rotate(q.unflatten(-1, (self.heads, -1)), place[k - 1 :])
        out = []
        for begin in range(0, T, QUERY_FRAMES):
            end = min(begin + QUERY_FRAMES, T)
            asks, keys = slice(begin, end), slice(begin, end + k - 1)
            distance = place[k - 1 :][asks, None] - place[keys]  # (queries, keys), in frames
            near = (distance >= 0) & (distance < k)
            seen = (segment[:, asks, None] == segments[:, None, keys]) & near  # (B, queries, keys)
            seen = seen.repeat_interleave(N, 1).repeat_interleave(N, 2).unsqueeze(1)
            a, b, c = (t.flatten(1, 2).transpose(1, 2) for t in (query[:, asks], key[:, keys], value[:, keys]))
            y = F.scaled_dot_product_attention(a, b, c, attn_mask=seen)  # (B, heads, queries * N, D / heads)
            out.append(y.transpose(1, 2).flatten(2).unflatten(1, (-1, N)))
        return torch.cat(out, 1)


def rotate(x: Tensor, place: Tensor) -> Tensor:
    """Turns pairs of values of x (B, T, ..., d), d even, by angles that grow with the place (T,) of their frame."""
    half = x.shape[-1] // 2
    wide = torch.promote_types(x.dtype, torch.float32)
    rates = 10_000.0 ** (-torch.arange(half, device=x.device, dtype=wide) / half)
    angle = (place[:, None] * rates).reshape(1, -1, *[1] * (x.ndim - 3), half)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
