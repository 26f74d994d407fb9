"""Open-loop prediction on episodes that training never saw: `python -m eval.openloop RUN`

Mean PSNR in dB by horizon of the model (the mean of 8 sampled rollouts; "mode" is one with the most likely latents), of
the last context frame repeated, of the mean training image, and of the model's own reconstruction, over windows in
which the view changes ("moving") and over all. See `agent.logging.predictions`.

    python -m eval.openloop runs/MemoryMaze-lssvwm-s0 --episodes 8 --horizon 30
"""

import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from gymnasium.spaces import Box

import envs
from agent.logging.predictions import predict, score
from agent.logging.video import openloop_strip, openloop_video
from agent.runs.cli import one_line_errors
from agent.runs.fields import ConfigError
from agent.training.evaluation import SEEDS
from agent.training.learner import Learner
from agent.training.load import load_run
from envs.policies import RandomPolicy
from eval.arguments import parser, positive
from eval.episodes import record
from replay import Episode, Replay
from replay.progress import track

Table = dict[str, list[float]]
"""PSNR by horizon of each predictor."""


def main(argv: Sequence[str]) -> None:
    """Print the table, or one JSON object, and write RUN/plots/openloop.png and RUN/videos/heldout.mp4."""
    options = parser("openloop", __doc__)
    options.add_argument("run", type=Path, metavar="RUN", help="run folder, runs/<name>")
    words = "held-out episodes, under the policy and random actions in turn (default: %(default)s)"
    options.add_argument("--episodes", type=positive, default=4, help=words)
    options.add_argument("--horizon", type=positive, default=15, help="frames predicted (default: %(default)s)")
    options.add_argument("--json", action="store_true", help="print one JSON object alone")
    given = options.parse_args(argv)
    torch.manual_seed(0)
    with one_line_errors():
        config, learner, step = load_run(given.run)
        if envs.obs_type(config.env) != "image":
            raise ConfigError(f"{config.env} has no frames to predict")
        mean = mean_image(Replay(given.run / "episodes", config.replay.capacity))
        episodes = held_out(learner, config.env, given.episodes)
        try:
            windows = [predict(learner, episode, given.horizon) for episode in track(episodes, "episodes", "predicted")]
        except ValueError as error:
            raise ConfigError(f"{error}: give a shorter --horizon") from None
    result = score(windows, mean)
    openloop_strip(windows[-1], given.run / "plots" / "openloop.png")
    try:
        openloop_video(learner, episodes[-1], given.run / "videos" / "heldout.mp4")
    except ValueError as error:
        print(f"no video: {error}", file=sys.stderr)
    if given.json:
        print(as_json(result))
    else:
        print(f"{config.env} at step {step}, {len(episodes)} held-out episodes: PSNR in dB by horizon")
        print_table(result)


def as_json(result: dict[str, Table]) -> str:
    """What `score` returns; the mean over no window, for which JSON has no number, is null."""
    tables = {
        name: {row: [value if math.isfinite(value) else None for value in values] for row, values in table.items()}
        for name, table in result.items()
    }
    return json.dumps(tables, allow_nan=False)


def print_table(result: dict[str, Table]) -> None:
    """What `score` returns, a line for each predictor."""
    for name, table in result.items():
        print(f"\n{name}, {int(table['windows'][0])} windows")
        print("horizon       " + "".join(f"{h:6d}" for h in range(1, len(table["model"]) + 1)))
        for row in ("model", "mode", "repeat", "mean_image", "reconstruction"):
            print(f"{row:14s}" + "".join(f"{value:6.1f}" for value in table[row]))


def held_out(learner: Learner, env: str, episodes: int) -> list[Episode]:
    """Whole episodes on the evaluation's seeds, under the policy and under random actions in turn."""
    environments = envs.make_vector(env, 1)
    actions, continuous = learner.model.actions, isinstance(environments.single_action_space, Box)
    try:
        return [
            record(
                RandomPolicy(actions, SEEDS + i, continuous=continuous) if i % 2 else learner.policy(1),
                environments,
                actions,
                SEEDS + i,
            )[0]
            for i in track(range(episodes), "episodes", "held out")
        ]
    finally:
        environments.close()


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
