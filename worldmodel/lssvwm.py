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
from worldmodel.base import Losses, Rows, State, Trajectory, WorldModel, finite_where
from worldmodel.heads import TokenMLP, TwoHot
from worldmodel.mamba2 import kept, pick
from worldmodel.mixers import GRU, S5, BlockSSM, CausalConv, FullAttention, LocalAttention, Mixer
from worldmodel.next_reward import Prediction, next_reward_head
from worldmodel.norm import moments
from worldmodel.remat import each_frame, mean_over_frames, through_memory
from worldmodel.tokenizer import ImageTokenizer, VectorTokenizer

STACKS: dict[str, tuple[str, ...]] = {
    "lssvwm": ("blocks", "local"),
    "mamba": ("raster",),
    "mamba-local": ("raster", "local"),
    "local": ("local",),
    "transformer": ("full",),
    "gru": ("gru", "local"),
    "s5": ("s5", "local"),
}
"""The mixers of each layer, by the model's name; the models differ in nothing else.

blocks: the block-wise scan; raster: one scan over all tokens; local and full: attention over few frames and many;
gru and s5: another recurrence in the scan's place, over each token. `local` may be a convolution.
"""
SCANS = {"blocks", "raster", "s5"}
"""The mixers that `expand`, `head_width` and `state` are of."""


@dataclass
class LSSVWMConfig:
    """Long-context state-space video world model (arXiv 2505.20171) with categorical latents."""

    name: str = "lssvwm"
    """World model, by name."""
    latents: int = 64
    """Categorical variables of a frame, shared out evenly over its tokens."""
    classes: int = 32
    """Classes of each categorical variable."""
    tokenizer_width: int = 128
    """Width of a token in the encoder and in the decoder: E."""
    tokenizer_layers: int = 2
    """Layers of an image's encoder, and of its decoder."""
    tokenizer_apart: bool = False
    """Decode latents alone, and teach them nothing through what memory reads; reward, continue, KL still reach them."""
    width: int = 128
    """Width of a token in the backbone: D."""
    layers: int = 2
    """Layers of the backbone: block-wise scan, local attention, MLP."""
    mlp: float = 3.0
    """Inner width of a layer's MLP, in widths."""
    blocks: tuple[tuple[int, int], ...] = ((2, 2),)
    """Spatial block (height, width) of each layer's scan, in tokens; cycles by layer."""
    block_frames: int = 16
    """Frames between two States that are kept: where dreams start and states are regularised."""
    checkpoint_frames: int = 0
    """Frames whose activations are held at once, computed again for gradients; 0 holds a window's."""
    blind_windows: float = 0.0
    """Share of training's windows of which memory reads a beginning of random length alone: the rest is foretold."""
    pretrained: str = ""
    """Mamba-2 checkpoint (safetensors file or folder) whose first layers a new run's scans and norms start from."""
    expand: int = 2
    """Inner width of a scan, in widths."""
    head_width: int = 32
    """Width of one head of a scan: P; S5 has as many HiPPO blocks as Mamba-2 has heads."""
    state: int = 32
    """State size of a scan: S; of each HiPPO block in S5. (The state of the GRU is as wide as a token.)"""
    local: Literal["attention", "conv"] = "attention"
    """Form of the local mixer: dense attention, or a causal depthwise convolution over the same frames."""
    local_frames: int = 4
    """Frames that the local mixer sees, the current one included."""
    full_frames: int = 256
    """Frames that full attention sees (transformer), the current one included; each State holds them all."""
    heads: int = 4
    """Heads of attention."""
    units: int = 256
    """Width of the reward and continue networks."""
    next_reward: bool = False
    """Predict the reward of each action before the next frame is drawn, and show it in features and State."""
    cosine_similarity: bool = False
    """Let the next-reward head read how similar the frame is to what memory expects of the next one."""
    unimix: float = 0.01
    """Share of the uniform distribution mixed into every categorical."""
    free_nats: float = 1.0
    """KL below which dynamics and representation losses stop."""
    reconstruction_weight: float = 1.0
    """Weight of the squared error of the decoded frame, summed over its values."""
    perceptual_weight: float = 1.0
    """Weight of 1 - SSIM of the decoded frame (images alone)."""
    dynamics_weight: float = 1.0
    """Weight of the KL that moves the prior."""
    next_latent_weight: float = 0.5
    """Weight of the KL of a second prior, of frame t + 1 by h_t, so that h_t holds what memory has for it; 0: none."""
    representation_weight: float = 0.1
    """Weight of the KL that moves the posterior."""
    reward_weight: float = 1.0
    """Weight of the reward's two-hot cross-entropy."""
    next_reward_weight: float = 1.0
    """Weight of the next-reward head's squared error, in symlog."""
    continue_weight: float = 1.0
    """Weight of the continue flag's binary cross-entropy."""
    state_weight: float = 1e-3
    """Weight of the pull of scan states toward a standard normal."""


