"""Is a world model a simulator that others can learn in? `python -m eval.dream_ppo RUN`

Stable-Baselines3's PPO is trained inside the dreams of RUN's newest checkpoint alone: it takes no step in the real
environment. Dreams begin in States made from RUN's episodes and are `--horizon` steps long. Then it plays whole
episodes of the real environment, on the evaluation's seeds, beside the random policy and RUN's own agent. Prints mean
returns with 95 % bootstrap intervals over episodes; writes RUN/dream-ppo-<observe>.json.

--observe features: PPO sees the model's features, (memory, latents), in the dream and, from real frames, outside it.
--observe frames: PPO sees decoded frames in the dream (vectors, where the environment shows such), real ones outside.

python -m eval.dream_ppo runs/gym-CartPole-v1-lssvwm-s0 --steps 50000 --seeds 0,1
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

import envs
from agent.actor import Actor, RandomPolicy
from agent.baselines.ppo import PPOConfig, check_installed
from agent.runs.cli import one_line_errors
from agent.runs.load import load_run
from agent.training.collector import Policy
from agent.training.evaluation import SEEDS, play
from agent.training.learner import Learner
from agent.training.replay_states import ReplayStates
from eval.options import numbers
from eval.returns import figures
from replay import Replay
from replay.atomic import write_text_atomically
from replay.progress import Progress
from worldmodel.env import Observe, WorldModelVectorEnv, flat

if TYPE_CHECKING:
    from stable_baselines3.common.policies import ActorCriticPolicy

PROTOCOL = "dream-ppo-1"
"""Names what is measured: figures of another name are not to be compared with these."""

ROLLOUT = 64
"""Steps of each dream between two of PPO's updates."""

EVERYTHING = 1 << 62
"""Capacity of a replay that deletes nothing."""


@dataclass(frozen=True)
class Protocol:
    """What the figures depend on, beside the checkpoint."""

    steps: int = 100_000
    """Imagined steps in all; PPO takes whole rollouts, `ROLLOUT` of each dream, so that it may be some more."""
    observe: Observe = "features"
    dreams: int = 16
    """Side by side."""
    horizon: int = 64
    """Steps of a dream."""
    episodes: int = 20
    """Real ones, of each policy."""
    protocol: str = PROTOCOL

    def ppo(self) -> PPOConfig:
        """Features tell the past, as frames do not: of those, several are seen at once."""
        frames = 4 if self.observe == "frames" else 1
        return PPOConfig(
            frame_stack=frames,
            n_steps=ROLLOUT,
            n_epochs=10,
            learning_rate=3e-4,
            clip_range=0.2,
            entropy_scale=1e-3,
            gamma=0.997,
        )


class DreamtActor(Actor):
    """A policy that was taught on features, in n real environments: the world model's memory goes along."""

    def __init__(self, learner: Learner, environments: int, policy: "ActorCriticPolicy"):
        super().__init__(learner, environments)
        self.policy = policy

    def choose(self, feature: Tensor) -> Tensor:
        """See `Actor`."""
        actions = torch.from_numpy(self.policy.predict(flat(feature))[0])
        if actions.dim() == 2:  # continuous
            return actions.to(feature.device)
        return torch.nn.functional.one_hot(actions, self.actions).float().to(feature.device)


