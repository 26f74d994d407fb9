"""One update: a replayed window trains the world model, and imagination from its States trains the agent."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

import envs
import worldmodel
from agent.actor import WorldModelPolicy
from agent.actor_critic import ActorCritic, ActorCriticConfig
from agent.runs import machine
from agent.runs.checkpoint import match
from agent.runs.config import Config
from agent.runs.fields import ConfigError, Diverged, refusals
from agent.runs.flatten import flatten, optimizer_tensors, restore_optimizer
from agent.runs.folder import run_folder, stored_config
from agent.training import distributed
from agent.training.optimizer import clip_each, make_optimizer
from replay import Episode, Replay, SequenceSampler
from worldmodel import ObserveOutput, SequenceBatch, State, pretrained
from worldmodel.lssvwm import LSSVWM
from worldmodel.rollout import imagine

Metrics = dict[str, Tensor]
Part = tuple[str, torch.nn.Module, torch.optim.Optimizer, float]
"""What an update steps: name, network, optimiser, largest gradient norm."""


class Learner:
    """World model, actor-critic and their optimisers."""

    PATIENCE = 10

    def __init__(self, config: Config, shape: tuple[int, ...], actions: int, continuous: bool = False):
        assert isinstance(config.agent, ActorCriticConfig), f"{config.agent.name} has no world model"
        self.config = config
        self.device = choose_device(config.train.device)
        self.model = worldmodel.make(config.worldmodel, shape, actions).to(self.device)
        sizes = (self.model.tokens, self.model.feature_width, actions)
        self.agent = ActorCritic(config.agent, *sizes, continuous).to(self.device)
        self.model_optimizer = make_optimizer(config.train.optimizer, self.model, config.train.learning_rate)
        self.agent_optimizer = make_optimizer(config.train.optimizer, self.agent, config.agent.learning_rate)
        self.updates = 0
        self.nonfinite_updates = 0
        self._nonfinite_in_a_row = 0

    def init_weights(self) -> str | None:
        """Loads `worldmodel.pretrained` into a new run; returns a line about it, None where nothing is loaded.

        Raises ConfigError where the file cannot be read or does not fit.
        """
        if not (isinstance(self.model, LSSVWM) and self.model.config.pretrained):
            return None
        with refusals():
            return f"pretrained: {pretrained.load(self.model, self.model.config.pretrained)}"

    def pretrain(self, replay: Replay, report: Callable[[str], None]) -> None:
        """What the world model is taught before its first update (`WorldModel.pretrain`), on the episodes in replay."""
        draws = itertools.count()

        def windows(sequences: int, frames: int) -> SequenceBatch:
            seed = int(np.random.SeedSequence([self.config.seed, next(draws)]).generate_state(1)[0])
            return self.batch(SequenceSampler(replay, sequences, seed, lambda batch: None).next(frames)[0])

        with self.autocast():
            self.model.pretrain(windows, report)

    def autocast(self) -> AbstractContextManager:
        """The precision of everything but parameters, decays and states."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.train.precision == "bfloat16")

    def policy(self, n: int, greedy: bool = False, hold: float = 0.0) -> WorldModelPolicy:
        """The agent acting in n environments, before any frame."""
        return WorldModelPolicy(self.model, self.agent, n, greedy, hold, self.autocast)

    def batch(self, arrays: dict[str, np.ndarray]) -> SequenceBatch:
        """Replay's arrays (B, T, ...) on the device."""
        tensors = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
        return SequenceBatch(**tensors, batch_size=tensors["reward"].shape)

    def episodes(self, episodes: Sequence[Episode]) -> SequenceBatch:
        """Whole episodes of one length side by side, (episodes, L); a ValueError where lengths differ."""
        lengths = {len(episode) for episode in episodes}
        if len(lengths) != 1:
            raise ValueError(f"episodes of {sorted(lengths)} rows: want one length")
        names = ("observation", "action", "reward", "terminated")
        arrays = {name: np.stack([getattr(episode, name) for episode in episodes]) for name in names}
        first = np.zeros((len(episodes), lengths.pop()), bool)
        first[:, 0] = True
        return self.batch(arrays | {"is_first": first})

    def update(self, arrays: dict[str, np.ndarray], state: State, agent: bool = True) -> tuple[Metrics, State]:
        """One update on a batch and the State before it: of the world model, and unless `agent` is False of the agent.

        Returns metrics by name and the State after the batch, detached: the initial one where the update was skipped.
        Raises Diverged.
        """
        batch = self.batch(arrays)
        loss, output, metrics = self.world_model_loss(batch, state)
        if agent:
            agent_loss, agent_metrics = self.actor_critic_loss(batch, output)
            loss, metrics = loss + agent_loss, metrics | agent_metrics
        stepped = self._step(loss, metrics, agent)
        if stepped:
            state = output.last_state.detach().clone()  # not a view that keeps the whole window alive
            if agent:
                self.agent.update_slow_critic()
        else:
            state = self.model.initial(len(batch))
        distributed.all_mean(self._float_buffers())
        self._count(stepped)
        return metrics, state

    def world_model_loss(self, batch: SequenceBatch, state: State) -> tuple[Tensor, ObserveOutput, Metrics]:
        """The world model's loss on a batch, what observing it gives, and metrics."""
        with self.autocast():
            losses, output, metrics = self.model.loss(batch, state)
        loss = worldmodel.total(losses, self.model.loss_scales())
        return loss, output, _named("model", losses, loss, metrics)

    def actor_critic_loss(self, batch: SequenceBatch, output: ObserveOutput) -> tuple[Tensor, Metrics]:
        """The agent's loss on what is imagined from the batch's States, and metrics."""
        config = self.agent.config
        sequences, kept = output.start_states.batch_size
        time = output.start_index.repeat(sequences)  # (M,)
        sequence = torch.arange(sequences, device=self.device).repeat_interleave(kept)
        starts = output.start_states.detach().reshape(-1)
        if 0 < config.imagination_starts < len(starts):
            chosen = torch.randperm(len(starts), device=self.device)[: config.imagination_starts]
            starts, time, sequence = starts[chosen], time[chosen], sequence[chosen]
        with self.autocast():
            imagined = imagine(self.model, starts, self.agent.act, config.horizon)
        # a context of its own: autocast keeps the casts of weights, and those made without gradients have none
        with self.autocast():
            alive = ~batch.terminated[sequence, time]
            losses, metrics = self.agent.loss(imagined, alive, output.feature, batch, (time, sequence))
        loss = torch.stack(list(losses.values())).sum()
        return loss, _named("agent", losses, loss, metrics)

    def anneal(self, progress: float) -> None:
        """Sets the learning rates for a run that is `progress` (0 to 1) done: warm-up, then the world model's decay."""
        train = self.config.train
        warm = min(1.0, (self.updates + 1) / train.warmup) if train.warmup else 1.0
        decay = 1 - (1 - train.lr_end_fraction) * min(progress, 1.0)
        for group in self.model_optimizer.param_groups:
            group["lr"] = train.learning_rate * warm * decay
        for group in self.agent_optimizer.param_groups:
            group["lr"] = self.agent.config.learning_rate * warm

    def _step(self, loss: Tensor, metrics: Metrics, agent: bool) -> bool:
        """Backward, and one step of each optimiser whose gradient is finite; whether all were.

        Where the world model's is not, the agent's, of the same update, is not trusted either.
        """
        parts: list[Part] = [("model", self.model, self.model_optimizer, self.config.train.grad_clip)]
        if agent:
            parts.append(("agent", self.agent, self.agent_optimizer, self.agent.config.grad_clip))
        for _, _, optimizer, _ in parts:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        loss = loss.detach()
        with torch.no_grad():
            gradients = [p.grad for _, module, _, _ in parts for p in module.parameters() if p.grad is not None]
            distributed.all_mean([loss, *gradients])
        finite = True
        for name, module, optimizer, clip in parts:
            parameters = [p for p in module.parameters() if p.requires_grad]
            norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            metrics[f"{name}/grad_norm"] = torch.where(torch.isfinite(loss), norm, torch.nan)
            finite = finite and bool(torch.isfinite(metrics[f"{name}/grad_norm"]))
            if finite:
                if self.config.train.agc:
                    clip_each(parameters, self.config.train.agc)
                else:
                    torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
                optimizer.step()
        return finite

    def _count(self, finite: bool) -> None:
        self.updates += 1
        self.nonfinite_updates += not finite
        self._nonfinite_in_a_row = 0 if finite else self._nonfinite_in_a_row + 1
        if self._nonfinite_in_a_row >= self.PATIENCE:
            raise Diverged(
                f"{self._nonfinite_in_a_row} updates in a row had a loss or gradient that is not finite (update "
                f"{self.updates}): the last checkpoint is kept"
            )

    def broadcast(self) -> None:
        """Gives all processes the weights and the optimisers' state of the first one."""
        tensors = self._networks()
        for name, optimizer in self._optimizers().items():
            tensors |= optimizer_tensors(name, optimizer)[0]
        distributed.broadcast(tensors[name] for name in sorted(tensors))  # a checkpoint restores in any order
        self.updates = distributed.all_min(self.updates)

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and optimisers for a checkpoint: tensors by name, and JSON."""
        tensors = self._networks()
        meta: dict[str, Any] = {"updates": self.updates, "nonfinite_updates": self.nonfinite_updates}
        for name, optimizer in self._optimizers().items():
            part, meta[name] = optimizer_tensors(name, optimizer)
            tensors |= part
        return tensors, meta

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Puts back what `snapshot` gave. Raises CheckpointError where it is another model's, before any change."""
        self.restore_networks(tensors)
        for name, optimizer in self._optimizers().items():
            restore_optimizer(name, optimizer, tensors, meta[name])
        self.updates, self.nonfinite_updates = meta["updates"], meta["nonfinite_updates"]

    def restore_networks(self, tensors: dict[str, Tensor]) -> None:
        """Puts back the weights alone: enough to act, dream and evaluate. Raises CheckpointError as `restore`."""
        prefixes = ("model/", "agent/")
        networks = {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}
        match(networks, self._networks())
        for prefix, module in (("model", self.model), ("agent", self.agent)):
            module.load_state_dict(
                {k.removeprefix(f"{prefix}/"): v for k, v in networks.items() if k.startswith(f"{prefix}/")}
            )

    def _float_buffers(self) -> list[Tensor]:
        """Statistics of what was observed, which processes average."""
        return [b for module in (self.model, self.agent) for b in module.buffers() if b.is_floating_point()]

    def _networks(self) -> dict[str, Tensor]:
        return flatten("model", self.model.state_dict()) | flatten("agent", self.agent.state_dict())

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"model_optimizer": self.model_optimizer, "agent_optimizer": self.agent_optimizer}


