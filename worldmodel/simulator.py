"""A trained world model as a Gymnasium vector environment: whoever can act in one can be trained in the dream.

Letters: n environments side by side, N tokens, F feature width, A actions.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from worldmodel.base import State, WorldModel

Starts = Callable[[int, np.random.Generator], State]
"""Draws States (n,) to dream from, each with its past in memory; what they are drawn from belongs to the caller."""

StepReturn = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class Simulator(VectorEnv):
    """n dreams side by side, under gymnasium.vector's contract.

    Observations are decoded frames, uint8 (height, width, 3) or float32 (V,), or the model's features, float32
    (N * F,). Rewards are the model's. An episode terminates by chance, as often as the model says (1 - continue): a
    threshold would make rare ends never and likely ends always, and returns with them too high or too low. It is
    truncated after `horizon` steps. Ended dreams begin anew, elsewhere, in the step after (NEXT_STEP), or at once by
    `restart`. Chance is the simulator's own: `reset(seed=...)` makes a dream repeatable, and touches no other's.
    """

    def __init__(
        self,
        model: WorldModel,
        starts: Starts,
        n: int,
        horizon: int,
        observations: Literal["frame", "feature"] = "frame",
        continuous: bool = False,
    ):
        """`continuous`: actions are A values in -1..1, not one of A. ValueError where n or horizon is below 1."""
        if n < 1 or horizon < 1:
            raise ValueError(f"a simulator wants 1 or more dreams of 1 or more steps, not {n} of {horizon}")
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": ["rgb_array"]}
        self.render_mode = "rgb_array"
        self.num_envs, self.horizon = n, horizon
        self._model, self._starts, self._features, self._continuous = (
            model,
            starts,
            observations == "feature",
            continuous,
        )
        self._device = next(model.parameters()).device
        self._chance = torch.Generator().manual_seed(torch.seed()).get_state()
        actions = model.actions
        self.single_action_space = Box(-1, 1, (actions,), np.float32) if continuous else Discrete(actions)
        self.single_observation_space = self._space()
        self.action_space = batch_space(self.single_action_space, n)
        self.observation_space = batch_space(self.single_observation_space, n)
        self._state: State | None = None
        self._steps = np.zeros(n, int)
        self._ended = np.zeros(n, bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Dreams from newly drawn States; one seed for all of them (of a list, the first counts)."""
        seed = seed[0] if isinstance(seed, list) else seed
        super().reset(seed=seed)
        if seed is not None:
            self._chance = torch.Generator().manual_seed(seed).get_state()
        self._state = self._starts(self.num_envs, self.np_random).to(self._device)
        self._steps[:], self._ended[:] = 0, False
        return self._observe(self._state), {}

    @torch.no_grad()
    def step(self, actions: Any) -> StepReturn:
        """One imagined frame each; where an episode had ended, the first one of another."""
        if self._state is None:
            raise ResetNeeded("call reset() before step()")
        anew = self._ended.copy()
        with self._own_chance():
            self._state = self._model.dream(self._state, self._vectors(actions))
            feature = self._model.feature(self._state)
            going = torch.rand(self.num_envs) < self._model.continues(feature).float().cpu()
        reward = self._model.reward(feature).double().cpu().numpy()
        self._steps += 1
        terminated = ~going.numpy() & ~anew
        truncated = (self._steps >= self.horizon) & ~terminated & ~anew
        self._ended = terminated | truncated
        observation = self.restart(anew) if anew.any() else self._observe(self._state)
        return observation, np.where(anew, 0.0, reward), terminated, truncated, {}

    def restart(self, which: np.ndarray) -> np.ndarray:
        """Begins the dreams `which` (n,) bool anew; the observations of all, (n, ...)."""
        assert self._state is not None
        fresh = self._starts(int(which.sum()), self.np_random).to(self._device)
        state = self._state.clone()
        state[torch.from_numpy(which).to(self._device)] = fresh
        self._state = state
        self._steps[which], self._ended[which] = 0, False
        return self._observe(state)

    @torch.no_grad()
    def render(self) -> tuple[np.ndarray, ...]:
        """The decoded frame of each dream, (height, width, 3) uint8; ResetNeeded before the first reset."""
        if self._state is None:
            raise ResetNeeded("call reset() before render()")
        frames = self._decoded(self._state)
        if frames.ndim != 4:
            raise ValueError("this world model's observations are vectors: nothing to render")
        return tuple(frames)

    def _space(self) -> Box:
        """One observation's space, read off an empty State."""
        example = self._observe(self._model.initial(1))[0]
        if example.dtype == np.uint8:
            return Box(0, 255, example.shape, np.uint8)
        return Box(-np.inf, np.inf, example.shape, np.float32)

    @torch.no_grad()
    def _observe(self, state: State) -> np.ndarray:
        if self._features:
            return flat(self._model.feature(state))
        return self._decoded(state)

    def _decoded(self, state: State) -> np.ndarray:
        decoded = self._model.decode(self._model.feature(state)).float()
        if decoded.ndim == 4:
            decoded = (decoded.clamp(0, 1) * 255).round().to(torch.uint8)
        return decoded.cpu().numpy()

    def _vectors(self, actions: Any) -> Tensor:
        """(n, A) float32, one-hot where actions are discrete."""
        if self._continuous:
            return torch.as_tensor(np.asarray(actions, np.float32), device=self._device)
        chosen = np.asarray(actions)
        if chosen.shape != (self.num_envs,) or not ((chosen >= 0) & (chosen < self._model.actions)).all():
            raise ValueError(f"{self.num_envs} actions from 0 to {self._model.actions - 1} are wanted, not {actions}")
        return torch.eye(self._model.actions, device=self._device)[torch.from_numpy(chosen.astype(np.int64))]

    @contextmanager
    def _own_chance(self) -> Iterator[None]:
        """torch's generator as this simulator left it, and afterwards as it was for everyone else.

        On a card only the drawing on the CPU is repeatable.
        """
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._chance)
            yield
            self._chance = torch.get_rng_state()


def flat(feature: Tensor) -> np.ndarray:
    """Features (n, N, F) as an agent's observations, (n, N * F) float32."""
    return feature.flatten(-2).float().cpu().numpy()
