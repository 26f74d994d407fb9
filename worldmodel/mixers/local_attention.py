"""Dense attention over the last k frames, all tokens of each (arXiv 2505.20171, section 3.3, chunks of one frame).

Blocked so that cost is linear in T: c query frames at a time see c + k - 1 key frames. Distance in frames enters by a
fixed slope on the scores of each head (ALiBi, Press et al. 2022, arXiv 2108.12409).
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel import cpu
from worldmodel.boundaries import boundaries
from worldmodel.mixers.base import Mixer


class Attention(Mixer):
    """Memory: keys and values of the last k - 1 frames, and which of them are there."""

    def __init__(self, width: int, tokens: int, frames: int, heads: int):
        super().__init__()
        self.tokens, self.frames, self.heads = tokens, frames, heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def initial(self, batch: int) -> TensorDict:
        """No frame is there: `there` (B, k - 1) is false."""
        k, D = self.frames - 1, self.out.in_features
        zeros = self.out.weight.new_zeros(batch, k, self.tokens, 2 * D)
        there = torch.zeros(batch, k, dtype=torch.bool, device=zeros.device)
        return TensorDict({"kv": zeros, "there": there}, batch_size=[batch])

    def forward(self, x: Tensor, memory: TensorDict, reset: Tensor, state_interval: int) -> tuple[Tensor, TensorDict]:
        """See `Mixer`."""
        B, T, N, D = x.shape
        k = self.frames
        q, kv = self.qkv(x).split([D, 2 * D], -1)
        past = torch.cat([memory["kv"].to(kv.dtype), kv], 1)  # (B, k - 1 + T, N, 2D)
        segment = reset.cumsum(1)  # (B, T)
        # frames that are not there get a segment that no query has
        segments = torch.cat([memory["there"].long() - 1, segment], 1)  # (B, k - 1 + T)

        y = self._attend(q, past, segment, segments)
        ends = boundaries(T, state_interval)
        # the k - 1 frames up to each end: (B, K, k - 1, ...)
        memories = {
            "kv": torch.stack([past[:, end + 1 : end + k] for end in ends], 1).to(memory["kv"].dtype),
            "there": torch.stack([segments[:, end + 1 : end + k] == segment[:, end, None] for end in ends], 1),
        }
        return self.out(y), TensorDict(memories, batch_size=[B, len(ends)])

    @abstractmethod
    def _attend(self, q: Tensor, past: Tensor, segment: Tensor, segments: Tensor) -> Tensor:
        """q (B, T, N, D) over past (B, k - 1 + T, N, 2D) -> (B, T, N, D)"""


class LocalAttention(Attention):
    """Over few frames."""

    slopes: Tensor

    def __init__(self, width: int, tokens: int, frames: int, heads: int):
        super().__init__(width, tokens, frames, heads)
        self.register_buffer("slopes", 2.0 ** (-4.0 * torch.arange(1, heads + 1) / heads), persistent=False)

    def _attend(self, q: Tensor, past: Tensor, segment: Tensor, segments: Tensor) -> Tensor:
        """See `Attention`."""
        B, T, N, D = q.shape
        k = self.frames
        c = min(k, T)
        blocks = -(-T // c)
        if pad := blocks * c - T:
            q, past = F.pad(q, (0, 0, 0, 0, 0, pad)), F.pad(past, (0, 0, 0, 0, 0, pad))
            # padded queries see themselves alone: an empty row of scores would be NaN
            segment, segments = F.pad(segment, (0, pad), value=-2), F.pad(segments, (0, pad), value=-2)

        keys = past.unfold(1, c + k - 1, c).permute(0, 1, 4, 2, 3)  # (B, blocks, c + k - 1, N, 2D)
        key, value = keys.reshape(B * blocks, (c + k - 1) * N, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        query = q.reshape(B * blocks, c * N, self.heads, -1).transpose(1, 2)

        at = torch.arange(k - 1, c + k - 1, device=q.device)[:, None]  # (c, 1): place of a query among the keys
        distance = at - torch.arange(c + k - 1, device=q.device)  # (c, c + k - 1), in frames
        near = (distance >= 0) & (distance < k)
        seen = segment.reshape(B, blocks, c, 1) == segments.unfold(1, c + k - 1, c).unsqueeze(2)
        bias = -self.slopes[:, None, None] * distance  # (heads, c, c + k - 1)
        bias = bias.masked_fill(~(seen & near).flatten(0, 1).unsqueeze(1), -torch.inf)
        bias = bias.to(q.dtype).repeat_interleave(N, 2).repeat_interleave(N, 3)

        attention = F.scaled_dot_product_attention if q.is_cuda else cpu.attention
        y = attention(query, key, value, bias)  # (B * blocks, heads, c * N, D / heads)
        return y.transpose(1, 2).reshape(B, blocks * c, N, D)[:, :T]