def main(argv: Sequence[str]) -> None:
    """Train in the dream, play outside, print a table and write it as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.dream_ppo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, runs/<name>, with its episodes")
    parser.add_argument(
        "--steps",
        type=int,
        default=Protocol.steps,
        help=f"imagined steps, rounded up to whole rollouts of {ROLLOUT} of each dream (default: %(default)s)",
    )
    parser.add_argument("--seeds", type=numbers, default=[0], help="PPO is taught anew for each (default: 0)")
    parser.add_argument("--observe", choices=("features", "frames"), default="features", help="default: %(default)s")
    parser.add_argument("--dreams", type=int, default=Protocol.dreams, help="side by side (default: %(default)s)")
    parser.add_argument("--horizon", type=int, default=Protocol.horizon, help="of a dream (default: %(default)s steps)")
    parser.add_argument(
        "--episodes", type=int, default=Protocol.episodes, help="real ones of each policy (default: %(default)s)"
    )
    parser.add_argument("--envs", type=int, default=2, help="real environments side by side (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    given = parser.parse_args(argv)
    for name in ("steps", "dreams", "horizon", "episodes", "envs"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} wants a number of 1 or more")
    protocol = Protocol(given.steps, given.observe, given.dreams, given.horizon, given.episodes)
    with one_line_errors():
        result = measure(given.run, protocol, given.seeds, given.envs, "python -m eval.dream_ppo " + " ".join(argv))
    print(json.dumps(result) if given.json else table(result))


def measure(run: Path, protocol: Protocol, seeds: Sequence[int], side_by_side: int, command: str) -> dict[str, Any]:
    """Trains and plays; writes the figures to the run's folder. Raises as `agent.runs.load.load_run`.

    ConfigError too where Stable-Baselines3 is missing, or the run's episodes are.
    """
    check_installed("eval.dream_ppo")
    config, learner, step = load_run(run)
    environments = envs.make_vector(config.env, min(side_by_side, protocol.episodes))
    n, actions = environments.num_envs, environments.single_action_space
    continuous = isinstance(actions, Box)
    try:
        policies: dict[str, dict[str, Any]] = {}
        for seed in seeds:
            torch.manual_seed(seed)
            starts = ReplayStates(learner, Replay(run / "episodes", EVERYTHING), seed)
            policy, taken, dreamt = train_offline(learner, starts, protocol, seed, continuous)
            player = _player(learner, policy, protocol, n)
            policies[f"PPO, seed {seed}"] = _played(player, environments, config.env, protocol) | {
                "imagined": taken,
                "dreamt": dreamt,
            }
        random = RandomPolicy(learner.model.actions, SEEDS, hold=0.0, continuous=continuous)
        policies["random"] = _played(random, environments, config.env, protocol)
        policies["the run's own agent"] = _played(Actor(learner, n), environments, config.env, protocol)
    finally:
        environments.close()
    result = {"env": config.env, "worldmodel": config.worldmodel.name, "seed_of_training": config.seed, "step": step}
    result |= {**asdict(protocol), "envs": n, "ppo": asdict(protocol.ppo()), "policies": policies, "command": command}
    path = run / f"dream-ppo-{protocol.observe}.json"
    write_text_atomically(path, json.dumps(result, indent=1) + "\n")
    return result


def train_offline(
    learner: Learner, starts: ReplayStates, protocol: Protocol, seed: int, continuous: bool
) -> tuple["ActorCriticPolicy", int, float | None]:
    """A policy, the imagined steps it took, and the mean return of the last hundred dreams; None where none ended."""
    from stable_baselines3.common.callbacks import CallbackList, ConvertCallback
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.vec_env import VecMonitor

    from agent.baselines.sb3_env import Sb3Envs
    from agent.baselines.sb3_policy import algorithm

    dreams = WorldModelVectorEnv(
        learner.model,
        starts,
        protocol.dreams,
        protocol.horizon,
        protocol.observe,
        continuous,
        autoreset_mode=AutoresetMode.SAME_STEP,
        autocast=learner.autocast,
    )
    images = len(dreams.single_observation_space.shape or ()) == 3
    device = learner.device if images else torch.device("cpu")
    taught = algorithm(protocol.ppo(), VecMonitor(Sb3Envs(dreams)), seed, device)
    taught.set_logger(Logger(folder=None, output_formats=[]))
    with Progress(protocol.steps, name=f"dreaming, seed {seed}") as progress:

        def show(local: dict[str, Any], _: dict[str, Any]) -> bool:
            progress.update(taught.num_timesteps)
            return True

        taught.learn(protocol.steps, CallbackList([ConvertCallback(show)]), log_interval=protocol.steps)
    ended = [episode["r"] for episode in taught.ep_info_buffer or []]
    return taught.policy, taught.num_timesteps, float(np.mean(ended)) if ended else None


def _player(learner: Learner, policy: "ActorCriticPolicy", protocol: Protocol, n: int) -> Policy:
    from agent.baselines.sb3_policy import Player

    if protocol.observe == "features":
        return DreamtActor(learner, n, policy)
    return Player(policy, protocol.ppo())


def _played(policy: Policy, environments: VectorEnv, env: str, protocol: Protocol) -> dict[str, Any]:
    """Figures of real episodes; samples are drawn alike for every policy."""
    torch.manual_seed(SEEDS)
    returns = [episode.ret for episode in play(policy, environments, protocol.episodes)]
    return figures(np.array(returns), env)


def table(result: dict[str, Any]) -> str:
    """The figures in a few lines."""
    imagined = max(row.get("imagined", 0) for row in result["policies"].values())
    lines = [
        f"{result['env']}: PPO taught for {imagined:,} imagined steps on {result['observe']}, in dreams of "
        f"{result['horizon']} steps of {result['worldmodel']} at step {result['step']:,}; {result['episodes']} real "
        f"episodes of each",
        f"{'policy':24} {'return':>9}  {'95 % interval':>20}  {'in dreams':>9}",
    ]
    for name, row in result["policies"].items():
        low, high = row["mean_interval"]
        dreamt = f"{row['dreamt']:.2f}" if row.get("dreamt") is not None else ""
        lines.append(f"{name:24} {row['mean']:9.2f}  {f'{low:.2f} to {high:.2f}':>20}  {dreamt:>9}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
