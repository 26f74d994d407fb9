"""Windows of replay that grow as training goes on: short ones teach frames quickly, long ones teach memory."""

from typing import Any

import numpy as np

from agent.runs.config import ReplayConfig
from replay import Replay, SequenceSampler


class Windows:
    """The walkers' next windows. Each stage before the last lasts an even share of training's first half.

    A stage begins with walkers of its own, at random places, since it reads more or fewer rows at once.
    """

    def __init__(self, replay: Replay, config: ReplayConfig, seed: int):
        self.replay, self.config, self.seed = replay, config, seed
        self.stages = config.stages()
        self._begin(0)

    def next(self, progress: float) -> dict[str, np.ndarray]:
        """SequenceBatch (B, T, ...) as `SequenceSampler.next` gives them, for a run that is `progress` (0 to 1) done."""
        before = len(self.stages) - 1
        stage = min(int(progress * 2 * before), before)
        if stage > self.stage:  # a run that is made longer after all keeps its windows
            self._begin(stage)
        return self.walkers.next(self.stages[stage][1])

    def _begin(self, stage: int) -> None:
        self.stage = stage
        self.walkers = SequenceSampler(
            self.replay, self.stages[stage][0], self.seed + stage, self.config.random_start_prob
        )

    def state_dict(self) -> dict[str, Any]:
        """The stage, and where its walkers stand: plain JSON."""
        return {"stage": self.stage, **self.walkers.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as the windows that gave `state`."""
        self._begin(state["stage"])
        self.walkers.load_state_dict(state)
