"""Is a world model a simulator that others can learn in? `python -m eval.dream_ppo RUN`

Stable-Baselines3's PPO is trained inside the imagination of RUN's newest checkpoint alone: it takes no step in the real
environment. Rollouts begin in States of RUN's episodes and are `--horizon` steps long. Then it plays whole episodes of
the real environment, on the evaluation's seeds, beside the random policy and RUN's own agent. Prints mean returns with
95 % bootstrap intervals over episodes; writes RUN/dream-ppo-<observe>.json.

--observe features: PPO observes the model's features, (memory, latents), in imagination and, from real frames, outside.
--observe frames: PPO observes decoded frames (or vectors) in imagination, and real ones outside.

python -m eval.dream_ppo runs/gym-CartPole-v1-lssvwm-s0 --steps 50000 --seeds 0,1
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode
from torch import Tensor

import envs
from agent.actor import WorldModelPolicy
from agent.baselines.ppo import PPOConfig, check_installed
from agent.runs.cli import one_line_errors
from agent.training.evaluation import SEEDS, evaluate
from agent.training.learner import Learner
from agent.training.load import load_run
from agent.training.offline import EVERYTHING
from agent.training.replay_states import ReplayStates
from envs.policies import Policy, RandomPolicy
from eval.arguments import parser, positive, seeds
from eval.output import write_json
from eval.returns import metrics
from replay import Replay
from replay.progress import Progress
from worldmodel.env import Observe, WorldModelVectorEnv, flat

if TYPE_CHECKING:
    from stable_baselines3.common.policies import ActorCriticPolicy

PROTOCOL = "dream-ppo-1"
"""Names what is measured: results of another name are not comparable."""
ROLLOUT = 64
"""Steps of each rollout between two of PPO's updates."""


@dataclass(frozen=True)
class Protocol:
    """What the results depend on, beside the checkpoint."""

    steps: int = 100_000
    """Imagined steps in all, rounded up to whole rollouts of PPO: `ROLLOUT` steps side by side."""
    observe: Observe = "features"
    dreams: int = 16
    """Imagined rollouts side by side."""
    horizon: int = 64
    """Steps of an imagined rollout."""
    episodes: int = 20
    """Real ones, of each policy."""
    protocol: str = PROTOCOL

    def ppo(self) -> PPOConfig:
        """Features hold the past, as frames do not: of those, several are seen at once."""
        return PPOConfig(
            frame_stack=4 if self.observe == "frames" else 1,
            n_steps=ROLLOUT,
            n_epochs=10,
            learning_rate=3e-4,
            clip_range=0.2,
            entropy_scale=1e-3,
            gamma=0.997,
        )


class FeaturePolicy(WorldModelPolicy):
    """A policy that is trained on features, in n real environments, whose frames the world model observes."""

    def __init__(self, learner: Learner, n: int, policy: "ActorCriticPolicy"):
        super().__init__(learner.model, learner.agent, n, autocast=learner.autocast)
        self.policy = policy

    def choose(self, feature: Tensor) -> Tensor:
        """See `WorldModelPolicy`."""
        actions = torch.from_numpy(self.policy.predict(flat(feature))[0]).to(feature.device)
        if actions.dim() == 2:  # continuous
            return actions
        return torch.nn.functional.one_hot(actions, self.model.actions).float()


def main(argv: Sequence[str]) -> None:
    """Train in imagination, play outside, print a table and write it as JSON."""
    options = parser("dream_ppo", __doc__)
    options.add_argument("run", type=Path, metavar="RUN", help="run folder, runs/<name>, with its episodes")
    for name, words in (
        ("steps", f"imagined steps, rounded up to whole rollouts of {ROLLOUT} of each dream"),
        ("dreams", "imagined rollouts side by side"),
        ("horizon", "steps of an imagined rollout"),
        ("episodes", "real ones of each policy"),
    ):
        default = getattr(Protocol, name)
        options.add_argument(f"--{name}", type=positive, default=default, help=f"{words} (default: {default})")
    options.add_argument("--seeds", type=seeds, default=[0], help="one PPO is trained for each (default: 0)")
    options.add_argument("--observe", choices=("features", "frames"), default="features", help="default: %(default)s")
    options.add_argument("--envs", type=positive, default=2, help="real environments side by side (default: 2)")
    options.add_argument("--json", action="store_true", help="print one JSON object alone")
    given = options.parse_args(argv)
    protocol = Protocol(given.steps, given.observe, given.dreams, given.horizon, given.episodes)
    with one_line_errors():
        result = measure(given.run, protocol, given.seeds, given.envs, "python -m eval.dream_ppo " + " ".join(argv))
    print(json.dumps(result) if given.json else table(result))


