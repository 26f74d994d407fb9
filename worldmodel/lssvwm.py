"""LSSVWM: the long-context state-space video world model (arXiv 2505.20171) with DreamerV3's categorical latents.

A tokenizer of patches gives a grid of categorical latents; a backbone of block-wise Mamba-2 scans and causal
local attention, carried over time without end, predicts the next frame's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel import latents
from worldmodel.backbone import Backbone
from worldmodel.base import Losses, ObserveOutput, SequenceBatch, State, WorldModel, reset_nonfinite
from worldmodel.boundaries import boundaries, gather_boundaries
from worldmodel.heads import TokenMLP, TwoHot
from worldmodel.mixers import GRU, S5, BlockSSM, CausalConv, GlobalAttention, LocalAttention, Mixer
from worldmodel.next_reward import Prediction, next_reward_head
from worldmodel.norm import moments
from worldmodel.remat import remat_backbone, remat_map, remat_mean
from worldmodel.tokenizer import ImageTokenizer, VectorTokenizer

LAYER_TYPES: dict[str, tuple[str, ...]] = {
    "lssvwm": ("block_scan", "local_attention"),
    "mamba": ("flat_scan",),
    "mamba-local": ("flat_scan", "local_attention"),
    "local": ("local_attention",),
    "transformer": ("global_attention",),
    "gru": ("gru", "local_attention"),
    "s5": ("s5", "local_attention"),
}
"""The mixers of each layer, by the model's name; the models differ in nothing else.

blocks: the block-wise scan; raster: one scan over all tokens; local and full: attention over few frames and many;
gru and s5: another recurrence in the scan's place, over each token. `local` may be a convolution.
"""
SCANS = {"block_scan", "flat_scan", "s5"}
"""The mixers that `expand`, `headdim` and `state` are of."""


@dataclass
class LSSVWMConfig:
    """Long-context state-space video world model (arXiv 2505.20171) with categorical latents."""

    name: str = "lssvwm"
    """World model, by name."""
    num_categoricals: int = 64
    """Categorical variables of a frame, shared out evenly over its tokens."""
    num_classes: int = 32
    """Classes of each categorical variable."""
    tokenizer_width: int = 128
    """Width of a token in the encoder and in the decoder: E."""
    tokenizer_layers: int = 2
    """Layers of an image's encoder, and of its decoder."""
    detach_latents: bool = False
    """Decode latents alone, and teach them nothing through what memory reads; reward, continue, KL still reach them."""
    d_model: int = 128
    """Width of a token in the backbone: D."""
    layers: int = 2
    """Layers of the backbone: block-wise scan, local attention, MLP."""
    mlp_ratio: float = 3.0
    """Inner width of a layer's MLP, in widths."""
    blocks: tuple[tuple[int, int], ...] = ((2, 2),)
    """Spatial block (height, width) of each layer's scan, in tokens; cycles by layer."""
    state_interval: int = 16
    """Frames between two States that are kept: where dreams start and states are regularised."""
    remat_frames: int = 0
    """Frames whose activations are held at once, computed again for gradients; 0 holds a window's."""
    open_loop_prob: float = 0.0
    """Share of training's windows of which memory reads a beginning of random length alone: the rest is foretold."""
    pretrained: str = ""
    """Mamba-2 checkpoint (safetensors file or folder) whose first layers a new run's scans and norms start from."""
    expand: int = 2
    """Inner width of a scan, in widths."""
    headdim: int = 32
    """Width of one head of a scan: P; S5 has as many HiPPO blocks as Mamba-2 has heads."""
    d_state: int = 32
    """State size of a scan: S; of each HiPPO block in S5. (The state of the GRU is as wide as a token.)"""
    local: Literal["attention", "conv"] = "attention"
    """Form of the local mixer: dense attention, or a causal depthwise convolution over the same frames."""
    local_frames: int = 4
    """Frames that the local mixer sees, the current one included."""
    global_frames: int = 256
    """Frames that full attention sees (transformer), the current one included; each State holds them all."""
    n_heads: int = 4
    """Heads of attention."""
    hidden: int = 256
    """Width of the reward and continue networks."""
    next_reward: bool = False
    """Predict the reward of each action before the next frame is drawn, and show it in features and State."""
    cosine_similarity: bool = False
    """Let the next-reward head read how similar the frame is to what memory expects of the next one."""
    unimix: float = 0.01
    """Share of the uniform distribution mixed into every categorical."""
    free_nats: float = 1.0
    """KL below which dynamics and representation losses stop."""
    reconstruction_scale: float = 1.0
    """Weight of the squared error of the decoded frame, summed over its values."""
    perceptual_scale: float = 1.0
    """Weight of 1 - SSIM of the decoded frame (images alone)."""
    dynamics_scale: float = 1.0
    """Weight of the KL that moves the prior."""
    next_latent_scale: float = 0.5
    """Weight of the KL of a second prior, of frame t + 1 by h_t, so that h_t holds what memory has for it; 0: none."""
    representation_scale: float = 0.1
    """Weight of the KL that moves the posterior."""
    reward_scale: float = 1.0
    """Weight of the reward's two-hot cross-entropy."""
    next_reward_scale: float = 1.0
    """Weight of the next-reward head's squared error, in symlog."""
    continue_scale: float = 1.0
    """Weight of the continue flag's binary cross-entropy."""
    state_scale: float = 1e-3
    """Weight of the pull of scan states toward a standard normal."""


