"""Windows of replay that grow as training goes on (row "progressive lengthening" of arXiv 2505.20171)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from tensordict import TensorDict
from torch import Tensor

from agent.runs.checkpoint import match
from agent.runs.config import ReplayConfig
from agent.runs.flatten import flatten, unflatten
from replay import Replay, SequenceSampler
from worldmodel import State


class LengthCurriculum:
    """A `SequenceSampler` whose windows double, at as many rows a batch, up to `replay.batch_length`.

    Each stage before the last takes an even share of the first half of training. It begins with a sampler of its own,
    at random places, since a batch has fewer sequences.
    """

    def __init__(self, replay: Replay, config: ReplayConfig, seed: int, initial: Callable[[int], State]):
        self.replay, self.config, self.seed, self.initial = replay, config, seed, initial
        self.stages = config.stages()
        self._begin(0)

    def next(self, progress: float) -> tuple[dict[str, np.ndarray], State]:
        """A batch and the State before it, for a run that is `progress` (0 to 1) done."""
        before = len(self.stages) - 1
        stage = min(int(progress * 2 * before), before)
        if stage > self.stage:  # never back, where a run is made longer
            self._begin(stage)
        return self.sampler.next(self.stages[stage][1])

    def carry(self, state: State) -> None:
        """See `SequenceSampler`."""
        self.sampler.carry(state)

    def _begin(self, stage: int) -> None:
        self.stage = stage
        batch = self.stages[stage][0]
        self.sampler = SequenceSampler(
            self.replay, batch, self.seed + stage, self.initial, self.config.random_start_prob
        )

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The carried State as tensors `sampler/...`, and stage and places as JSON."""
        return flatten("sampler", self.sampler.state), {"stage": self.stage, **self.sampler.state_dict()}

    def restore(self, tensors: dict[str, Tensor], saved: dict[str, Any]) -> None:
        """Goes on from what `snapshot` gave. Raises CheckpointError where the State is another model's."""
        self._begin(saved["stage"])
        expected = flatten("sampler", self.sampler.state)
        match({name: tensor for name, tensor in tensors.items() if name.startswith("sampler/")}, expected)
        leaves = {name: tensors[name].to(old.device) for name, old in expected.items()}
        state = TensorDict(unflatten("sampler", leaves), batch_size=self.sampler.state.batch_size)
        self.sampler.load_state_dict(saved, state.auto_batch_size_(1))
