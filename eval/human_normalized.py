"""Scores on a common scale, 0 a random policy and 1 a human, for environments where both were published."""

from collections.abc import Callable

from agent.logging.plots import references


def normaliser(env: str) -> Callable[[float], float] | None:
    """What makes a return of `env` (a name, with or without options) such a score; None where nobody published."""
    known = references(env)
    if "random" not in known or "human" not in known:
        return None
    random, human = known["random"], known["human"]
    return lambda score: (score - random) / (human - random)