def _named(part: str, losses: Metrics, loss: Tensor, metrics: Metrics) -> Metrics:
    """Metrics of a part of the update as they are logged."""
    named = {f"{part}/loss/{name}": value.detach() for name, value in losses.items()}
    return named | {f"{part}/{name}": value for name, value in metrics.items()} | {f"{part}/loss": loss.detach()}


def check(config: Config) -> None:
    """Refuses, with a ConfigError of one line, a model or an environment that cannot be made; costs no memory.

    Weights to start from are looked at where the run is a new one.
    """
    with refusals():
        environment = envs.make(config.env)
        shape, actions, _ = spaces(environment.observation_space, environment.action_space)
        environment.close()
        with torch.device("meta"):
            model = worldmodel.make(config.worldmodel, shape, actions)
        folder = run_folder(config.env, config.worldmodel.name, config.seed, config.run_dir)
        if isinstance(model, LSSVWM) and model.config.pretrained and stored_config(folder) is None:
            pretrained.check(model, model.config.pretrained)


def choose_device(name: str) -> torch.device:
    """`auto` is cuda where there is one: with several processes, each its own. ConfigError for one that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    machine.check_device(name)
    return torch.device(name)


def spaces(observation: gymnasium.Space, action: gymnasium.Space) -> tuple[tuple[int, ...], int, bool]:
    """One observation's shape, the width of an action, and whether actions are continuous."""
    shape = observation.shape or ()
    if isinstance(action, gymnasium.spaces.Discrete):
        return shape, int(action.n), False
    if isinstance(action, gymnasium.spaces.Box) and len(action.shape) == 1:
        return shape, action.shape[0], True
    raise ConfigError(f"the agent wants discrete actions or a vector of them, the environment has {action}")
