"""Scores on a common scale, 0 a random policy and 1 a human, for environments where both were published."""

import importlib
import importlib.util
from collections.abc import Callable

from agent.plots import REFERENCES


def normaliser(env: str) -> Callable[[float], float] | None:
    """What makes a return of `env` (a name, with or without options) such a score; None where nobody published."""
    name = env.partition(":")[0]
    if name.startswith("Atari/"):
        return _atari(name.removeprefix("Atari/"))
    known = REFERENCES.get(name, {})
    if "random" not in known or "human" not in known:
        return None
    random, human = known["random"], known["human"]
    return lambda score: (score - random) / (human - random)


def _atari(game: str) -> Callable[[float], float] | None:
    """See `envs.atari_scores`; None for a game that is not in its table."""
    if importlib.util.find_spec("envs.atari_scores") is None:
        return None
    human_normalised = importlib.import_module("envs.atari_scores").human_normalised
    try:
        human_normalised(game, 0.0)
    except (KeyError, ValueError):
        return None
    return lambda score: float(human_normalised(game, score))
