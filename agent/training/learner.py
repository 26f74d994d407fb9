"""One update: a replayed window teaches the world model, and dreams from its block boundaries teach the agent."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import gymnasium
import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

import envs
import worldmodel
from agent.actor_critic import ActorCritic, ActorCriticConfig
from agent.runs import machine
from agent.runs.checkpoint import match
from agent.runs.config import Config
from agent.runs.fields import ConfigError, refusals
from agent.runs.flatten import flatten, optimizer_tensors, restore_optimizer, unflatten
from agent.runs.folder import run_folder, stored_config
from agent.training import distributed
from replay import Episode
from worldmodel import SequenceBatch, pretrained
from worldmodel.lssvwm import LSSVWM
from worldmodel.rollout import dream


class Diverged(RuntimeError):
    """Ten updates in a row had a loss or a gradient that is not a number."""


class Learner:
    """World model, actor-critic, their optimisers, and the memory of each replay walker."""

    PATIENCE = 10

    def __init__(self, config: Config, shape: tuple[int, ...], actions: int, continuous: bool = False):
        assert isinstance(config.agent, ActorCriticConfig), f"{config.agent.name} learns without a world model"
        self.config = config
        self.device = choose_device(config.train.device)
        self.model = worldmodel.make(config.worldmodel, shape, actions).to(self.device)
        sizes = (self.model.tokens, self.model.feature_width, actions)
        self.agent = ActorCritic(config.agent, *sizes, continuous).to(self.device)
        self.model_optimizer = _optimizer(self.model, config.train.learning_rate)
        self.agent_optimizer = _optimizer(self.agent, config.agent.learning_rate)
        self.state = self.model.initial(config.replay.batch_size)
        self.updates = 0
        self.nonfinite_updates = 0
        self._bad = 0

    def begin(self) -> str | None:
        """Gives a new run the weights of `worldmodel.pretrained`; says in a line what was taken, None where nothing.

        Not for a run that is taken up or looked at: what it has learnt stands in its checkpoint. A ConfigError where
        the file cannot be read or does not fit.
        """
        if not (isinstance(self.model, LSSVWM) and self.model.config.pretrained):
            return None
        with refusals():
            return f"pretrained: {pretrained.load(self.model, self.model.config.pretrained)}"

    def autocast(self) -> AbstractContextManager:
        """The precision of everything but parameters, decays and states."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.train.precision == "bfloat16")

    def rows(self, arrays: dict[str, np.ndarray]) -> SequenceBatch:
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
        return self.rows(arrays | {"is_first": first})

    def update(self, arrays: dict[str, np.ndarray], agent: bool = True) -> dict[str, Tensor]:
        """Learns from the walkers' next windows, without `agent` the world model alone; figures by name.

        Raises Diverged.
        """
        rows = self.rows(arrays)
        if len(rows) != len(self.state):  # windows of another length, by other walkers
            self.state = self.model.initial(len(rows))
        output, out = self.update_world_model(rows)
        if not torch.isfinite(out["model/grad_norm"]):  # nothing that came of this update is to be trusted
            self.state = self.model.initial(len(rows))
        else:
            self.state = output.last_state.detach().clone()  # not a view that keeps the whole window alive
            if agent:
                out |= self.update_actor_critic(rows, output)
        last = "agent/grad_norm" if agent else "model/grad_norm"
        distributed.all_mean(self._running())
        self._count(last in out and bool(torch.isfinite(out[last])))
        return out

    def broadcast(self) -> None:
        """Gives all processes the weights and the optimisers' figures of the first one."""
        tensors = self._networks()
        for name, optimizer in self._optimizers().items():
            tensors |= optimizer_tensors(name, optimizer)[0]
        distributed.broadcast(tensors[name] for name in sorted(tensors))  # a checkpoint restores in any order
        self.updates = distributed.all_min(self.updates)

    def _running(self) -> list[Tensor]:
        """Figures that follow what was seen, beside the weights."""
        return [b for module in (self.model, self.agent) for b in module.buffers() if b.is_floating_point()]

    def update_world_model(self, rows: SequenceBatch) -> tuple[worldmodel.ObserveOutput, dict[str, Tensor]]:
        """One step of the world model on the walkers' windows; what it made of them, and figures by name."""
        with self.autocast():
            losses, output, figures = self.model.loss(rows, self.state)
        loss = worldmodel.total(losses, self.model.loss_scales())
        out = {f"model/loss/{k}": v.detach() for k, v in losses.items()} | {f"model/{k}": v for k, v in figures.items()}
        out["model/loss"] = loss.detach()
        out["model/grad_norm"] = self._step(loss, self.model, self.model_optimizer, self.config.train.grad_clip)
        return output, out

    def update_actor_critic(self, rows: SequenceBatch, output: worldmodel.ObserveOutput) -> dict[str, Tensor]:
        """One step of the actor-critic on dreams from the output's starts; figures by name."""
        alive = ~rows.terminated[:, output.start_index]
        starts = output.start_states.detach().reshape(-1)
        with self.autocast():
            dreamed = dream(self.model, self.agent.act, starts, alive.reshape(-1), self.agent.config.horizon)
        with self.autocast():  # its own context: weights cast without gradients must not be used again
            losses, figures = self.agent.loss(dreamed, output.feature.detach(), rows)
        loss = torch.stack(list(losses.values())).sum()
        out = {f"agent/loss/{k}": v.detach() for k, v in losses.items()} | {f"agent/{k}": v for k, v in figures.items()}
        out["agent/grad_norm"] = self._step(loss, self.agent, self.agent_optimizer, self.agent.config.grad_clip)
        self.agent.update_slow_critic()
        return out

    def anneal(self, progress: float) -> None:
        """Sets the world model's learning rate for a run that is `progress` (0 to 1) done."""
        train = self.config.train
        for group in self.model_optimizer.param_groups:
            group["lr"] = train.learning_rate * (1 - (1 - train.lr_end_fraction) * min(progress, 1.0))

    def _step(self, loss: Tensor, module: torch.nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> Tensor:
        """Backward and one optimiser step, skipped where it is not finite. -> the gradient's norm"""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        loss = loss.detach()
        with torch.no_grad():
            distributed.all_mean([loss, *(p.grad for p in module.parameters() if p.grad is not None)])
        norm = torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], clip)
        norm = torch.where(torch.isfinite(loss), norm, torch.nan)
        if torch.isfinite(norm):
            optimizer.step()
        return norm

    def _count(self, good: bool) -> None:
        """Counts an update that was skipped, in whole or for the agent alone."""
        self.updates += 1
        self.nonfinite_updates += not good
        self._bad = 0 if good else self._bad + 1
        if self._bad >= self.PATIENCE:
            raise Diverged(
                f"{self._bad} updates in a row had a loss or gradient that is not finite (update {self.updates}): "
                f"the last checkpoint is kept"
            )

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that a checkpoint needs to go on from here: tensors by name, and JSON."""
        tensors = self._networks() | flatten("walkers", self.state)
        meta: dict[str, Any] = {"updates": self.updates, "nonfinite_updates": self.nonfinite_updates}
        for name, optimizer in self._optimizers().items():
            part, meta[name] = optimizer_tensors(name, optimizer)
            tensors |= part
        return tensors, meta

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Puts back what `snapshot` gave. Raises CheckpointError where it is another model's, before any change."""
        walkers = self.model.initial(len(tensors["walkers/h"])) if "walkers/h" in tensors else self.state
        expected = flatten("walkers", walkers)
        match({name: t for name, t in tensors.items() if name.startswith("walkers/")}, expected)
        self.restore_networks(tensors)
        with torch.no_grad():
            leaves = {name: tensors[name].to(old.device) for name, old in expected.items()}
            self.state = TensorDict(unflatten("walkers", leaves), batch_size=walkers.batch_size).auto_batch_size_(1)
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

    def _networks(self) -> dict[str, Tensor]:
        return flatten("model", self.model.state_dict()) | flatten("agent", self.agent.state_dict())

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"model_optimizer": self.model_optimizer, "agent_optimizer": self.agent_optimizer}


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


def _optimizer(module: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0, fused=True)
