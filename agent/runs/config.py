"""The whole configuration of a run: its fields (each field's comment is its --help), its checks, its file."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

import worldmodel
from agent.actor_critic import ActorCriticConfig
from agent.baselines.ppo import BASELINES, PPOConfig, unread
from agent.runs.fields import ConfigError, did_you_mean, fields, from_dict, refusals, to_dict
from replay.atomic import write_text_atomically
from worldmodel import plugins
from worldmodel.lssvwm import LAYER_TYPES, SCANS, LSSVWMConfig
from worldmodel.neighbours import NeighbourConfig
from worldmodel.rssm import RSSMConfig

WorldModelConfig = LSSVWMConfig | NeighbourConfig | RSSMConfig
"""The configuration of any world model of `worldmodel.MODELS`; one from outside brings its own class."""

AgentConfig = ActorCriticConfig | PPOConfig
"""The configuration of any agent, by its name: the one that needs a world model, and the baselines."""


@dataclass
class ReplayConfig:
    """Experience on disk and how it is read."""

    capacity: int = 1_000_000
    """Most environment steps kept; the oldest episodes are deleted beyond it."""
    batch_size: int = 8
    """SequenceSampler read at once: B."""
    batch_length: int = 64
    """Frames in a window: T; a multiple of worldmodel.state_interval."""
    curriculum_start: int = 0
    """Frames in the first windows: they double, at fewer a batch, up to `frames` by half of training; 0: no growth."""
    random_start_prob: float = 0.0
    """Chance at each window that a walker goes elsewhere with empty memory; at 1 none reaches beyond its window."""

    def stages(self) -> list[tuple[int, int]]:
        """(batch, frames) of each stage of growth, shortest windows first; batch * frames stays."""
        found = [(self.batch_size, self.batch_length)]
        while self.curriculum_start and found[0][1] % 2 == 0 and found[0][1] // 2 >= self.curriculum_start:
            found.insert(0, (found[0][0] * 2, found[0][1] // 2))
        return found


@dataclass
class TrainConfig:
    """The schedule, in environment steps unless said."""

    prefill: int = 1_000
    """Steps of a random policy before learning begins."""
    replay_ratio: float = 32.0
    """Replayed frames for each environment step."""
    learning_rate: float = 4e-4
    """World model's AdamW learning rate."""
    lr_end_fraction: float = 1.0
    """Share of that rate left at the last step; it falls linearly from the first."""
    grad_clip: float = 100.0
    """Largest gradient norm of the world model."""
    log_every: int = 20
    """Updates between lines of metrics.jsonl."""
    eval_every: int = 4_000
    """Steps between evaluations."""
    eval_episodes: int = 4
    """Episodes in each evaluation, on seeds of their own."""
    save_every: int = 2_000
    """Steps between checkpoints."""
    max_checkpoints: int = 2
    """Checkpoints kept."""
    video_every: int = 8_000
    """Steps between open-loop videos."""
    threads: int = 0
    """CPU threads of the learner; 0 takes every core."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:<number>."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Autocast of everything but parameters, decays and states."""


