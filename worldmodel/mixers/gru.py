"""A gated recurrent unit over each token's time (Cho et al. 2014, arXiv 1406.1078): the memory of Dreamer.

Weights are shared by the tokens, each of which has a state of its own: its output, as wide as a token. With the
weights' names of torch's nn.GRU::

    r_t = sigmoid(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
    u_t = sigmoid(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
    n_t = tanh(W_in x_t + b_in + r_t * (W_hn h_{t-1} + b_hn))
    h_t = (1 - u_t) * n_t + u_t * h_{t-1}                        h_{t-1} = 0 where reset_t
"""

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel.boundaries import boundaries, gather_boundaries
from worldmodel.mixers.base import Mixer


class GRU(Mixer):
    """Memory: `hidden` (B, N, D), the output of the frame before."""

    def __init__(self, width: int, tokens: int):
        super().__init__()
        self.tokens, self.state_width = tokens, width
        self.gru = nn.GRU(width, width)

    def initial(self, batch: int) -> TensorDict:
        """Zero states."""
        zeros = next(self.gru.parameters()).new_zeros(batch, self.tokens, self.gru.hidden_size)
        return TensorDict({"hidden": zeros}, batch_size=[batch])

    def forward(self, x: Tensor, memory: TensorDict, reset: Tensor, state_interval: int) -> tuple[Tensor, TensorDict]:
        """See `Mixer`."""
        B, T, N, _ = x.shape
        hidden = memory["hidden"]
        u = x.to(hidden.dtype).transpose(0, 1).flatten(1, 2)  # (T, B * N, D)
        # torch's loop cannot reset a state: it is called for each stretch between resets, which are rare
        cuts = [0, *(reset[:, 1:].any(0).nonzero().flatten() + 1).tolist(), T]
        ys = []
        for begin, end in zip(cuts, cuts[1:], strict=False):
            hidden = hidden.masked_fill(reset[:, begin, None, None], 0.0)
            y, _ = self.gru(u[begin:end], hidden.flatten(0, 1).unsqueeze(0))
            ys.append(y.to(hidden.dtype))
            hidden = y[-1].to(hidden.dtype).unflatten(0, (B, N))
        y = torch.cat(ys).unflatten(1, (B, N)).transpose(0, 1)
        ends = boundaries(T, state_interval)
        return y, TensorDict({"hidden": gather_boundaries(y, ends)}, batch_size=[B, len(ends)])

    def recurrent_state(self, memory: TensorDict) -> Tensor:
        """See `Mixer`."""
        return memory["hidden"]
