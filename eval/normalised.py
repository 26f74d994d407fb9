"""Scores on a common scale, 0 a random policy and 1 a human, for environments where both were published."""

from collections.abc import Callable
from functools import partial

from agent.plots import REFERENCES
from envs.atari_scores import SCORES, human_normalised


def normaliser(env: str) -> Callable[[float], float] | None:
    """What makes a return of `env` (a name, with or without options) such a score; None where nobody published."""
    name = env.partition(":")[0]
    game = name.removeprefix("Atari/")
    if game != name:
        return partial(human_normalised, game) if game in SCORES else None
    known = REFERENCES.get(name, {})
    if "random" not in known or "human" not in known:
        return None
    random, human = known["random"], known["human"]
    return lambda score: (score - random) / (human - random)