class LSSVWM(WorldModel):
    """See the module's docstring; `shape` is that of one observation, `actions` the width of an action."""

    def __init__(self, config: LSSVWMConfig, shape: tuple[int, ...], actions: int):
        super().__init__()
        self.config, self.actions = config, actions
        image = len(shape) == 3
        grid = ImageTokenizer.grid if image else VectorTokenizer.grid
        self.tokens = grid[0] * grid[1]
        if config.latents % self.tokens:
            raise ValueError(f"{config.latents} latents cannot be shared out over {self.tokens} tokens evenly")
        self.groups = config.latents // self.tokens
        self.latent_width = self.groups * config.classes
        self.feature_width = config.width + (1 + actions) * config.next_reward + self.latent_width
        self.decoded_width = self.latent_width if config.tokenizer_apart else self.feature_width
        self.tokenizer: ImageTokenizer | VectorTokenizer
        if image:
            self.tokenizer = ImageTokenizer(shape, config.tokenizer_width, config.tokenizer_layers, self.decoded_width)
        else:
            self.tokenizer = VectorTokenizer(shape, config.tokenizer_width, self.decoded_width)
        self.posterior = nn.Linear(config.tokenizer_width, self.latent_width)
        # logits spread from the start: near-uniform samples tell the decoder little, and stay so for long
        nn.init.normal_(self.posterior.weight, std=2 / config.tokenizer_width**0.5)
        self.backbone = Backbone(self.latent_width, actions, self.tokens, config.width, self._layers(grid), config.mlp)
        self.prior = self._prior_head()
        self.next_prior = self._prior_head() if config.next_latent_weight else None
        self.twohot = TwoHot()
        self.reward_head = TokenMLP(self.tokens, self.feature_width, len(self.twohot.bins), config.units)
        self.twohot.begin(self.reward_head.out)
        self.continue_head = TokenMLP(self.tokens, self.feature_width, 1, config.units, scale=1.0)
        self.next_reward = next_reward_head(config, self.tokens, config.width, self.latent_width, actions, config.units)

    def _prior_head(self) -> nn.Sequential:
        width = self.config.width
        return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, self.latent_width))

    def _layers(self, grid: tuple[int, int]) -> list[list[Mixer]]:
        c = self.config
        # a vector is one token: any block covers it
        blocks = c.blocks if grid != (1, 1) else ((1, 1),)

        scan = (c.expand, c.head_width, c.state)
        local: dict[str, Callable[[], Mixer]] = {
            "attention": lambda: LocalAttention(c.width, self.tokens, c.local_frames, c.heads),
            "conv": lambda: CausalConv(c.width, grid, c.local_frames),
        }
        mixers: dict[str, Callable[[tuple[int, int]], Mixer]] = {
            "blocks": lambda block: BlockSSM(c.width, grid, block, *scan),
            "raster": lambda _: BlockSSM(c.width, grid, grid, *scan),
            "gru": lambda _: GRU(c.width, self.tokens),
            "s5": lambda _: S5(c.width, self.tokens, *scan),
            "local": lambda _: local[c.local](),
            "full": lambda _: FullAttention(c.width, self.tokens, c.full_frames, c.heads),
        }
        return [[mixers[kind](block) for kind in STACKS[c.name]] for block in islice(cycle(blocks), c.layers)]

    def initial(self, batch: int) -> State:
        """See `WorldModel`."""
        like = self.backbone.place
        state = {
            "memory": self.backbone.initial(batch),
            "h": like.new_zeros(batch, self.tokens, self.config.width),
            "z": like.new_zeros(batch, self.tokens, self.latent_width),
        }
        if self.next_reward is not None:
            state |= self.next_reward.initial(like, batch)
        return TensorDict(state, batch_size=[batch])

    def observe(self, rows: Rows, state: State, mode: bool = False) -> Trajectory:
        """See `WorldModel`."""
        return self._observe(rows, state, mode).trajectory

    def _observe(self, rows: Rows, state: State, mode: bool, unread: Tensor | None = None) -> "_Observed":
        """`unread` (B, T): rows at which memory does not read the frame before."""
        B, T = rows.batch_size
        segment = self.config.checkpoint_frames
        logits = self.posterior(each_frame(self.tokenizer.encode, rows.observation, segment))
        posterior = self._log_probs(logits)
        z = latents.sample(posterior, mode).flatten(-2).to(logits.dtype)  # (B, T, N, Z); zeros and ones
        state = finite_where(state, rows.is_first[:, 0])
        first = rows.is_first.unsqueeze(-1)  # (B, T, 1); what stands before a first row is no input to it
        read = z.detach() if self.config.tokenizer_apart else z
        before = torch.cat([state["z"].unsqueeze(1).to(z.dtype), read[:, :-1]], 1)
        before = before.masked_fill((first if unread is None else first | unread.unsqueeze(-1)).unsqueeze(-1), 0.0)
        action = rows.action.masked_fill(first, 0.0)
        block = self.config.block_frames
        h, memories = through_memory(self.backbone, before, action, state["memory"], rows.is_first, block, segment)
        h = h.to(z.dtype)
        next_prior = None if self.next_prior is None else self._log_probs(self.next_prior(h))
        frames, reward = {"h": h, "z": z}, None
        if self.next_reward is not None:
            reward = self.next_reward.observe(h, read, self._expected(next_prior, z), action, first, state)
            frames |= {"predicted_reward": reward.predicted_reward.detach(), "next_reward": reward.next_reward.detach()}
        ends = kept(T, block)
        kept_frames = {name: pick(x, ends).to(state[name].dtype) for name, x in frames.items()}
        starts = TensorDict({"memory": memories} | kept_frames, batch_size=[B, len(ends)])
        trajectory = Trajectory(self._feature(frames), starts, torch.tensor(ends, device=z.device), starts[:, -1])
        return _Observed(trajectory, h, posterior, next_prior, reward)

    def _unread(self, rows: Rows) -> Tensor | None:
        """(B, T): from a frame drawn at random on in `blind_windows` of training's windows. Where a frame follows a
        clean beginning with noise in diffusion forcing (Chen et al. 2024, arXiv 2407.01392), latents are hidden."""
        if not (self.training and self.config.blind_windows):
            return None
        B, T = rows.batch_size
        draw = torch.rand(2, B, 1, device=rows.is_first.device)
        return (draw[0] < self.config.blind_windows) & (torch.arange(1, T + 1, device=draw.device) > draw[1] * T)

    def _expected(self, next_prior: Tensor | None, like: Tensor) -> Tensor | None:
        """The next frame's expected latents (..., N, Z), for the cosine of the next-reward head, if it asks for them."""
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

    def dream(self, state: State, action: Tensor, mode: bool = False) -> State:
        """See `WorldModel`."""
        reset = torch.zeros(len(action), 1, dtype=torch.bool, device=action.device)
        h, memories = self.backbone(state["z"].unsqueeze(1), action.unsqueeze(1), state["memory"], reset, 1)
        z = latents.sample(self._log_probs(self.prior(h[:, 0])), mode).flatten(-2)
        h = h[:, 0].to(z.dtype)
        frame = {"h": h, "z": z}
        if self.next_reward is not None:
            cosine = self.next_prior is not None and self.config.cosine_similarity
            expected = self._expected(self._log_probs(self.next_prior(h)), z) if cosine else None
            frame |= self.next_reward.dream(h, z, expected, action, state)
        return TensorDict({"memory": memories[:, 0]} | frame, batch_size=[len(action)])

    def blind(self, state: State) -> State:
        """See `WorldModel`."""
        if not self.config.blind_windows:
            return state
        return state.clone(recurse=False).set("z", torch.zeros_like(state["z"]))

    def feature(self, state: State) -> Tensor:
        """See `WorldModel`."""
        return self._feature(state)

    def loss(self, rows: Rows, state: State) -> tuple[Losses, Trajectory, dict[str, Tensor]]:
        """See `WorldModel`; the names are those of `weights`."""
        if self.training:
            self.tokenizer.update(rows.observation)
        trajectory, h, posterior, next_prior, reward = self._observe(rows, state, False, self._unread(rows))
        feature = trajectory.feature
        prior = self._log_probs(self.prior(h))
        dynamics, representation, surprise = latents.balanced_kl(posterior, prior, self.config.free_nats)
        reconstruction, perceptual = mean_over_frames(
            self.tokenizer.losses, feature[..., -self.decoded_width :], rows.observation, self.config.checkpoint_frames
        )
        rewards = self.reward_head(feature)
        continues = (~rows.terminated).to(rewards.dtype)
        going = self.continue_head(feature).squeeze(-1)
        # a first row's reward is of what came before, in rows whose past replay has cut off, where it is not 0
        follows = (~rows.is_first).to(rewards.dtype)
        regular, figures = self._state_losses(trajectory.starts)
        losses = {
            "reconstruction": reconstruction,
            "perceptual": perceptual,
            "dynamics": dynamics,
            "representation": representation,
            "reward": (self.twohot.loss(rewards, rows.reward) * follows).mean(),
            "continue": nn.functional.binary_cross_entropy_with_logits(going, continues),
            "state": regular,
        }
        if next_prior is not None:
            losses["next_latent"] = latents.next_latent_kl(posterior, next_prior, follows)
        if self.next_reward is not None and reward is not None:
            losses["next_reward"] = self.next_reward.loss(reward.previous, rows.action, rows.reward, follows)
        figures["surprise"] = surprise
        figures["entropy/posterior"] = -(posterior.exp() * posterior).sum((-1, -2, -3)).mean().detach()
        return losses, trajectory, figures

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

    def surprise(self, rows: Rows, state: State) -> Tensor:
        """See `WorldModel`; latents are at their mode."""
        observed = self._observe(rows, state, mode=True)
        return latents.kl(observed.posterior, self._log_probs(self.prior(observed.h)))

    def weights(self) -> dict[str, float]:
        """See `WorldModel`."""
        names = ["reconstruction", "perceptual", "dynamics", "representation", "reward", "continue", "state"]
        names += ["next_latent"] * (self.next_prior is not None) + ["next_reward"] * (self.next_reward is not None)
        return {name: getattr(self.config, f"{name}_weight") for name in names}

    def decode(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.tokenizer.decode(feature[..., -self.decoded_width :])

    def reward(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.twohot.mean(self.reward_head(feature))

    def continues(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.continue_head(feature).squeeze(-1).sigmoid()

    def _log_probs(self, logits: Tensor) -> Tensor:
        """(..., N, Z) -> (..., N, G, C)"""
        return latents.log_probs(logits.unflatten(-1, (self.groups, self.config.classes)), self.config.unimix)


class _Observed(NamedTuple):
    """What observing gives, with what losses are made of."""

    trajectory: Trajectory
    h: Tensor  # (B, T, N, W)
    posterior: Tensor  # (B, T, N, G, C): log probabilities
    next_prior: Tensor | None  # the same of the next frame, by h
    reward: Prediction | None
