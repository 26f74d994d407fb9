"""A memory of frames by place: what was seen where, for agents that move in space.

An integrator learns from actions alone how the body moves, and sums its motion to a pose (path integration). Each frame
observed is written under a key of its pose, by the delta rule (`mixers.delta_memory.gated_delta_rule`), and memory is
read at the pose that the next action leads to, before that frame is seen.

With frames flattened, z (N Z numbers), and their mean m over all that were observed, head h reads::

    r_h = S_h^T q_h - 1_h V m          S_h holds V z and a 1 at each key; 1_h is what is read of the 1

which is a read of `V (z - m)` with the mean of all frames so far, whatever the mean was when they were written. The
frame expected is `m + O (sum_h mix_h r_h + MLP(r, 1, V m, heading))`.

Letters: B batch, T frames, N tokens, Z of a token's latents, A actions, H heads, K boundaries, W actions that the
integrator reads, P values that are stored of a frame.
"""

import math

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel.boundaries import boundaries, gather_boundaries
from worldmodel.mixers.delta_memory import gated_delta_rule
from worldmodel.norm import RMSNorm

CHUNK = 64
"""Frames of a chunk of the delta rule at most."""


class Integrator(nn.Module):
    """Actions -> motion of the body in each step: (forward, sideways, turn), turn in radians.

    Linear in the action that led to a frame, and what the last W actions add; the latter is zero at first.
    """

    def __init__(self, actions: int, window: int = 6, hidden: int = 32):
        super().__init__()
        self.window = window
        self.linear = nn.Linear(actions, 3, bias=False)
        self.hidden = nn.Linear(window * actions, hidden)
        self.out = nn.Linear(hidden, 3, bias=False)
        nn.init.normal_(self.linear.weight, std=0.2)
        nn.init.normal_(self.hidden.weight, std=(1 / 8) ** 0.5)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.out.weight)

    def forward(self, actions: Tensor) -> Tensor:
        """(B, W - 1 + T, A), those before the first frame ahead -> (B, T, 3)"""
        windows = actions.unfold(1, self.window, 1).flatten(-2)  # (B, T, A W)
        return self.linear(actions[:, self.window - 1 :]) + self.out(F.silu(self.hidden(windows)))


def integrate(motion: Tensor, pose: Tensor, first: Tensor | None = None) -> Tensor:
    """Poses (B, T, 3), (x, y, heading), after each motion (B, T, 3), from a pose (B, 3); zero at each `first` (B, T).

    The body moves along its heading from before the turn of the same step.
    """
    if first is not None:
        motion = motion.masked_fill(first.unsqueeze(-1), 0.0)
    heading = _sum(motion[..., 2:], pose[:, 2:], first)
    before = heading - motion[..., 2:]
    cos, sin = before.cos(), before.sin()
    forward, sideways = motion[..., :1], motion[..., 1:2]
    steps = torch.cat([forward * cos - sideways * sin, forward * sin + sideways * cos], -1)
    return torch.cat([_sum(steps, pose[:, :2], first), heading], -1)


def _sum(x: Tensor, start: Tensor, first: Tensor | None) -> Tensor:
    """Sums over time of x (B, T, C), from start (B, C), or from 0 at each `first` (B, T); x is zero there."""
    total = x.cumsum(1)
    if first is None:
        return start.unsqueeze(1) + total
    index = torch.where(first, torch.arange(first.shape[1], device=x.device), -1).cummax(1).values.unsqueeze(-1)
    ahead = total.gather(1, index.clamp_min(0).expand_as(total))
    return torch.where(index >= 0, total - ahead, start.unsqueeze(1) + total)