@dataclass
class Config:
    """Everything that a run depends on; stored as config.yaml in its folder."""

    env: str = "MemoryMaze"
    """Environment: a name from the list above, or gym:<id>; options after a colon, as in ObjectRecall:delay=20."""
    preset: Literal["auto", "debug", "cpu", "recall", "gpu"] = "auto"
    """debug (seconds), cpu (2 cores, minutes), recall (the same, to remember and choose), gpu; auto is cpu or gpu."""
    steps: int = 12_000
    """Environment steps in all."""
    seed: int = 0
    """Seed of everything."""
    envs: int = 4
    """Environments stepped side by side."""
    run_dir: str = ""
    """Run folder; empty: runs/<env>-<worldmodel>-s<seed>, or with a baseline's name in the world model's place."""
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases logging."""
    tensorboard: bool = False
    """TensorBoard's event files as well, in RUN/tensorboard."""
    worldmodel: WorldModelConfig = field(default_factory=LSSVWMConfig)
    agent: AgentConfig = field(default_factory=ActorCriticConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


MAY_BE_ZERO = {"seed", "prefill", "threads", "entropy", "replay_value", "free_nats", "unimix", "lam"} | {
    "curriculum_start",
    "restart",
    "open_loop_prob",
    "remat_frames",
    "hidden",
}
"""Numbers, by the last part of their name, that may be zero, as loss weights may. The rest are positive."""
AT_LEAST_ONE = {"discount_horizon"}
"""Numbers, by the last part of their name, that begin at one."""
AT_MOST_ONE = {
    "discount",
    "lr_end_fraction",
    "restart",
    "open_loop_prob",
    "unimix",
    "lam",
    "slow_critic_tau",
    "return_norm_rate",
}
"""Numbers, by the last part of their name, that are shares."""


def model_config(name: str) -> WorldModelConfig:
    """The default configuration of the world model of this name; a ConfigError where there is none."""
    if name not in worldmodel.names() and not plugins.is_path(name):
        known = worldmodel.names()
        near = did_you_mean(name, known) or f": known are {', '.join(known)}"
        raise ConfigError(f"unknown world model {name}{near}")
    with refusals():
        return worldmodel.find(name)[1]()


def agent_config(name: str) -> AgentConfig:
    """The default configuration of the agent of this name; a ConfigError where there is none."""
    known: dict[str, Any] = {"dreamer": ActorCriticConfig, **BASELINES}
    if name not in known:
        near = did_you_mean(name, known) or f": known are {', '.join(known)}"
        raise ConfigError(f"unknown agent {name}{near}")
    return known[name]()


def validate(config: Config) -> None:
    """Refuse, with a ConfigError of one line, a configuration that cannot be trained."""
    for refusal in _refusals(config):
        raise ConfigError(refusal)


def _refusals(config: Config) -> Iterator[str]:
    outsider = not isinstance(config.worldmodel, WorldModelConfig)
    for name, leaf in fields(config).items():
        if outsider and name.startswith("worldmodel.") and name != "worldmodel.state_interval":
            continue  # its own class says what its options may be
        numbers = [n for size in leaf.value for n in size] if isinstance(leaf.value, tuple) else [leaf.value]
        for number in numbers:
            if isinstance(number, int | float) and not isinstance(number, bool):
                yield from _number_refusals(name, number)
    device = config.train.device
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9][0-9]*))?", device):
        yield f"train.device wants auto, cpu, cuda or cuda:<number>, got {device!r}"
    if isinstance(config.agent, PPOConfig):
        steps = config.envs * config.agent.n_steps
        if steps % config.agent.batch_size:
            yield (
                f"agent.batch_size ({config.agent.batch_size}) must divide envs * agent.n_steps ({config.envs} * "
                f"{config.agent.n_steps} = {steps}): a rollout is gone through in whole minibatches"
            )
        return
    model = config.worldmodel
    yield from _window_refusals(config.replay, model.state_interval)
    if isinstance(model, LSSVWMConfig):
        if model.remat_frames % model.state_interval:
            yield (
                f"worldmodel.remat_frames ({model.remat_frames}) must be 0 or a multiple of "
                f"worldmodel.state_interval ({model.state_interval}): memory is handed on at the end of a block"
            )
        if not model.blocks:
            yield "worldmodel.blocks names no block size"
        stack = model.stack().name if isinstance(model, NeighbourConfig) else model.name
        if model.d_model % model.n_heads:
            yield f"worldmodel.d_model ({model.d_model}) must be a multiple of worldmodel.n_heads ({model.n_heads})"
        inner = model.expand * model.d_model
        if SCANS.intersection(LAYER_TYPES[stack]) and inner % model.headdim:
            yield (
                f"worldmodel.expand * worldmodel.d_model ({model.expand} * {model.d_model} = {inner}) must be a "
                f"multiple of worldmodel.headdim ({model.headdim})"
            )
        if stack == "s5" and model.d_state % 2:
            yield f"worldmodel.d_state ({model.d_state}) must be even for s5: its states come in conjugate pairs"
        if round(model.mlp_ratio * model.d_model) < 1:
            yield f"worldmodel.mlp_ratio * worldmodel.d_model ({model.mlp_ratio} * {model.d_model}) must come to 1 unit or more"


def _window_refusals(replay: ReplayConfig, block: int) -> Iterator[str]:
    first, frames = replay.curriculum_start, replay.batch_length
    halves = [frames // 2**times for times in range(frames.bit_length()) if frames % 2**times == 0]
    wanted = f"must be a multiple of worldmodel.state_interval ({block}): a window is cut into blocks"
    if frames % block:
        yield f"replay.batch_length ({frames}) {wanted}"
    if first and first not in halves:
        lengths = ", ".join(str(length) for length in reversed(halves) if length % block == 0)
        yield f"replay.curriculum_start ({first}) must be one of 0, {lengths}: they double up to replay.batch_length ({frames})"
    if first % block:
        yield f"replay.curriculum_start ({first}) {wanted}"


def _number_refusals(name: str, number: float) -> Iterator[str]:
    leaf = name.split(".")[-1]
    if not math.isfinite(number):
        yield f"{name} must be finite, got {number}"
    elif number < 0 or (number == 0 and leaf not in MAY_BE_ZERO and not leaf.endswith("_weight")):
        zero = "zero or more" if leaf in MAY_BE_ZERO or leaf.endswith("_weight") else "more than zero"
        yield f"{name} must be {zero}, got {number}"
    elif leaf in AT_LEAST_ONE and number < 1:
        yield f"{name} must be one or more, got {number}"
    elif leaf in AT_MOST_ONE and number > 1:
        yield f"{name} is a share: at most 1, got {number}"


def save_config(config: Config, path: Path) -> None:
    """Write the configuration as YAML, in one step; for a baseline without what it makes no use of."""
    tree = to_dict(config)
    if isinstance(config.agent, PPOConfig):
        sections = {name: section for name, section in tree.items() if not unread(f"{name}.")}
        sections["train"] = {name: value for name, value in tree["train"].items() if not unread(f"train.{name}")}
        tree = sections
    write_text_atomically(path, yaml.safe_dump(tree, sort_keys=False))


def load_config(path: Path) -> Config:
    """The configuration that a YAML file holds; fields that it leaves out keep their defaults.

    Reading runs no code, but that of the module which a world model from outside is named by. A file that cannot
    be read, unknown names, wrong types and values that `validate` refuses are ConfigErrors that name the file.
    """
    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    try:
        model, agent = _name(tree, "worldmodel"), _name(tree, "agent")
        config = Config(worldmodel=model_config(model)) if model is not None else Config()
        if agent is not None:
            config.agent = agent_config(agent)
        config = from_dict(config, tree)
        validate(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


def _name(tree: Any, section: str) -> str | None:
    """The `name` in a section of a file's tree, where it is one."""
    found = tree.get(section) if isinstance(tree, dict) else None
    name = found.get("name") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None
