"""The configuration of LSSVWM and of the other stacks of mixers: which layers there are, and their options."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from worldmodel.checks import check_numbers
from worldmodel.next_reward import next_reward_errors

LAYER_TYPES: dict[str, tuple[str, ...]] = {
    "lssvwm": ("block_scan", "local_attention"),
    "lssvwm-delta": ("block_delta", "local_attention"),
    "lssvwm-places": ("places", "block_scan", "local_attention"),
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
place, over each token. places: a memory of frames by place, before the first layer alone. The local mixer may be a
convolution (`local`).
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
    latents: Literal["categorical", "continuous"] = "categorical"
    """Latents of a frame: categorical variables, or numbers with Gaussian noise."""
    latent_width: int = 16
    """Numbers of each token's latents, if continuous."""
    num_categoricals: int = 64
    """Categorical variables of a frame, shared out evenly over its tokens."""
    num_classes: int = 32
    """Classes of each categorical variable."""
    tokenizer_width: int = 128
    """Width of a token in the encoder and in the decoder: E."""
    tokenizer_layers: int = 2
    """Layers of an image's encoder, and of its decoder."""
    tokenizer_updates: int = 0
    """Updates that teach the tokenizer alone, before all others; it then stays as it is. 0: it learns with the rest."""
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
    open_loop_prefix: float = 0.0
    """Least share of such a window that memory observes."""
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
    place_heads: int = 8
    """Heads of a place memory, each with keys of other length scales."""
    place_d_k: int = 128
    """Width of a place memory's keys, in each head: an even number."""
    place_values: int = 64
    """Numbers of a frame that a place memory stores: its principal components."""
    place_updates: int = 400
    """Updates that teach a place memory alone, before the world model's, once its integrator is found; it then stays as
    it is. 0: it learns with the rest."""
    normalised_scan: bool = False
    """Normalise B and C of Mamba-2, keys and queries of delta memories, in SiLU's place (Mamba-3, arXiv 2603.15569)."""
    slow_heads: float = 0.0
    """Share of the heads of Mamba-2 and of delta memories that a gate can shut for thousands of frames."""
    state_passing: float = 0.0
    """Share of episode starts in training at which memory goes on from the sequence before (arXiv 2507.02782)."""
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
        shares = {"open_loop_prob", "open_loop_prefix", "slow_heads", "state_passing", "unimix"}
        check_numbers(
            "worldmodel",
            self,
            may_be_zero={"tokenizer_updates", "place_updates", "remat_frames", "memory_feature", "free_nats"} | shares,
            at_most_one=shares,
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
        if "places" in mixers and self.place_d_k % 2:
            yield f"worldmodel.place_d_k ({self.place_d_k}) must be even: a cosine and a sine make a pair"
        if self.pretrained and (self.normalised_scan or self.slow_heads):
            yield "worldmodel.pretrained is of plain Mamba-2: want no worldmodel.normalised_scan and no slow_heads"
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
            "open_loop_prefix": bool(self.open_loop_prob),
            "cosine_similarity": self.next_reward,
            "next_reward_scale": self.next_reward,
        }
        readers |= dict.fromkeys(("normalised_scan", "slow_heads"), bool((MAMBA_2 | {"block_delta"}) & mixers))
        readers |= dict.fromkeys(("delta_heads", "delta_d_k", "delta_d_v"), "block_delta" in mixers)
        places = ("place_heads", "place_d_k", "place_values", "place_updates")
        readers |= dict.fromkeys(places, "places" in mixers)
        readers |= dict.fromkeys(("num_categoricals", "num_classes", "unimix"), self.latents == "categorical")
        readers["latent_width"] = self.latents == "continuous"
        joint = ("detach_latents", "reconstruction_scale", "perceptual_scale", "representation_scale")
        readers |= dict.fromkeys(joint, not self.tokenizer_updates)
        readers |= dict.fromkeys(("expand", "headdim", "d_state", "state_kl_scale"), bool(SCANS & mixers))
        return {name for name, read in readers.items() if not read}
