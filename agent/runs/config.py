"""The whole configuration of a run: its fields (each field's comment is its --help), its checks, its file."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

import worldmodel
from agent.actor_critic import ActorCriticConfig
from agent.baselines.ppo import BASELINES, PPOConfig, is_unread
from agent.runs.fields import ConfigError, did_you_mean, from_dict, refusals, to_dict
from agent.training.optimizer import Optimizer
from replay.atomic import write_text_atomically
from worldmodel import plugins
from worldmodel.checks import check_numbers
from worldmodel.lssvwm_config import LSSVWMConfig
from worldmodel.rssm import RSSMConfig

WorldModelConfig = LSSVWMConfig | RSSMConfig
"""The configuration of a world model of `worldmodel.MODELS`; a plugin brings its own class."""

AgentConfig = ActorCriticConfig | PPOConfig
"""The configuration of an agent."""

AGENTS: dict[str, Callable[[], AgentConfig]] = {"dreamer": ActorCriticConfig, **BASELINES}
"""Default configurations of agents by name."""


@dataclass
class ReplayConfig:
    """Experience on disk and how it is read."""

    capacity: int = 1_000_000
    """Environment steps kept at most; the oldest episodes are deleted beyond it."""
    batch_size: int = 8
    """Sequences in a batch: B."""
    batch_length: int = 64
    """Frames of each sequence in a batch: T; a multiple of worldmodel.state_interval."""
    curriculum_start: int = 0
    """Frames of the first batches; they double, with fewer sequences, to batch_length at half of training; 0: off."""
    random_start_prob: float = 0.0
    """Probability with each batch that a sequence restarts at a random frame, its State empty; 1: no State is kept."""

    def __post_init__(self) -> None:
        shares = ("random_start_prob",)
        check_numbers("replay", self, may_be_zero=("curriculum_start", *shares), at_most_one=shares)

    def stages(self) -> list[tuple[int, int]]:
        """(batch_size, batch_length) of each stage of the curriculum, shortest first; their product stays."""
        found = [(self.batch_size, self.batch_length)]
        while self.curriculum_start and found[0][1] % 2 == 0 and found[0][1] // 2 >= self.curriculum_start:
            found.insert(0, (found[0][0] * 2, found[0][1] // 2))
        return found


@dataclass
class TrainConfig:
    """The schedule, in environment steps unless said."""

    prefill: int = 1_000
    """Steps of a random policy before training begins."""
    replay_ratio: float = 32.0
    """Frames replayed for each environment step; an update replays batch_size * batch_length of them."""
    learning_rate: float = 4e-4
    """AdamW learning rate of the world model."""
    lr_end_fraction: float = 1.0
    """Fraction of that rate left at the last step; it falls linearly."""
    optimizer: Optimizer = "adamw"
    """Of the world model and of the agent; laprop is DreamerV3's."""
    warmup: int = 0
    """Updates over which learning rates rise linearly from zero."""
    grad_clip: float = 100.0
    """Largest gradient norm of the world model; not read with agc."""
    agc: float = 0.0
    """Adaptive clipping: largest norm of each gradient as a share of its parameter's (DreamerV3: 0.3); 0: none."""
    sticky: float = 0.0
    """Chance that an acting environment repeats its last action, until 100 rewards other than zero have been met."""
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
    """CPU threads of the learner; 0: every core."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:<number>."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Autocast of everything but parameters, decays and states."""

    def __post_init__(self) -> None:
        check_numbers(
            "train",
            self,
            may_be_zero=("prefill", "threads", "warmup", "agc", "sticky"),
            at_most_one=("lr_end_fraction", "sticky"),
        )
        if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9][0-9]*))?", self.device):
            raise ValueError(f"train.device wants auto, cpu, cuda or cuda:<number>, got {self.device!r}")


@dataclass
class Config:
    """Everything that a run depends on; stored as config.yaml in its folder."""

    env: str = "MemoryMaze"
    """Environment: a name from the list above, or gym:<id>; options after a colon, as in ObjectRecall:delay=20."""
    preset: Literal["auto", "debug", "cpu", "recall", "gpu"] = "auto"
    """debug (seconds), cpu (2 cores, minutes), recall (2 cores, small images and memory), gpu; auto is cpu or gpu."""
    steps: int = 12_000
    """Environment steps in all."""
    seed: int = 0
    """Seed of everything."""
    envs: int = 4
    """Environments stepped side by side."""
    run_dir: str = ""
    """Run folder; empty: runs/<env>-<worldmodel>-s<seed>, with a baseline its name in the world model's place."""
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases logging."""
    tensorboard: bool = False
    """TensorBoard's event files as well, in RUN/tensorboard."""
    worldmodel: WorldModelConfig = field(default_factory=LSSVWMConfig)
    agent: AgentConfig = field(default_factory=ActorCriticConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_numbers("", self, may_be_zero=("seed",))
        if isinstance(self.agent, PPOConfig):
            self._check_rollout(self.agent)
        else:
            self._check_lengths(self.replay.batch_length, self.replay.curriculum_start)

    def _check_rollout(self, agent: PPOConfig) -> None:
        steps = self.envs * agent.n_steps
        if steps % agent.batch_size:
            raise ValueError(
                f"agent.batch_size ({agent.batch_size}) must divide envs * agent.n_steps ({self.envs} * "
                f"{agent.n_steps} = {steps}): a rollout is split into whole minibatches"
            )

    def _check_lengths(self, frames: int, first: int) -> None:
        interval = self.worldmodel.state_interval
        if interval < 1:
            raise ValueError(f"worldmodel.state_interval must be more than zero, got {interval}")
        if frames % interval:
            raise ValueError(
                f"replay.batch_length ({frames}) must be a multiple of worldmodel.state_interval ({interval}): "
                f"a State is kept at the end of each interval"
            )
        lengths = [frames // 2**n for n in range(frames.bit_length()) if frames % (2**n * interval) == 0]
        if first and first not in lengths:
            raise ValueError(
                f"replay.curriculum_start ({first}) must be one of 0, {', '.join(map(str, reversed(lengths)))}: "
                f"they double up to replay.batch_length ({frames})"
            )


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
    if name not in AGENTS:
        near = did_you_mean(name, AGENTS) or f": known are {', '.join(AGENTS)}"
        raise ConfigError(f"unknown agent {name}{near}")
    return AGENTS[name]()


def unchecked(model: str, agent: str) -> Config:
    """The default configuration of this world model and agent, for `fields.replace`, which checks it."""
    config = Config()
    config.worldmodel, config.agent = model_config(model), agent_config(agent)
    return config


def save_config(config: Config, path: Path) -> None:
    """Writes the configuration as YAML, atomically; that of a baseline without the fields that it does not read."""
    tree = to_dict(config, leave_out=is_unread if isinstance(config.agent, PPOConfig) else None)
    write_text_atomically(path, yaml.safe_dump(tree, sort_keys=False))


def load_config(path: Path) -> Config:
    """The configuration in a YAML file; fields that it leaves out keep their defaults.

    Reading runs no code but that of the module that a world model of another package is named by. Raises ConfigError,
    which names the file, where it cannot be read, and for unknown names, wrong types and values out of range.
    """
    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    try:
        model, agent = _name(tree, "worldmodel", LSSVWMConfig.name), _name(tree, "agent", ActorCriticConfig.name)
        return from_dict(unchecked(model, agent), tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _name(tree: Any, section: str, default: str) -> str:
    """The `name` in a section of a file's tree, where it has one."""
    found = tree.get(section) if isinstance(tree, dict) else None
    name = found.get("name") if isinstance(found, dict) else None
    return name if isinstance(name, str) else default
