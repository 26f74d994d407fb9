"""What a world model expects of the frame in which a hidden thing comes back (ObjectRecall, SceneCut).

At the return, everything about the thing must come from memory; one frame later it was just seen. Each figure stands
beside that of a frame copied from the one before, and of a control whose memory is wiped in the middle of the gap.

- surprise: KL in nats of the frame's latents from what memory expected (`WorldModel.surprise`);
- psnr: in dB, of the frame that a dream of one step decodes, its latents at their mode;
- accuracy (ObjectRecall): the share of such frames in which colour and place are both right, as the environment's
  own `classify_frame` finds them: the colour and place whose clean picture is nearest.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

import envs
from agent.actor import RandomPolicy
from agent.logging.predictions import psnr
from agent.training.evaluation import SEEDS
from agent.training.learner import Learner
from agent.training.offline import EVERYTHING
from replay import Episode, EpisodeBuilder, Replay
from replay.atomic import wait_for_lock
from replay.progress import track
from worldmodel import SequenceBatch, State

AT_ONCE = 16
"""Episodes side by side: what full attention needs at long delays fits into memory."""
BACK = 3
"""The `phase` label of the frames in which the thing is back."""

Figures = dict[str, dict[str, float]]
"""`return`, `just_seen` and `reset` (the return after a wiped memory): figures by name; `copy_psnr` among them."""


def measure(learner: Learner, env: str, delay: int, episodes: int) -> Figures:
    """Means over so many held-out episodes of random actions, at this delay."""
    environment = envs.make(env, delay=delay, labels=True)
    parts = []
    for begin in track(range(0, episodes, AT_ONCE), "batches", f"delay {delay}"):
        seeds = range(SEEDS + begin, SEEDS + min(begin + AT_ONCE, episodes))
        played = [play(environment, seed, learner.model.actions) for seed in seeds]
        parts.append(_measure(learner, environment, played))
    environment.close()
    moments = {moment: parts[0][moment].keys() for moment in parts[0]}
    return {
        moment: {name: float(np.concatenate([part[moment][name] for part in parts]).mean()) for name in names}
        for moment, names in moments.items()
    }


def gather(env: str, episodes: int, folder: Path, seed: int) -> None:
    """So many episodes of random actions in `folder`; what is there stays, and what is missing is played.

    Another command at work in the folder is waited for, as by `replay.collect`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = envs.make(env, labels=True)
    actions = int(environment.action_space.n)  # type: ignore[attr-defined]
    with wait_for_lock(folder):
        replay = Replay(folder, EVERYTHING)
        for index in track(range(replay.episodes, episodes), "episodes", folder.name):
            replay.add(play(environment, seed + index, actions))
    environment.close()


def play(environment: gymnasium.Env, seed: int, actions: int) -> Episode:
    """One episode of random actions, with labels."""
    builder, actor = EpisodeBuilder(actions), RandomPolicy(actions, seed)
    frame, labels = environment.reset(seed=seed)
    builder.first(frame, labels)
    first, over = np.ones(1, bool), False
    while not over:
        action = int(actor(frame[None], first)[0])
        first = np.zeros(1, bool)
        frame, reward, terminated, truncated, labels = environment.step(action)
        builder.add(action, frame, float(reward), terminated, labels)
        over = terminated or truncated
    return builder.finish()


@torch.no_grad()
def _measure(learner: Learner, environment: Any, played: list[Episode]) -> dict[str, dict[str, np.ndarray]]:
    """Figures (episodes,) of each, by moment and name."""
    rows = learner.episodes(played)
    phase = played[0].labels["phase"]
    back, gap = int((phase == BACK).argmax()), int((phase != 0).argmax())
    wipe = (gap + back) // 2
    model, nothing = learner.model, learner.model.initial(len(rows))
    with learner.autocast():
        before = model.observe(rows[:, :back], nothing, sample=False).last_state
        seen = model.observe(rows[:, back : back + 1], before, sample=False).last_state
        wiped = rows[:, wipe:back].clone()
        wiped.is_first[:, 0] = True
        forgot = model.observe(wiped, nothing, sample=False).last_state
        return {
            "return": _moment(learner, environment, played, rows, back, before),
            "just_seen": _moment(learner, environment, played, rows, back + 1, seen),
            "reset": _moment(learner, environment, played, rows, back, forgot),
        }


def _moment(
    learner: Learner, environment: Any, played: list[Episode], rows: SequenceBatch, at: int, state: State
) -> dict[str, np.ndarray]:
    """Figures (episodes,) of row `at`, predicted from the State before it."""
    predicted = _next(learner, state, rows.action[:, at])
    truth = rows.observation.float() / 255
    figures = {
        "kl": learner.model.kl(rows[:, at : at + 1], state)[:, 0],
        "psnr": psnr(predicted, truth[:, at]),
        "copy_psnr": psnr(truth[:, at - 1], truth[:, at]),
    }
    named = {name: value.float().cpu().numpy() for name, value in figures.items()}
    if hasattr(environment, "classify_frame"):
        right = [(episode.labels["colour"][at], episode.labels["place"][at]) for episode in played]
        named["accuracy"] = _accuracy(environment, predicted, right)
        named["copy_accuracy"] = _accuracy(environment, truth[:, at - 1], right)
    return named


def _next(learner: Learner, state: State, action: Tensor) -> Tensor:
    """The frame (B, H, W, C) that one dreamed step decodes."""
    return learner.model.decode(learner.model.feature(learner.model.dream(state, action, sample=False))).clamp(0, 1)


def _accuracy(environment: Any, frames: Tensor, right: list[tuple[Any, Any]]) -> np.ndarray:
    colour, place = environment.classify_frame(frames.float().cpu().numpy())
    wanted = np.array(right)
    return ((colour == wanted[:, 0]) & (place == wanted[:, 1])).astype(float)


LINES = {
    "accuracy": ("return", "accuracy"),
    "  memory wiped": ("reset", "accuracy"),
    "surprise (nats)": ("return", "kl"),
    "  just seen": ("just_seen", "kl"),
    "  memory wiped, surprise": ("reset", "kl"),
    "PSNR (dB)": ("return", "psnr"),
    "  just seen, PSNR": ("just_seen", "psnr"),
    "  frame before, copied": ("return", "copy_psnr"),
    "  memory wiped, PSNR": ("reset", "psnr"),
}
"""A table's lines: moment and figure of each."""


def print_table(results: Sequence[dict[str, Any]]) -> None:
    """What `eval.retention` found: a line for each figure of each run, a column for each delay."""
    for result in results:
        delays = result["delays"]
        print(f"\n{result['run']}, {result['parameters'] / 1e6:.2f}M parameters, {result['step']} updates")
        print(f"{'  delay':26s}" + "".join(f"{delay:8d}" for delay in delays))
        for line, (moment, figure) in LINES.items():
            values = [result["retention"][str(delay)][moment].get(figure) for delay in delays]
            if None not in values:
                digits = 2 if figure == "accuracy" else 1
                print(f"  {line:24s}" + "".join(f"{value:8.{digits}f}" for value in values))