def measure(run: Path, protocol: Protocol, seeds: Sequence[int], side_by_side: int, command: str) -> dict[str, Any]:
    """Trains and plays; writes the results to the run's folder. Raises as `agent.training.load.load_run`.

    ConfigError too where Stable-Baselines3 is missing, or the run's episodes are.
    """
    check_installed("eval.dream_ppo")
    config, learner, step = load_run(run)
    environment = envs.make(config.env)
    continuous = isinstance(environment.action_space, Box)
    environment.close()
    n = min(side_by_side, protocol.episodes)

    def played(make: Callable[[int], Policy]) -> dict[str, Any]:
        torch.manual_seed(SEEDS)  # every policy draws alike
        return metrics([episode.ret for episode in evaluate(make, config.env, protocol.episodes, n)], config.env)

    policies: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        torch.manual_seed(seed)
        starts = ReplayStates(learner, Replay(run / "episodes", EVERYTHING), seed)
        policy, steps, imagined_return = train(learner, starts, protocol, seed, continuous)
        result = played(partial(_policy, learner, policy, protocol))
        policies[f"PPO, seed {seed}"] = result | {"imagined_steps": steps, "imagined_return": imagined_return}
    random = partial(RandomPolicy, learner.model.actions, SEEDS, hold=0.0, continuous=continuous)
    policies["random"] = played(lambda _: random())
    policies["the run's own agent"] = played(learner.policy)
    result = {"env": config.env, "worldmodel": config.worldmodel.name, "seed_of_training": config.seed, "step": step}
    result |= {**asdict(protocol), "envs": n, "ppo": asdict(protocol.ppo()), "policies": policies, "command": command}
    write_json(run / f"dream-ppo-{protocol.observe}.json", result)
    return result


def train(
    learner: Learner, starts: ReplayStates, protocol: Protocol, seed: int, continuous: bool
) -> tuple["ActorCriticPolicy", int, float | None]:
    """A policy, the imagined steps it took, and the mean return of the last 100 imagined episodes, None without any."""
    from stable_baselines3.common.callbacks import CallbackList, ConvertCallback
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.vec_env import VecMonitor

    from agent.baselines.sb3_env import Sb3Envs
    from agent.baselines.sb3_policy import algorithm

    imagined = WorldModelVectorEnv(
        learner.model,
        starts,
        protocol.dreams,
        protocol.horizon,
        protocol.observe,
        continuous,
        autoreset_mode=AutoresetMode.SAME_STEP,
        autocast=learner.autocast,
    )
    images = len(imagined.single_observation_space.shape or ()) == 3
    device = learner.device if images else torch.device("cpu")
    ppo = algorithm(protocol.ppo(), VecMonitor(Sb3Envs(imagined)), seed, device)
    ppo.set_logger(Logger(folder=None, output_formats=[]))
    with Progress(protocol.steps, name=f"imagining, seed {seed}") as progress:

        def show(local: dict[str, Any], _: dict[str, Any]) -> bool:
            progress.update(ppo.num_timesteps)
            return True

        ppo.learn(protocol.steps, CallbackList([ConvertCallback(show)]), log_interval=protocol.steps)
    ended = [episode["r"] for episode in ppo.ep_info_buffer or []]
    return ppo.policy, ppo.num_timesteps, float(np.mean(ended)) if ended else None


def _policy(learner: Learner, policy: "ActorCriticPolicy", protocol: Protocol, n: int) -> Policy:
    from agent.baselines.sb3_policy import Player

    return FeaturePolicy(learner, n, policy) if protocol.observe == "features" else Player(policy, protocol.ppo())


def table(result: dict[str, Any]) -> str:
    """The results in a few lines."""
    steps = max(row.get("imagined_steps", 0) for row in result["policies"].values())
    lines = [
        f"{result['env']}: PPO trained for {steps:,} imagined steps on {result['observe']}, in rollouts of "
        f"{result['horizon']} steps of {result['worldmodel']} at step {result['step']:,}; {result['episodes']} real "
        f"episodes of each",
        f"{'policy':24} {'return':>9}  {'95 % interval':>20}  {'imagined':>9}",
    ]
    for name, row in result["policies"].items():
        low, high = row["mean_interval"]
        imagined = f"{row['imagined_return']:.2f}" if row.get("imagined_return") is not None else ""
        lines.append(f"{name:24} {row['mean']:9.2f}  {f'{low:.2f} to {high:.2f}':>20}  {imagined:>9}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
