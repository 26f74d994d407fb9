"""What one more frame costs, imagined or acted, against the length of the history before it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from agent.runs import presets
from agent.runs.config import Config, model_config
from agent.runs.fields import ConfigError
from agent.training.learner import Learner
from eval.bench.passes import random_batch
from eval.bench.timing import medians
from worldmodel import State
from worldmodel.rollout import imagine

SHAPE, ACTIONS = (64, 64, 3), 6
WINDOW = 64
HISTORIES = (64, 512, 8192)


def bench_dream(
    model: str = "lssvwm",
    histories: Sequence[int] = HISTORIES,
    batches: Sequence[int] = (1, 32),
    rounds: int = 50,
    preset: str = "cpu",
) -> dict[str, Any]:
    """Milliseconds of one imagined frame, policy included, from States with so much past; by number of rollouts."""
    learner, states = states_after(model, histories, preset)

    def dream(state: State) -> None:
        with learner.autocast():
            imagine(learner.model, state, learner.agent.act, 1)

    works = {
        (batch, history): partial(dream, state.expand(batch).clone())
        for history, state in states.items()
        for batch in batches
    }
    return _table("rollouts", medians(works, learner.device, rounds), histories, batches)


def bench_act(
    model: str = "lssvwm",
    histories: Sequence[int] = HISTORIES,
    environments: Sequence[int] = (1, 8, 64),
    rounds: int = 50,
    preset: str = "cpu",
) -> dict[str, Any]:
    """Milliseconds from frames in to actions out, for so many environments with so much past; stepping not counted."""
    learner, states = states_after(model, histories, preset)
    works = {}
    for history, state in states.items():
        for n in environments:
            policy = learner.policy(n)
            policy.state = state.expand(n).clone()
            works[n, history] = partial(policy, np.zeros((n, *SHAPE), np.uint8), np.zeros(n, bool), {})
    return _table("environments", medians(works, learner.device, rounds), histories, environments)


def states_after(name: str, histories: Sequence[int], preset: str) -> tuple[Learner, dict[int, State]]:
    """A learner, and the State (1,) after each number of frames of noise. Raises ConfigError: multiples of `WINDOW`."""
    if wrong := [history for history in histories if history < 1 or history % WINDOW]:
        raise ConfigError(f"--histories wants multiples of {WINDOW}, not {wrong[0]}")
    learner = Learner(presets.apply(preset, "image", Config(worldmodel=model_config(name))), SHAPE, ACTIONS)
    state, states = learner.model.initial(1), {}
    noise = random_batch(1, WINDOW, SHAPE, ACTIONS).to(learner.device)
    with torch.no_grad(), learner.autocast():
        for length in range(WINDOW, max(histories) + 1, WINDOW):
            state = learner.model.observe(noise, state).last_state
            if length in histories:
                states[length] = state
    return learner, states


def _table(
    counted: str, took: dict[tuple[int, int], float], histories: Sequence[int], counts: Sequence[int]
) -> dict[str, Any]:
    rows = {n: {history: 1e3 * took[n, history] for history in histories} for n in counts}
    ratios = {n: row[max(histories)] / row[min(histories)] for n, row in rows.items()}
    return {"counted": counted, "ms_per_frame": rows, "longest_over_shortest": ratios}


def print_table(result: dict[str, Any]) -> None:
    """A line for each number of rollouts or environments."""
    histories = list(next(iter(result["ms_per_frame"].values())))
    print("milliseconds a frame, by the frames of history before it")
    print(f"{result['counted']:12s} " + " ".join(f"{h:>8d}" for h in histories) + f" {'ratio':>7s}")
    for n, row in result["ms_per_frame"].items():
        times = " ".join(f"{ms:8.2f}" for ms in row.values())
        print(f"{n:<12d} {times} {result['longest_over_shortest'][n]:7.3f}")
