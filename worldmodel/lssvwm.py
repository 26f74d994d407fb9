"""LSSVWM: the long-context state-space video world model (arXiv 2505.20171) with DreamerV3's categorical latents.

A tokenizer gives each frame a grid of categorical latents. A backbone of block-wise Mamba-2 scans and causal local
attention, whose memory is carried over time without end, predicts those of the next frame.

Other stacks of mixers in the backbone's place are the world models of `LAYER_TYPES`.

Letters: B batch, T frames, N tokens, D width of h, Z of a token's latents, G categoricals of a token, C classes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel import latents
from worldmodel.backbone import Backbone
from worldmodel.base import Losses, ObserveOutput, SequenceBatch, State, WorldModel, reset_nonfinite
from worldmodel.boundaries import gather_states
from worldmodel.checks import check_numbers
from worldmodel.heads import TokenMLP, TwoHot
from worldmodel.losses import ObservedWindow, latent_losses, loss_scales, reward_losses
from worldmodel.memory_feature import MemoryFeature
from worldmodel.mixers import GRU, S5, BlockSSM, CausalConv, DeltaMemory, GlobalAttention, LocalAttention, Mixer
from worldmodel.next_reward import NextReward, feature_columns, next_reward_errors
from worldmodel.remat import remat_backbone, remat_map, remat_mean
from worldmodel.tokenizer import ImageTokenizer, VectorTokenizer

LAYER_TYPES: dict[str, tuple[str, ...]] = {
    "lssvwm": ("block_scan", "local_attention"),
    "lssvwm-delta": ("block_delta", "local_attention"),
    "mamba": ("flat_scan",),
    "mamba-local": ("flat_scan", "local_attention"),
    "local": ("local_attention",),
    "transformer": ("global_attention",),
    "gru": ("gru", "local_attention"),
    "s5": ("s5", "local_attention"),
    "r2i-like": ("s5", "local_attention"),
    "drama-like": ("flat_scan",),
    "storm-like": ("global_attention",),
}
"""The mixers of each layer, by the model's name; the models differ in nothing else.

block_scan: Mamba-2 over each spatial block; block_delta: the gated delta rule in its place; flat_scan: one scan over
all tokens; local_attention and global_attention: over few frames and many; gru and s5: other recurrences in the scan's
place, over each token. The local mixer may be a convolution (`local`).
"""

NAMED_CONFIGS: dict[str, dict[str, Any]] = {
    # Samsami et al. 2024, arXiv 2403.04253: five layers of S5; nothing else reads earlier frames
    "r2i-like": dict(layers=5, d_model=512, num_categoricals=32, num_classes=32, n_heads=8, local_frames=1),
    # Wang et al. 2025, arXiv 2410.08893: two layers of Mamba-2
    "drama-like": dict(layers=2, d_model=512, d_state=16, headdim=64, num_categoricals=32, num_classes=32),
    # Zhang et al. 2023, arXiv 2310.09615: a transformer of two layers over windows of 64 frames
    "storm-like": dict(layers=2, d_model=512, n_heads=8, global_frames=64, num_categoricals=32, num_classes=32),
}
"""Default values of stacks that are as deep and as wide as another paper's memory. Tokenizer, losses and interface are
LSSVWM's; docs/related_models.md says what else differs from the papers."""