class PlaceKeys(nn.Module):
    """Poses -> unit keys: cosines and sines of learnt linear maps of (x, y, cos heading, sin heading), for each head.

    Such keys have products that depend on the distance of two poses (random Fourier features, Rahimi & Recht 2007).
    """

    POSITION_SCALES, HEADING_SCALES = (0.7, 2.0), (0.5, 1.2)
    """Length scales of the heads at first, spread evenly in their logarithm."""

    def __init__(self, heads: int, d_k: int):
        super().__init__()

        def spread(scales: tuple[float, float]) -> Tensor:
            low, high = (math.log10(scale) for scale in scales)
            return torch.logspace(low, high, heads) if heads > 1 else torch.tensor([10 ** ((low + high) / 2)])

        weight = torch.randn(heads, 4, d_k // 2)
        weight[:, :2] /= spread(self.POSITION_SCALES)[:, None, None]
        weight[:, 2:] /= spread(self.HEADING_SCALES)[:, None, None]
        self.weight = nn.Parameter(weight)
        self.gain = nn.Parameter(torch.ones(heads, d_k // 2))

    def forward(self, pose: Tensor) -> Tensor:
        """(B, T, 3) -> (B, T, H, d_k)"""
        heading = pose[..., 2:]
        u = torch.cat([pose[..., :2], heading.cos(), heading.sin()], -1)
        angle = torch.einsum("btf,hfn->bthn", u, self.weight)
        return torch.cat([self.gain * angle.cos(), self.gain * angle.sin()], -1)


class PlaceMemory(nn.Module):
    """See the module's docstring.

    Memory: `fast_weights` (B, H, d_k, P + 1); `pose` (B, 3); `actions` (B, W - 1, A), the last ones; `total` (B, N Z)
    and `count` (B, 1) of the frames observed. All float32.
    """

    def __init__(
        self, tokens: int, latent_width: int, actions: int, heads: int, d_k: int, values: int, hidden: int = 256
    ):
        """
        Args:
            heads: each with keys of d_k numbers, of other length scales.
            values: numbers that are stored of a frame, P; at most N Z.
            hidden: width of the MLP.
        """
        super().__init__()
        if d_k % 2:
            raise ValueError(f"keys of {d_k} numbers: a cosine and a sine make a pair, so their number must be even")
        self.tokens, self.heads, self.d_k = tokens, heads, d_k
        self.frame = tokens * latent_width
        self.values = min(values, self.frame)
        self.integrator = Integrator(actions)
        self.keys = PlaceKeys(heads, d_k)
        self.value = nn.Linear(self.frame, self.values, bias=False)  # V
        self.unvalue = nn.Linear(self.values, self.frame, bias=False)  # O
        nn.init.orthogonal_(self.value.weight)
        with torch.no_grad():
            self.unvalue.weight.copy_(self.value.weight.T)
        self.beta = nn.Linear(self.frame, heads)
        nn.init.zeros_(self.beta.weight)
        nn.init.constant_(self.beta.bias, 2.0)  # 0.88: it writes from the start
        self.mix = nn.Parameter(torch.full((heads,), 1 / heads))
        inputs = heads * (self.values + 1) + self.values + 2
        out = nn.Linear(hidden, self.values)
        nn.init.zeros_(out.weight)
        nn.init.zeros_(out.bias)
        self.correction = nn.Sequential(RMSNorm(inputs, eps=1e-5), nn.Linear(inputs, hidden), nn.SiLU(), out)
        self.read_width = (heads + 2) * latent_width + heads + 2

    def initial(self, batch: int) -> TensorDict:
        """Zeros."""
        like = self.mix
        actions = self.integrator.linear.in_features
        memory = {
            "fast_weights": like.new_zeros(batch, self.heads, self.d_k, self.values + 1),
            "pose": like.new_zeros(batch, 3),
            "actions": like.new_zeros(batch, self.integrator.window - 1, actions),
            "total": like.new_zeros(batch, self.frame),
            "count": like.new_zeros(batch, 1),
        }
        return TensorDict(memory, batch_size=[batch])

    def forward(
        self, z: Tensor, action: Tensor, memory: TensorDict, reset: Tensor, state_interval: int
    ) -> tuple[Tensor, Tensor, TensorDict]:
        """Writes the frame before each, then reads at the pose after its action.

        Args:
            z: latents of the frame before each (B, T, N, Z); all zero where it was not observed: it is not written.
            action: (B, T, A), the one that leads to each frame. reset: (B, T).

        Returns what is read for each token (B, T, N, read_width), the frame's expected latents (B, T, N, Z), and the
        memories (B, K) at `boundaries(T, state_interval)`.
        """
        with torch.autocast(z.device.type, enabled=False):
            wide = memory["pose"].dtype
            z, action = z.to(wide).flatten(-2), action.to(wide)
            pose, actions = self._poses(action, memory, reset)
            observed = (z != 0).any(-1, keepdim=True).to(wide)  # (B, T, 1)
            total = _sum(z.masked_fill(reset.unsqueeze(-1), 0.0), memory["total"], reset)
            count = _sum(observed.masked_fill(reset.unsqueeze(-1), 0.0), memory["count"], reset)
            mean = total / count.clamp_min(1.0)

            before = torch.cat([memory["pose"].unsqueeze(1), pose[:, :-1]], 1)
            value = torch.cat([self.value(z), observed], -1).unsqueeze(2).expand(-1, -1, self.heads, -1)
            strength = self.beta(z).sigmoid() * observed  # (B, T, H)
            read, states = gated_delta_rule(
                self.keys(pose),
                self.keys(before),
                value,
                strength,
                torch.zeros_like(strength),
                memory["fast_weights"],
                reset,
                state_interval,
                CHUNK,
            )
            values, ones = read[..., :-1], read[..., -1:]  # (B, T, H, P), (B, T, H, 1)
            middle = self.value(mean)
            offset = values - ones * middle.unsqueeze(2)
            heading = torch.cat([pose[..., 2:].cos(), pose[..., 2:].sin()], -1)
            correction = self.correction(torch.cat([offset.flatten(2), ones.squeeze(-1), middle, heading], -1))
            guesses = torch.cat([offset, (self.mix @ offset + correction).unsqueeze(2)], 2)  # (B, T, H + 1, P)
            frames = torch.cat([self.unvalue(guesses), mean.unsqueeze(2)], 2).unflatten(-1, (self.tokens, -1))
            expected = frames[:, :, -2] + frames[:, :, -1]  # (B, T, N, Z)
            whole = torch.cat([ones.squeeze(-1), heading], -1).unsqueeze(2).expand(-1, -1, self.tokens, -1)
            found = torch.cat([frames.transpose(2, 3).flatten(-2), whole], -1)

            ends = boundaries(z.shape[1], state_interval)
            kept = {"pose": pose, "actions": actions, "total": total, "count": count}
            entries = {name: gather_boundaries(x, ends) for name, x in kept.items()}
            memories = TensorDict({"fast_weights": states, **entries}, batch_size=[len(z), len(ends)])
        return found, expected, memories

    def _poses(self, action: Tensor, memory: TensorDict, reset: Tensor) -> tuple[Tensor, Tensor]:
        """The pose of each frame (B, T, 3), and the last W - 1 actions (B, T, W - 1, A) up to it."""
        earlier = self.integrator.window - 1
        past = torch.cat([memory["actions"], action], 1)  # (B, W - 1 + T, A)
        segment = F.pad(reset.cumsum(1), (earlier, 0))  # of memory's: 0
        windows = past.unfold(1, earlier + 1, 1).mT  # (B, T, W, A)
        same = segment.unfold(1, earlier + 1, 1) == segment[:, earlier:].unsqueeze(-1)
        windows = windows * same.unsqueeze(-1)
        motion = self.integrator(windows.flatten(0, 1)).view(*action.shape[:2], 3)
        return integrate(motion, memory["pose"], reset), windows[:, :, 1:]
