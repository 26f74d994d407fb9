"""Open-loop prediction on episodes that training never saw: `python -m eval.openloop RUN`

Mean PSNR in dB by horizon of the model (the mean of 8 sampled dreams; "mode" is a single one), of the last context
frame repeated, of the mean training image, and of the model's own reconstruction, over windows in which the view
changes ("moving") and over all. See `agent.logging.predictions`.

    python -m eval.openloop runs/MemoryMaze-lssvwm-s0 --episodes 8 --horizon 30
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box

import envs
from agent.actor import Actor, RandomPolicy
from agent.logging.predictions import predict, score
from agent.logging.video import openloop_strip, openloop_video
from agent.runs.cli import one_line_errors
from agent.runs.fields import ConfigError
from agent.runs.load import load_run
from agent.training.collector import Policy
from agent.training.evaluation import SEEDS
from agent.training.learner import Learner
from replay import Episode, EpisodeBuilder, Replay
from replay.progress import track


def main(argv: Sequence[str]) -> None:
    """Print the table, or one JSON object, and write RUN/plots/openloop.png and RUN/videos/heldout.mp4."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.openloop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, runs/<name>")
    parser.add_argument(
        "--episodes",
        type=int,
        default=4,
        help="held-out episodes, under the policy and random actions in turn (default: 4)",
    )
    parser.add_argument("--horizon", type=int, default=15, help="frames predicted (default: 15)")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    arguments = parser.parse_args(argv)
    if arguments.episodes < 1 or arguments.horizon < 1:
        parser.error("--episodes and --horizon want a number of 1 or more")
    torch.manual_seed(0)
    with one_line_errors():
        config, learner, step = load_run(arguments.run)
        if envs.obs_type(config.env) != "image":
            raise ConfigError(f"{config.env} has no frames to predict")
        mean = mean_image(Replay(arguments.run / "episodes", config.replay.capacity))
        episodes = held_out(learner, config.env, arguments.episodes)
        try:
            windows = [
                predict(learner, episode, arguments.horizon) for episode in track(episodes, "episodes", "prediction")
            ]
        except ValueError as error:
            raise ConfigError(f"{error}: give a shorter --horizon") from None
    result = score(windows, mean)
    openloop_strip(windows[-1], arguments.run / "plots" / "openloop.png")
    try:
        openloop_video(learner, episodes[-1], arguments.run / "videos" / "heldout.mp4")
    except ValueError as error:
        print(f"no video: {error}", file=sys.stderr)
    if arguments.json:
        print(as_json(result))
    else:
        print(f"{config.env} at step {step}, {len(episodes)} held-out episodes: PSNR in dB by horizon")
        print_table(result)


def as_json(result: dict[str, dict[str, list[float]]]) -> str:
    """What `score` returned; the mean over no window, for which JSON has no number, is null."""
    tables = {
        name: {row: [value if math.isfinite(value) else None for value in values] for row, values in table.items()}
        for name, table in result.items()
    }
    return json.dumps(tables, allow_nan=False)


def print_table(result: dict[str, dict[str, list[float]]]) -> None:
    """What `score` returned, a line for each answer."""
    for name, table in result.items():
        print(f"\n{name}, {int(table['windows'][0])} windows")
        print("horizon       " + "".join(f"{h:6d}" for h in range(1, len(table["model"]) + 1)))
        for row in ("model", "mode", "repeat", "mean_image", "reconstruction"):
            print(f"{row:14s}" + "".join(f"{value:6.1f}" for value in table[row]))


def held_out(learner: Learner, env: str, episodes: int) -> list[Episode]:
    """Whole episodes on the evaluation's seeds, under the policy and under random actions in turn."""
    environment = envs.make(env)
    actions = learner.model.actions
    continuous = isinstance(environment.action_space, Box)

    def policy(i: int) -> Policy:
        return RandomPolicy(actions, SEEDS + i, continuous=continuous) if i % 2 else Actor(learner, 1)

    try:
        return [_episode(environment, policy(i), i, actions) for i in track(range(episodes), "episodes", "held out")]
    finally:
        environment.close()


def _episode(environment: gymnasium.Env, policy: Policy, index: int, actions: int) -> Episode:
    continuous = isinstance(environment.action_space, Box)
    builder = EpisodeBuilder(actions)
    frame, _ = environment.reset(seed=SEEDS + index)
    builder.first(frame)
    is_first = np.ones(1, bool)
    while True:
        chosen = policy(frame[None], is_first)[0]
        action = chosen if continuous else int(chosen)
        frame, reward, terminated, truncated, _ = environment.step(action)
        builder.add(action, frame, float(reward), terminated)
        is_first = np.zeros(1, bool)
        if terminated or truncated:
            return builder.finish()


def mean_image(replay: Replay, every: int = 10) -> torch.Tensor:
    """The mean of every tenth training frame (H, W, C) in 0..1; damaged episodes are passed over."""
    frames = []
    for name in replay.names():
        with suppress(KeyError):
            frames.append(replay.get(name).observation[::every])
    if not frames:
        raise ConfigError("the run has no episodes")
    return torch.from_numpy(np.concatenate(frames).mean(0) / 255).float()


if __name__ == "__main__":
    main(sys.argv[1:])