MAMBA_2 = {"block_scan", "flat_scan"}
SCANS = MAMBA_2 | {"s5"}
BLOCKS = {"block_scan", "block_delta"}
RECURRENT = SCANS | {"gru", "block_delta"}


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
    """Decode latents alone, and pass them no gradient from memory; reward, continue and KL losses still train them."""
    d_model: int = 128
    """Width of a token in the backbone: D."""
    layers: int = 2
    """Layers of the backbone: mixers and an MLP."""
    mlp_ratio: float = 3.0
    """Inner width of a layer's MLP, as a multiple of d_model."""
    blocks: tuple[tuple[int, int], ...] = ((2, 2),)
    """Spatial block (height, width) of each layer's scan, in tokens; cycles by layer."""
    state_interval: int = 16
    """Frames between the States that dreams start from and whose scan states are regularised."""
    remat_frames: int = 0
    """Frames whose activations are held at once and computed again for gradients; 0 holds those of a window."""
    open_loop_prob: float = 0.0
    """Share of training windows in which memory observes only a prefix of random length, and predicts the rest."""
    pretrained: str = ""
    """Mamba-2 checkpoint (safetensors file or folder) whose first layers a new run's scans and norms start from."""
    expand: int = 2
    """Inner width of a scan, as a multiple of d_model."""
    headdim: int = 32
    """Width of one head of a scan: P; S5 has as many HiPPO blocks as Mamba-2 has heads."""
    d_state: int = 32
    """State size of a scan: S; of each HiPPO block in S5. (The state of the GRU has d_model numbers a token.)"""
    delta_heads: int = 4
    """Heads of a delta memory, an even number: half of them decay."""
    delta_d_k: int = 64
    """Width of a delta memory's keys, in each head."""
    delta_d_v: int = 32
    """Width of a delta memory's values, in each head."""
    local: Literal["attention", "conv"] = "attention"
    """Form of the local mixer: dense attention, or a causal depthwise convolution over the same frames."""
    local_frames: int = 4
    """Frames that the local mixer sees, the current one included."""
    global_frames: int = 256
    """Frames that global attention sees (transformer), the current one included; each State holds them all."""
    n_heads: int = 4
    """Heads of attention."""
    hidden: int = 256
    """Width of the reward and continue networks."""
    next_reward: bool = False
    """Predict the reward of each action before the next frame is drawn, and show it in features and State."""
    cosine_similarity: bool = False
    """Let the next-reward head read how similar the frame is to what memory expects of the next one."""
    memory_feature: int = 0
    """Width of a projection of memory's recurrent state, read by reward, continue, actor and critic; 0: none."""
    unimix: float = 0.01
    """Share of the uniform distribution mixed into every categorical."""
    free_nats: float = 1.0
    """KL below which dynamics and representation losses stop."""
    reconstruction_scale: float = 1.0
    """Scale of the squared error of the decoded frame, summed over its values."""
    perceptual_scale: float = 1.0
    """Scale of 1 - SSIM of the decoded frame (images alone)."""
    dynamics_scale: float = 1.0
    """Scale of the KL that moves the prior."""
    next_latent_scale: float = 0.5
    """Scale of the KL of a second prior, of frame t + 1 by h_t, so that h_t holds what memory knows of it; 0: none."""
    representation_scale: float = 0.1
    """Scale of the KL that moves the posterior."""
    reward_scale: float = 1.0
    """Scale of the reward's two-hot cross-entropy."""
    next_reward_scale: float = 1.0
    """Scale of the next-reward head's squared error, in symlog."""
    continue_scale: float = 1.0
    """Scale of the continue flag's binary cross-entropy."""
    state_kl_scale: float = 1e-3
    """Scale of the pull of scan states toward a standard normal."""

    def __post_init__(self) -> None:
        check_numbers(
            "worldmodel",
            self,
            may_be_zero={"remat_frames", "open_loop_prob", "memory_feature", "unimix", "free_nats"},
            at_most_one={"open_loop_prob", "unimix"},
        )
        for error in self._errors():
            raise ValueError(error)

    def _errors(self) -> Iterator[str]:
        mixers = self.mixers
        if self.remat_frames % self.state_interval:
            yield (
                f"worldmodel.remat_frames ({self.remat_frames}) must be 0 or a multiple of "
                f"worldmodel.state_interval ({self.state_interval}): memory is carried on from boundary to boundary"
            )
        if not self.blocks:
            yield "worldmodel.blocks names no block size"
        if "n_heads" not in self.unread() and self.d_model % self.n_heads:
            yield f"worldmodel.d_model ({self.d_model}) must be a multiple of worldmodel.n_heads ({self.n_heads})"
        if "global_attention" in mixers and self.d_model // self.n_heads % 2:
            yield (
                f"worldmodel.d_model / worldmodel.n_heads ({self.d_model} / {self.n_heads}) must be even for "
                f"global attention: rotary embedding turns pairs"
            )
        inner = self.expand * self.d_model
        if SCANS & mixers and inner % self.headdim:
            yield (
                f"worldmodel.expand * worldmodel.d_model ({self.expand} * {self.d_model} = {inner}) must be a "
                f"multiple of worldmodel.headdim ({self.headdim})"
            )
        if "s5" in mixers and self.d_state % 2:
            yield f"worldmodel.d_state ({self.d_state}) must be even for s5: its states come in conjugate pairs"
        if "block_delta" in mixers and self.delta_heads % 2:
            yield f"worldmodel.delta_heads ({self.delta_heads}) must be even: half of the heads decay"
        if round(self.mlp_ratio * self.d_model) < 1:
            yield (
                f"worldmodel.mlp_ratio * worldmodel.d_model ({self.mlp_ratio} * {self.d_model}) must come to 1 unit "
                f"or more"
            )
        if self.memory_feature and not RECURRENT & mixers:
            readers = ", ".join(name for name, types in LAYER_TYPES.items() if RECURRENT.intersection(types))
            yield f"worldmodel.memory_feature is read by {readers}; {self.name} has no recurrent state"
        yield from next_reward_errors(self)

    @property
    def mixers(self) -> set[str]:
        """The types of mixer of each layer."""
        return set(LAYER_TYPES[self.name])

    def unread(self) -> set[str]:
        """The fields that a model of this configuration does not read."""
        mixers = self.mixers
        attention = "global_attention" in mixers or ("local_attention" in mixers and self.local == "attention")
        readers = {
            "blocks": bool(BLOCKS & mixers),
            "pretrained": bool(MAMBA_2 & mixers),
            "local": "local_attention" in mixers,
            "local_frames": "local_attention" in mixers,
            "global_frames": "global_attention" in mixers,
            "n_heads": attention,
            "memory_feature": bool(RECURRENT & mixers),
            "cosine_similarity": self.next_reward,
            "next_reward_scale": self.next_reward,
        }
        readers |= dict.fromkeys(("delta_heads", "delta_d_k", "delta_d_v"), "block_delta" in mixers)
        readers |= dict.fromkeys(("expand", "headdim", "d_state", "state_kl_scale"), bool(SCANS & mixers))
        return {name for name, read in readers.items() if not read}


