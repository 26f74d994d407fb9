"""LSSVWM: the long-context state-space video world model (arXiv 2505.20171) as a Dreamer's world model.

A tokenizer gives each frame a grid of latents, categorical as in DreamerV3 or continuous. A backbone of block-wise
Mamba-2 scans and causal local attention, whose memory is carried over time without end, predicts those of the next
frame.

Letters: B batch, T frames, N tokens, D width of h, Z of a token's latents.
"""

from collections.abc import Callable, Mapping
from itertools import cycle, islice
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldmodel.backbone import Backbone
from worldmodel.base import Losses, ObserveOutput, SequenceBatch, State, Windows, WorldModel, reset_nonfinite
from worldmodel.boundaries import gather_states
from worldmodel.heads import TokenMLP, TwoHot
from worldmodel.latents import CategoricalLatents, GaussianLatents, Latents
from worldmodel.losses import ObservedWindow, latent_losses, loss_scales, reward_losses
from worldmodel.lssvwm_config import LAYER_TYPES, LSSVWMConfig
from worldmodel.memory_feature import MemoryFeature
from worldmodel.mixers import GRU, S5, BlockSSM, CausalConv, DeltaMemory, GlobalAttention, LocalAttention, Mixer
from worldmodel.next_reward import NextReward, feature_columns
from worldmodel.place_memory import PlaceMemory
from worldmodel.place_search import teach_places
from worldmodel.pretraining import encode_windows, teach_tokenizer
from worldmodel.remat import remat_backbone, remat_map, remat_mean
from worldmodel.tokenizer import ImageTokenizer, VectorTokenizer


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
        self.latents = self._latents()
        self.latent_width = self.latents.width
        self.tokenizer_first = config.tokenizer_updates > 0
        visible = config.d_model + (1 + actions) * config.next_reward + self.latent_width
        self.feature_width = config.memory_feature + visible
        self.decoded_width = self.latent_width if config.detach_latents or self.tokenizer_first else visible
        self.tokenizer: ImageTokenizer | VectorTokenizer
        if image:
            self.tokenizer = ImageTokenizer(shape, config.tokenizer_width, config.tokenizer_layers, self.decoded_width)
        else:
            self.tokenizer = VectorTokenizer(shape, config.tokenizer_width, self.decoded_width)
        self.posterior = nn.Linear(config.tokenizer_width, self.latent_width)
        # logits spread from the start: near-uniform samples tell the decoder little, and stay so for long
        nn.init.normal_(self.posterior.weight, std=2 / config.tokenizer_width**0.5)
        if self.tokenizer_first:
            for module in (self.tokenizer, self.posterior):
                module.requires_grad_(False)
        layers = self._layers(grid)
        places = None
        if "places" in config.mixers:
            sizes = (config.place_heads, config.place_d_k, config.place_values)
            places = PlaceMemory(self.tokens, self.latent_width, actions, *sizes)
            places.requires_grad_(not config.place_updates)
        self.backbone = Backbone(
            self.latent_width, actions, self.tokens, config.d_model, layers, config.mlp_ratio, places
        )
        self.prior = self._prior_head(zero=places is not None)  # at first what a place memory expects
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

    def _latents(self) -> Latents:
        config = self.config
        if config.latents == "continuous":
            return GaussianLatents(config.latent_width)
        if config.num_categoricals % self.tokens:
            raise ValueError(
                f"worldmodel.num_categoricals ({config.num_categoricals}) must be a multiple of the {self.tokens} "
                f"tokens of a frame"
            )
        return CategoricalLatents(config.num_categoricals // self.tokens, config.num_classes, config.unimix)

    def _prior_head(self, zero: bool = False) -> nn.Sequential:
        width = self.config.d_model
        out = nn.Linear(width, self.latents.prior_width)
        if zero:
            nn.init.zeros_(out.weight)
            nn.init.zeros_(out.bias)
        return nn.Sequential(nn.Linear(width, width), nn.SiLU(), out)

    def _layers(self, grid: tuple[int, int]) -> list[list[Mixer]]:
        c = self.config
        # a vector is one token: any block covers it
        blocks = c.blocks if grid != (1, 1) else ((1, 1),)

        scan = (c.expand, c.headdim, c.d_state)
        long = (c.normalised_scan, c.slow_heads)
        mamba2 = (*scan, *long)
        delta = (c.delta_heads, c.delta_d_k, c.delta_d_v)
        local: dict[str, Callable[[], Mixer]] = {
            "attention": lambda: LocalAttention(c.d_model, self.tokens, c.local_frames, c.n_heads),
            "conv": lambda: CausalConv(c.d_model, grid, c.local_frames),
        }
        mixers: dict[str, Callable[[tuple[int, int]], Mixer]] = {
            "block_scan": lambda block: BlockSSM(c.d_model, grid, block, *mamba2),
            "block_delta": lambda block: DeltaMemory(
                c.d_model, grid, block, *delta, normalised=long[0], slow_heads=long[1]
            ),
            "flat_scan": lambda _: BlockSSM(c.d_model, grid, grid, *mamba2),
            "gru": lambda _: GRU(c.d_model, self.tokens),
            "s5": lambda _: S5(c.d_model, self.tokens, *scan),
            "local_attention": lambda _: local[c.local](),
            "global_attention": lambda _: GlobalAttention(c.d_model, self.tokens, c.global_frames, c.n_heads),
        }
        kinds = [kind for kind in LAYER_TYPES[c.name] if kind in mixers]
        return [[mixers[kind](block) for kind in kinds] for block in islice(cycle(blocks), c.layers)]

    def pretrain(self, windows: Windows, report: Callable[[str], None]) -> None:
        """See `WorldModel`: the tokenizer, then the memory of places."""
        places = self.backbone.places
        if self.tokenizer_first:
            teach_tokenizer(
                self.tokenizer, self.posterior, self.latents, windows, self.config.tokenizer_updates, report
            )
        if places is not None and self.config.place_updates:

            @torch.no_grad()
            def encode(batch: SequenceBatch) -> Tensor:
                return self.latents.mean(self._encode(batch, sample=False)[0])

            teach_places(places, encode_windows(encode, windows), self.config.place_updates, report)

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
        """Posterior (B, T, N, ...) and latents (B, T, N, Z) of each frame."""
        out = self.posterior(remat_map(self.tokenizer.encode, batch.observation, self.config.remat_frames))
        posterior = self.latents.posterior(out)
        return posterior, self.latents.draw(posterior, sample).to(out.dtype)

    def _observe(
        self,
        batch: SequenceBatch,
        state: State,
        posterior: Tensor,
        z: Tensor,
        observed: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> ObservedWindow:
        """Memory reads the latents; where `observed` (B, T) is false it does not read those of the frame before.

        Memory is forgotten where `reset` (B, T) is true, by default at each first row.
        """
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
        h, expected, memories = remat_backbone(
            self.backbone,
            previous,
            action,
            state["memory"],
            batch.is_first if reset is None else reset,
            interval,
            config.remat_frames,
        )
        frames = {"h": h.to(z.dtype), "z": z}
        next_prior = self._next_prior(frames["h"])
        next_reward = None
        if self.next_reward is not None:
            next_reward = self.next_reward.observe(frames["h"], seen, self._mean(next_prior), action, first, state)
            frames |= next_reward.entries()
        entries, ends = gather_states(frames, state, config.state_interval)
        feature = self._feature(frames | {"memory": memories})
        if self.memory_feature is not None:
            memories = memories[:, ends]
        starts = TensorDict({"memory": memories} | entries, batch_size=memories.batch_size)
        output = ObserveOutput(feature, starts, torch.tensor(ends, device=z.device), starts[:, -1])
        prior = self.latents.prior(self.prior(frames["h"]), expected)
        return ObservedWindow(output, frames["h"], z, posterior, prior, next_prior, next_reward)

    def _observed_prefix(self, batch: SequenceBatch) -> Tensor | None:
        """(B, T) in training: rows whose frame before memory observes, in `open_loop_prob` of the windows a prefix.

        Diffusion forcing (Chen et al. 2024, arXiv 2407.01392) follows a clean prefix with noise; latents are hidden.
        """
        if not (self.training and self.config.open_loop_prob):
            return None
        B, T = batch.batch_size
        draw = torch.rand(2, B, 1, device=batch.is_first.device)
        least = self.config.open_loop_prefix
        prefix = (least + (1 - least) * draw[1]) * T
        return (draw[0] >= self.config.open_loop_prob) | (torch.arange(1, T + 1, device=draw.device) <= prefix)

    def _resets(self, batch: SequenceBatch) -> Tensor:
        """(B, T): rows at which memory is forgotten; in training not at `state_passing` of the first rows.

        There memory goes on from the sequence's earlier episode, and only the latents of its last frame are hidden
        (state passing: Ruiz & Gu 2025, arXiv 2507.02782).
        """
        if not (self.training and self.config.state_passing):
            return batch.is_first
        draw = torch.rand(batch.batch_size, device=batch.is_first.device)
        return batch.is_first & (draw >= self.config.state_passing)

    def _next_prior(self, h: Tensor) -> Tensor | None:
        """Distribution of the next frame's latents (..., N, ...), where the model has a prior of them."""
        return None if self.next_prior is None else self.latents.prior(self.next_prior(h))

    def _mean(self, distribution: Tensor | None) -> Tensor | None:
        return None if distribution is None else self.latents.mean(distribution)

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
        h, expected, memories = self.backbone(state["z"].unsqueeze(1), action.unsqueeze(1), state["memory"], reset, 1)
        prior = self.latents.prior(self.prior(h[:, 0]), None if expected is None else expected[:, 0])
        z = self.latents.draw(prior, sample)
        frame = {"memory": memories[:, 0], "h": h[:, 0].to(z.dtype), "z": z}
        if self.next_reward is not None:
            expected = self._mean(self._next_prior(frame["h"])) if self.config.cosine_similarity else None
            frame |= self.next_reward.dream(frame["h"], z, expected, action, state)
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
        if self.training and not self.tokenizer_first:
            self.tokenizer.update(batch.observation)
        posterior, z = self._encode(batch, sample=True)
        observed = self._observed_prefix(batch)
        reset = self._resets(batch)
        window = self._observe(batch, state, posterior, z, observed, reset)
        feature = window.output.feature

        losses, metrics = latent_losses(self.latents, window, batch, self.config.free_nats)
        losses |= reward_losses(window, self.reward_head(feature), self.continue_head(feature), self.twohot, batch)
        if self.tokenizer_first:
            del losses["representation"]
        else:
            losses["reconstruction"], losses["perceptual"] = remat_mean(
                self.tokenizer.losses, self._decoded(feature), batch.observation, self.config.remat_frames
            )
        losses["state_kl"], state_metrics = self._state_loss(window.output.start_states)

        output = window.output
        if observed is not None and not observed.all():
            with torch.no_grad():
                output = self._observe(batch, state, posterior, z, None, reset).output
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
        return self.latents.kl(window.posterior, window.prior)

    def loss_scales(self) -> dict[str, float]:
        """See `WorldModel`."""
        joint = () if self.tokenizer_first else ("reconstruction", "perceptual", "representation")
        return loss_scales(self.config, "dynamics", "reward", "continue", "state_kl", *joint)

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