class LSSVWM(WorldModel):
    """See the module's docstring; `shape` is that of one observation, `actions` the width of an action."""

    def __init__(self, config: LSSVWMConfig, shape: tuple[int, ...], actions: int):
        super().__init__()
        self.config, self.actions = config, actions
        image = len(shape) == 3
        grid = ImageTokenizer.grid if image else VectorTokenizer.grid
        self.tokens = grid[0] * grid[1]
        if config.num_categoricals % self.tokens:
            raise ValueError(f"{config.num_categoricals} latents cannot be shared out over {self.tokens} tokens evenly")
        self.groups = config.num_categoricals // self.tokens
        self.latent_width = self.groups * config.num_classes
        self.feature_width = config.d_model + (1 + actions) * config.next_reward + self.latent_width
        self.decoded_width = self.latent_width if config.detach_latents else self.feature_width
        self.tokenizer: ImageTokenizer | VectorTokenizer
        if image:
            self.tokenizer = ImageTokenizer(shape, config.tokenizer_width, config.tokenizer_layers, self.decoded_width)
        else:
            self.tokenizer = VectorTokenizer(shape, config.tokenizer_width, self.decoded_width)
        self.posterior = nn.Linear(config.tokenizer_width, self.latent_width)
        # logits spread from the start: near-uniform samples tell the decoder little, and stay so for long
        nn.init.normal_(self.posterior.weight, std=2 / config.tokenizer_width**0.5)
        self.backbone = Backbone(
            self.latent_width, actions, self.tokens, config.d_model, self._layers(grid), config.mlp_ratio
        )
        self.prior = self._prior_head()
        self.next_prior = self._prior_head() if config.next_latent_scale else None
        self.twohot = TwoHot()
        self.reward_head = TokenMLP(self.tokens, self.feature_width, len(self.twohot.bins), config.hidden)
        self.twohot.init_output(self.reward_head.out)
        self.continue_head = TokenMLP(self.tokens, self.feature_width, 1, config.hidden, scale=1.0)
        self.next_reward = next_reward_head(
            config, self.tokens, config.d_model, self.latent_width, actions, config.hidden
        )

    def _prior_head(self) -> nn.Sequential:
        width = self.config.d_model
        return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, self.latent_width))

    def _layers(self, grid: tuple[int, int]) -> list[list[Mixer]]:
        c = self.config
        # a vector is one token: any block covers it
        blocks = c.blocks if grid != (1, 1) else ((1, 1),)

        scan = (c.expand, c.headdim, c.d_state)
        local: dict[str, Callable[[], Mixer]] = {
            "attention": lambda: LocalAttention(c.d_model, self.tokens, c.local_frames, c.n_heads),
            "conv": lambda: CausalConv(c.d_model, grid, c.local_frames),
        }
        mixers: dict[str, Callable[[tuple[int, int]], Mixer]] = {
            "block_scan": lambda block: BlockSSM(c.d_model, grid, block, *scan),
            "flat_scan": lambda _: BlockSSM(c.d_model, grid, grid, *scan),
            "gru": lambda _: GRU(c.d_model, self.tokens),
            "s5": lambda _: S5(c.d_model, self.tokens, *scan),
            "local_attention": lambda _: local[c.local](),
            "global_attention": lambda _: GlobalAttention(c.d_model, self.tokens, c.global_frames, c.n_heads),
        }
        return [[mixers[kind](block) for kind in LAYER_TYPES[c.name]] for block in islice(cycle(blocks), c.layers)]

    def initial(self, batch: int) -> State:
        """See `WorldModel`."""
        like = self.backbone.pos_emb
        state = {
            "memory": self.backbone.initial(batch),
            "h": like.new_zeros(batch, self.tokens, self.config.d_model),
            "z": like.new_zeros(batch, self.tokens, self.latent_width),
        }
        if self.next_reward is not None:
            state |= self.next_reward.initial(like, batch)
        return TensorDict(state, batch_size=[batch])

    def observe(self, rows: SequenceBatch, state: State, sample: bool = True) -> ObserveOutput:
        """See `WorldModel`."""
        return self._observe(rows, state, sample).output

    def _observe(self, rows: SequenceBatch, state: State, sample: bool, unread: Tensor | None = None) -> "_Observed":
        """`unread` (B, T): rows at which memory does not read the frame before."""
        B, T = rows.batch_size
        segment = self.config.remat_frames
        logits = self.posterior(remat_map(self.tokenizer.encode, rows.observation, segment))
        posterior = self._log_probs(logits)
        z = latents.draw(posterior, sample).flatten(-2).to(logits.dtype)  # (B, T, N, Z); zeros and ones
        state = reset_nonfinite(state, rows.is_first[:, 0])
        first = rows.is_first.unsqueeze(-1)  # (B, T, 1); what stands before a first row is no input to it
        read = z.detach() if self.config.detach_latents else z
        before = torch.cat([state["z"].unsqueeze(1).to(z.dtype), read[:, :-1]], 1)
        before = before.masked_fill((first if unread is None else first | unread.unsqueeze(-1)).unsqueeze(-1), 0.0)
        action = rows.action.masked_fill(first, 0.0)
        block = self.config.state_interval
        h, memories = remat_backbone(self.backbone, before, action, state["memory"], rows.is_first, block, segment)
        h = h.to(z.dtype)
        next_prior = self._next_log_probs(h)
        frames, reward = {"h": h, "z": z}, None
        if self.next_reward is not None:
            reward = self.next_reward.observe(h, read, self._expected(next_prior, z), action, first, state)
            frames |= {"predicted_reward": reward.predicted_reward.detach(), "next_reward": reward.next_reward.detach()}
        ends = boundaries(T, block)
        kept_frames = {name: gather_boundaries(x, ends).to(state[name].dtype) for name, x in frames.items()}
        starts = TensorDict({"memory": memories} | kept_frames, batch_size=[B, len(ends)])
        output = ObserveOutput(self._feature(frames), starts, torch.tensor(ends, device=z.device), starts[:, -1])
        return _Observed(output, h, posterior, next_prior, reward)

    def _unread(self, rows: SequenceBatch) -> Tensor | None:
        """(B, T): from a frame drawn at random on in `open_loop_prob` of training's windows. Where a frame follows a
        clean beginning with noise in diffusion forcing (Chen et al. 2024, arXiv 2407.01392), latents are hidden."""
        if not (self.training and self.config.open_loop_prob):
            return None
        B, T = rows.batch_size
        draw = torch.rand(2, B, 1, device=rows.is_first.device)
        return (draw[0] < self.config.open_loop_prob) & (torch.arange(1, T + 1, device=draw.device) > draw[1] * T)

    def _next_log_probs(self, h: Tensor) -> Tensor | None:
        """Of the next frame's latents, (..., N, G, C), where the model has a prior of them."""
        return None if self.next_prior is None else self._log_probs(self.next_prior(h))

    def _expected(self, next_prior: Tensor | None, like: Tensor) -> Tensor | None:
        """The next frame\'s expected latents (..., N, Z), where the next-reward head compares with them."""
        if next_prior is None or not self.config.cosine_similarity:
            return None
        return next_prior.detach().exp().flatten(-2).to(like.dtype)

    def _feature(self, frame: Mapping[str, Tensor]) -> Tensor:
        """(..., N, F): h, the predicted rewards where the model has them, z."""
        h, z = frame["h"], frame["z"]
        if self.next_reward is None:
            return torch.cat([h, z], -1)
        rewards = self.next_reward.columns(frame["predicted_reward"], frame["next_reward"], z)
        return torch.cat([h, rewards, z], -1)

    def dream(self, state: State, action: Tensor, sample: bool = True) -> State:
        """See `WorldModel`."""
        reset = torch.zeros(len(action), 1, dtype=torch.bool, device=action.device)
        h, memories = self.backbone(state["z"].unsqueeze(1), action.unsqueeze(1), state["memory"], reset, 1)
        z = latents.draw(self._log_probs(self.prior(h[:, 0])), sample).flatten(-2)
        h = h[:, 0].to(z.dtype)
        frame = {"h": h, "z": z}
        if self.next_reward is not None:
            next_prior = self._next_log_probs(h) if self.config.cosine_similarity else None
            frame |= self.next_reward.dream(h, z, self._expected(next_prior, z), action, state)
        return TensorDict({"memory": memories[:, 0]} | frame, batch_size=[len(action)])

    def open_loop(self, state: State) -> State:
        """See `WorldModel`."""
        if not self.config.open_loop_prob:
            return state
        return state.clone(recurse=False).set("z", torch.zeros_like(state["z"]))

    def feature(self, state: State) -> Tensor:
        """See `WorldModel`."""
        return self._feature(state)

    def loss(self, rows: SequenceBatch, state: State) -> tuple[Losses, ObserveOutput, dict[str, Tensor]]:
        """See `WorldModel`; the names are those of `weights`."""
        if self.training:
            self.tokenizer.update(rows.observation)
        output, h, posterior, next_prior, reward = self._observe(rows, state, False, self._unread(rows))
        feature = output.feature
        prior = self._log_probs(self.prior(h))
        dynamics, representation, surprise = latents.balanced_kl(posterior, prior, self.config.free_nats)
        reconstruction, perceptual = remat_mean(
            self.tokenizer.losses, feature[..., -self.decoded_width :], rows.observation, self.config.remat_frames
        )
        rewards = self.reward_head(feature)
        continue_prob = (~rows.terminated).to(rewards.dtype)
        going = self.continue_head(feature).squeeze(-1)
        # a first row's reward is of what came before, in rows whose past replay has cut off, where it is not 0
        follows = (~rows.is_first).to(rewards.dtype)
        regular, figures = self._state_losses(output.start_states)
        losses = {
            "reconstruction": reconstruction,
            "perceptual": perceptual,
            "dynamics": dynamics,
            "representation": representation,
            "reward": (self.twohot.loss(rewards, rows.reward) * follows).mean(),
            "continue": nn.functional.binary_cross_entropy_with_logits(going, continue_prob),
            "state": regular,
        }
        if next_prior is not None:
            losses["next_latent"] = latents.next_latent_kl(posterior, next_prior, follows)
        if self.next_reward is not None and reward is not None:
            losses["next_reward"] = self.next_reward.loss(reward.previous, rows.action, rows.reward, follows)
        figures["kl"] = surprise
        figures["entropy/posterior"] = -(posterior.exp() * posterior).sum((-1, -2, -3)).mean().detach()
        return losses, output, figures

    def _state_losses(self, starts: State) -> tuple[Tensor, dict[str, Tensor]]:
        """KL(N(mean, var) || N(0, 1)) of the scan states at block boundaries, mean over layers; and their figures."""
        pulls, figures = [], {}
        memories = [starts["memory", str(i), "0"] for i in range(self.config.layers)]
        for i, s in enumerate(memory["ssm"] for memory in memories if "ssm" in memory.keys()):
            mean, var = moments(s)
            pulls.append(0.5 * (var + mean**2 - 1 - (var + 1e-6).log()))
            figures[f"state/{i}/mean"], figures[f"state/{i}/variance"] = mean.detach(), var.detach()
            figures[f"state/{i}/norm"] = torch.linalg.vector_norm(s.detach(), dim=tuple(range(2, s.ndim))).mean()
        return (torch.stack(pulls).mean() if pulls else starts["h"].new_zeros(())), figures

    def kl(self, rows: SequenceBatch, state: State) -> Tensor:
        """See `WorldModel`; latents are at their mode."""
        observed = self._observe(rows, state, sample=False)
        return latents.kl(observed.posterior, self._log_probs(self.prior(observed.h)))

    def loss_scales(self) -> dict[str, float]:
        """See `WorldModel`."""
        names = ["reconstruction", "perceptual", "dynamics", "representation", "reward", "continue", "state"]
        names += ["next_latent"] * (self.next_prior is not None) + ["next_reward"] * (self.next_reward is not None)
        return {name: getattr(self.config, f"{name}_scale") for name in names}

    def decode(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.tokenizer.decode(feature[..., -self.decoded_width :])

    def reward(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.twohot.mean(self.reward_head(feature))

    def continue_prob(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.continue_head(feature).squeeze(-1).sigmoid()

    def _log_probs(self, logits: Tensor) -> Tensor:
        """(..., N, Z) -> (..., N, G, C)"""
        return latents.log_probs(logits.unflatten(-1, (self.groups, self.config.num_classes)), self.config.unimix)


class _Observed(NamedTuple):
    """What observing gives, with what losses are made of."""

    output: ObserveOutput
    h: Tensor  # (B, T, N, W)
    posterior: Tensor  # (B, T, N, G, C): log probabilities
    next_prior: Tensor | None  # the same of the next frame, by h
    reward: Prediction | None