class LSSVWM(WorldModel):
    """See the module's docstring; `shape` is that of one observation, `actions` the width of an action.

    A feature is [memory's state, h, predicted rewards, z], without the first and third where options leave them out.
    """

    def __init__(self, config: LSSVWMConfig, shape: tuple[int, ...], actions: int):
        super().__init__()
        self.config, self.actions = config, actions
        image = len(shape) == 3
        grid = ImageTokenizer.grid if image else VectorTokenizer.grid
        self.tokens = grid[0] * grid[1]
        if config.num_categoricals % self.tokens:
            raise ValueError(
                f"worldmodel.num_categoricals ({config.num_categoricals}) must be a multiple of the {self.tokens} "
                f"tokens of a frame"
            )
        self.groups = config.num_categoricals // self.tokens
        self.latent_width = self.groups * config.num_classes
        visible = config.d_model + (1 + actions) * config.next_reward + self.latent_width
        self.feature_width = config.memory_feature + visible
        self.decoded_width = self.latent_width if config.detach_latents else visible
        self.tokenizer: ImageTokenizer | VectorTokenizer
        if image:
            self.tokenizer = ImageTokenizer(shape, config.tokenizer_width, config.tokenizer_layers, self.decoded_width)
        else:
            self.tokenizer = VectorTokenizer(shape, config.tokenizer_width, self.decoded_width)
        self.posterior = nn.Linear(config.tokenizer_width, self.latent_width)
        # logits spread from the start: near-uniform samples tell the decoder little, and stay so for long
        nn.init.normal_(self.posterior.weight, std=2 / config.tokenizer_width**0.5)
        layers = self._layers(grid)
        self.backbone = Backbone(self.latent_width, actions, self.tokens, config.d_model, layers, config.mlp_ratio)
        self.prior = self._prior_head()
        self.next_prior = self._prior_head() if config.next_latent_scale else None
        self.twohot = TwoHot()
        self.reward_head = TokenMLP(self.tokens, self.feature_width, len(self.twohot.bins), config.hidden)
        self.twohot.init_output(self.reward_head.out)
        self.continue_head = TokenMLP(self.tokens, self.feature_width, 1, config.hidden, scale=1.0)
        self.next_reward = self.memory_feature = None
        if config.next_reward:
            self.next_reward = NextReward(
                self.tokens, config.d_model, self.latent_width, actions, config.hidden, config.cosine_similarity
            )
        if config.memory_feature:
            self.memory_feature = MemoryFeature(layers, config.memory_feature)

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
            "block_delta": lambda block: DeltaMemory(c.d_model, grid, block, c.delta_heads, c.delta_d_k, c.delta_d_v),
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

    def observe(self, batch: SequenceBatch, state: State, sample: bool = True) -> ObserveOutput:
        """See `WorldModel`."""
        return self._observe(batch, state, *self._encode(batch, sample)).output

    def _encode(self, batch: SequenceBatch, sample: bool) -> tuple[Tensor, Tensor]:
        """Log probabilities of the posterior (B, T, N, G, C) and latents (B, T, N, Z) of each frame."""
        logits = self.posterior(remat_map(self.tokenizer.encode, batch.observation, self.config.remat_frames))
        posterior = self._log_probs(logits)
        return posterior, latents.draw(posterior, sample).flatten(-2).to(logits.dtype)

    def _observe(
        self, batch: SequenceBatch, state: State, posterior: Tensor, z: Tensor, observed: Tensor | None = None
    ) -> ObservedWindow:
        """Memory reads the latents; where `observed` (B, T) is false it does not read those of the frame before."""
        config = self.config
        state = reset_nonfinite(state, batch.is_first[:, 0])
        first = batch.is_first.unsqueeze(-1)  # (B, T, 1); nothing before a first row is an input to it
        seen = z.detach() if config.detach_latents else z
        previous = torch.cat([state["z"].unsqueeze(1).to(z.dtype), seen[:, :-1]], 1)
        hidden = first if observed is None else first | ~observed.unsqueeze(-1)
        previous = previous.masked_fill(hidden.unsqueeze(-1), 0.0)
        action = batch.action.masked_fill(first, 0.0)
        # features read the memory of every frame, States that of the boundaries
        interval = 1 if self.memory_feature is not None else config.state_interval
        h, memories = remat_backbone(
            self.backbone, previous, action, state["memory"], batch.is_first, interval, config.remat_frames
        )
        frames = {"h": h.to(z.dtype), "z": z}
        next_prior = self._next_prior(frames["h"])
        next_reward = None
        if self.next_reward is not None:
            next_reward = self.next_reward.observe(frames["h"], seen, next_prior, action, first, state)
            frames |= next_reward.entries()
        entries, ends = gather_states(frames, state, config.state_interval)
        feature = self._feature(frames | {"memory": memories})
        if self.memory_feature is not None:
            memories = memories[:, ends]
        starts = TensorDict({"memory": memories} | entries, batch_size=memories.batch_size)
        output = ObserveOutput(feature, starts, torch.tensor(ends, device=z.device), starts[:, -1])
        return ObservedWindow(output, frames["h"], z, posterior, next_prior, next_reward)

    def _observed_prefix(self, batch: SequenceBatch) -> Tensor | None:
        """(B, T) in training: rows whose frame before memory observes, in `open_loop_prob` of the windows a prefix.

        Diffusion forcing (Chen et al. 2024, arXiv 2407.01392) follows a clean prefix with noise; latents are hidden.
        """
        if not (self.training and self.config.open_loop_prob):
            return None
        B, T = batch.batch_size
        draw = torch.rand(2, B, 1, device=batch.is_first.device)
        return (draw[0] >= self.config.open_loop_prob) | (torch.arange(1, T + 1, device=draw.device) <= draw[1] * T)

    def _next_prior(self, h: Tensor) -> Tensor | None:
        """Log probabilities of the next frame's latents (..., N, G, C), where the model has a prior of them."""
        return None if self.next_prior is None else self._log_probs(self.next_prior(h))

    def _feature(self, frame: Mapping[str, Any]) -> Tensor:
        """Entries of States -> (..., N, F)"""
        parts = [frame["h"], frame["z"]]
        if self.next_reward is not None:
            parts.insert(1, feature_columns(frame, frame["z"]))
        if self.memory_feature is not None:
            parts.insert(0, self.memory_feature(frame["memory"]).to(frame["z"].dtype))
        return torch.cat(parts, -1)

    def dream(self, state: State, action: Tensor, sample: bool = True) -> State:
        """See `WorldModel`."""
        reset = torch.zeros(len(action), 1, dtype=torch.bool, device=action.device)
        h, memories = self.backbone(state["z"].unsqueeze(1), action.unsqueeze(1), state["memory"], reset, 1)
        z = latents.draw(self._log_probs(self.prior(h[:, 0])), sample).flatten(-2)
        frame = {"memory": memories[:, 0], "h": h[:, 0].to(z.dtype), "z": z}
        if self.next_reward is not None:
            next_prior = self._next_prior(frame["h"]) if self.config.cosine_similarity else None
            frame |= self.next_reward.dream(frame["h"], z, next_prior, action, state)
        return TensorDict(frame, batch_size=[len(action)])

    def open_loop(self, state: State) -> State:
        """See `WorldModel`."""
        if not self.config.open_loop_prob:
            return state
        return state.clone(recurse=False).set("z", torch.zeros_like(state["z"]))

    def feature(self, state: State) -> Tensor:
        """See `WorldModel`."""
        return self._feature(state)

    def loss(self, batch: SequenceBatch, state: State) -> tuple[Losses, ObserveOutput, dict[str, Tensor]]:
        """See `WorldModel`; the names are those of `loss_scales`.

        Where memory observes only a prefix of a window, losses are of that; the output's memory observes all of it.
        """
        if self.training:
            self.tokenizer.update(batch.observation)
        posterior, z = self._encode(batch, sample=True)
        observed = self._observed_prefix(batch)
        window = self._observe(batch, state, posterior, z, observed)
        feature = window.output.feature

        losses, metrics = latent_losses(window, self._log_probs(self.prior(window.h)), batch, self.config.free_nats)
        losses |= reward_losses(window, self.reward_head(feature), self.continue_head(feature), self.twohot, batch)
        losses["reconstruction"], losses["perceptual"] = remat_mean(
            self.tokenizer.losses, self._decoded(feature), batch.observation, self.config.remat_frames
        )
        losses["state_kl"], state_metrics = self._state_loss(window.output.start_states)

        output = window.output
        if observed is not None and not observed.all():
            with torch.no_grad():
                output = self._observe(batch, state, posterior, z).output
        return losses, output, metrics | state_metrics

    def _state_loss(self, starts: State) -> tuple[Tensor, dict[str, Tensor]]:
        """KL(N(mean, var) || N(0, 1)) of the scan states at boundaries, mean over layers; and metrics of each layer."""
        kls, metrics = [], {}
        memories = [starts["memory", str(i), "0"] for i in range(self.config.layers)]
        for i, s in enumerate(memory["ssm"] for memory in memories if "ssm" in memory.keys()):
            var, mean = torch.var_mean(s, correction=0)
            kls.append(0.5 * (var + mean**2 - 1 - (var + 1e-6).log()))
            metrics[f"state/{i}/mean"], metrics[f"state/{i}/variance"] = mean.detach(), var.detach()
            metrics[f"state/{i}/norm"] = torch.linalg.vector_norm(s.detach(), dim=tuple(range(2, s.ndim))).mean()
        return (torch.stack(kls).mean() if kls else starts["h"].new_zeros(())), metrics

    def kl(self, batch: SequenceBatch, state: State) -> Tensor:
        """See `WorldModel`."""
        window = self._observe(batch, state, *self._encode(batch, sample=False))
        return latents.kl(window.posterior, self._log_probs(self.prior(window.h)))

    def loss_scales(self) -> dict[str, float]:
        """See `WorldModel`."""
        names = ("reconstruction", "perceptual", "dynamics", "representation", "reward", "continue", "state_kl")
        return loss_scales(self.config, *names)

    def decode(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.tokenizer.decode(self._decoded(feature))

    def _decoded(self, feature: Tensor) -> Tensor:
        """The part of a feature that the decoder reads."""
        return feature[..., -self.decoded_width :]

    def reward(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.twohot.mean(self.reward_head(feature))

    def continue_prob(self, feature: Tensor) -> Tensor:
        """See `WorldModel`."""
        return self.continue_head(feature).squeeze(-1).sigmoid()

    def _log_probs(self, logits: Tensor) -> Tensor:
        """(..., N, Z) -> (..., N, G, C)"""
        return latents.log_probs(logits.unflatten(-1, (self.groups, self.config.num_classes)), self.config.unimix)
