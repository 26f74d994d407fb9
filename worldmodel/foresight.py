"""The reward that each action would bring, told from a frame's feature before one is taken.

Letters: N tokens, W width of h, Z width of a token's latents, A actions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.heads import TokenMLP

LOUD = 4.0
"""Of numbers that matter beside many more around 1: foreseen rewards in a feature, likeness among what tells them."""


class NextReward(nn.Module):
    """(h, z, the next frame's expected latents) -> the reward after, linear in the action; all numbers in symlog.

    What is seen is compared with what is remembered: each token of the frame with all that memory expects of the next
    one, by the cosine of one learnt embedding of both, `HEADS` times; the likest counts. Alike latents have like
    embeddings from the first update on, so that "the same as", wherever it was, takes few rewards to learn; a network
    that is given both side by side has to find it out for each pair of values, and of places.
    """

    WIDTH, HEADS = 64, 4  # of the embedding
    LEAST = 0.01  # weight of a row in which no reward is foreseen

    def __init__(self, tokens: int, width: int, latent_width: int, actions: int, units: int):
        super().__init__()
        self.embed = nn.Linear(latent_width, self.WIDTH, bias=False)
        self.read = TokenMLP(tokens, width + latent_width + self.HEADS, 1 + actions, units)

    def forward(self, h: Tensor, z: Tensor, expected: Tensor) -> Tensor:
        """(..., N, W), (..., N, Z) and (..., N, Z) -> (..., 1 + A): a constant, and what each action adds."""
        return self.read(torch.cat([h, z, LOUD * self.likeness(z, expected).to(z.dtype)], -1))

    def likeness(self, z: Tensor, expected: Tensor) -> Tensor:
        """(..., N, Z) twice -> (..., N, HEADS) in -1..1: of each token seen to the likest of those expected."""
        seen, coming = (
            F.normalize(self.embed(x).float().unflatten(-1, (self.HEADS, -1)).movedim(-2, -3), dim=-1)
            for x in (z, expected)
        )
        return (seen @ coming.mT).amax(-1).mT

    @staticmethod
    def after(told: Tensor, action: Tensor) -> Tensor:
        """What `forward` gives and actions (..., A) -> (...): the reward after, symlog."""
        return told[..., 0] + (action * told[..., 1:]).sum(-1)

    def loss(self, told: Tensor, action: Tensor, reward: Tensor, counts: Tensor) -> Tensor:
        """The squared error () of `after`; reward (...) in symlog, and 1 in counts (...) where a row counts, else 0.

        Rows count by the largest reward that was foreseen in them, whatever the action taken: where rewards are rare,
        the many rows in which nothing can be earned would drown the few in which something can. (Weighed by rewards
        met as well, the error would be least at too large an expectation.)
        """
        weight = counts * ((told[..., :1] + told[..., 1:]).abs().amax(-1).detach() + self.LEAST)
        return (weight * (self.after(told, action) - reward) ** 2).sum() / weight.sum().clamp_min(1e-8)
