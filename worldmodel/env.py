"""The learned simulator as a Gymnasium vector environment: any agent trains inside it.

Letters: n dreams side by side, N tokens, F width of a token's feature, A actions.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from worldmodel.base import State, WorldModel
from worldmodel.rollout import imagine

StartStates = Callable[[int], State]
"""n -> n States (n,) with the memory of their past; random ones are drawn by torch's own generator."""

Observe = Literal["features", "frames"]
"""Observations: the model's features, flattened (N * F,) float32; or decoded, (H, W, C) uint8 or (V,) float32."""

StepReturn = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class WorldModelVectorEnv(VectorEnv):
    """n dreams of one world model, stepped as one batch.

    Rewards are those that the model expects. An episode terminates by a draw from the model's continue probability, so
    that mean returns equal those weighted by that probability; after `horizon` steps it is truncated.

    Autoreset is NEXT_STEP: the step after an episode's end ignores the action and gives the first observation of the
    next episode, reward 0. With SAME_STEP that observation comes at once, and the last one of the episode is in
    `infos["final_obs"]`.

    Args:
        model: is not changed; gradients are not recorded.
        start_states: gives the States that episodes begin at.
        n: how many dreams, at least 1.
        horizon: steps until truncation.
        observe: see `Observe`.
        continuous: actions are vectors in -1..1, not one of A.
        render_mode: "rgb_array" for `render`, where the model decodes images.
        autoreset_mode: NEXT_STEP or SAME_STEP.
        autocast: the precision that the model runs in.

    Raises:
        ValueError: for a number below 1, another autoreset mode, or rendering of a model that decodes vectors.
    """

    def __init__(
        self,
        model: WorldModel,
        start_states: StartStates,
        n: int,
        horizon: int,
        observe: Observe = "features",
        continuous: bool = False,
        render_mode: str | None = None,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ):
        if n < 1 or horizon < 1:
            raise ValueError(f"{n} dreams of {horizon} steps: want 1 or more of each")
        if autoreset_mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            raise ValueError(f"autoreset mode {autoreset_mode}: want NEXT_STEP or SAME_STEP")
        self.model, self.start_states, self.horizon = model, start_states, horizon
        self.observe, self.continuous, self.autocast = observe, continuous, autocast
        self.num_envs, self.render_mode = n, render_mode
        self.device = next(model.parameters()).device
        decoded = self._decoded_shape()
        if render_mode is not None and (render_mode != "rgb_array" or len(decoded) != 3):
            raise ValueError(f"render mode {render_mode!r}: want 'rgb_array', and a model that decodes images")
        self.metadata = {
            "autoreset_mode": autoreset_mode,
            "render_modes": ["rgb_array"] if len(decoded) == 3 else [],
        }
        self.single_observation_space = _space((model.tokens * model.feature_width,), decoded, observe)
        self.single_action_space = Box(-1, 1, (model.actions,)) if continuous else Discrete(model.actions)
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        self._state: State | None = None
        self._steps = np.zeros(n, int)
        self._ended = np.zeros(n, bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """New episodes: observations (n, ...) and no infos. A seed makes everything after it repeatable."""
        super().reset(seed=seed)
        with self._drawing():
            self._state = self.start_states(self.num_envs)
            observation = self._observed(self.model.feature(self._state))
        self._steps[:], self._ended[:] = 0, False
        return observation, {}

    def step(self, actions: np.ndarray) -> StepReturn:
        """Observations (n, ...), rewards (n,) float64, terminated (n,), truncated (n,), infos.

        Raises ResetNeeded before the first reset, and ValueError for actions outside of the action space.
        """
        if self._state is None:
            raise ResetNeeded("step() before reset()")
        with self._drawing():
            imagined = imagine(self.model, self._state, self._one_hot(actions).unsqueeze(0), horizon=1)
            reward = imagined.reward[0].double().cpu().numpy()
            continue_prob = imagined.continue_prob[0]
            terminated = (torch.rand_like(continue_prob) >= continue_prob).cpu().numpy()
            began = self._ended.copy()  # all false with SAME_STEP
            observation = self._observed(imagined.feature[1])
            self._begin(imagined.state, began, observation)
            self._steps = np.where(began, 0, self._steps + 1)
            reward, terminated = np.where(began, 0.0, reward), terminated & ~began
            truncated = self._steps >= self.horizon
            ended = terminated | truncated
            infos: dict[str, Any] = {}
            if self.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP:
                infos = self._finals(observation, ended)
                self._begin(self._state, ended, observation)
                self._steps[ended] = 0
            else:
                self._ended = ended
        return observation, reward, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The n current frames (H, W, 3) uint8; None without a render mode."""
        if self.render_mode is None or self._state is None:
            return None
        with torch.no_grad(), self.autocast():
            return tuple(_pixels(self.model.decode(self.model.feature(self._state))))

    def _begin(self, state: State, where: np.ndarray, observation: np.ndarray) -> None:
        """Continues from `state`; at `where` (n,) from fresh starts, whose observations replace those given."""
        self._state = state
        if not where.any():
            return
        fresh = self.start_states(int(where.sum()))
        index = torch.from_numpy(np.flatnonzero(where)).to(self.device)
        self._state = state.apply(lambda old, new: old.index_copy(0, index, new.to(old.dtype)), fresh)
        observation[where] = self._observed(self.model.feature(fresh))

    def _finals(self, observation: np.ndarray, ended: np.ndarray) -> dict[str, Any]:
        """The last observations of episodes, as in Gymnasium's own vector environments."""
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(ended):
            infos = self._add_info(infos, {"final_obs": observation[i].copy(), "final_info": {}}, int(i))
        return infos

    def _observed(self, feature: Tensor) -> np.ndarray:
        """(n, N, F) -> observations."""
        if self.observe == "features":
            return flat(feature)
        decoded = self.model.decode(feature)
        return _pixels(decoded) if decoded.dim() == 4 else _own(decoded)

    def _one_hot(self, actions: np.ndarray) -> Tensor:
        """Actions (n, A) as world models take them: one-hot where they are discrete."""
        n, width = self.num_envs, self.model.actions
        if self.continuous:
            values = np.array(actions, np.float32)
            if values.shape != (n, width) or not (np.abs(values) <= 1).all():  # false for NaN too
                raise ValueError(f"actions {actions}: want {n} vectors of {width}, each value from -1 to 1")
            return torch.from_numpy(values).to(self.device)
        chosen = np.asarray(actions)
        if chosen.shape != (n,) or not np.isin(chosen, np.arange(width)).all():
            raise ValueError(f"actions {actions}: want {n}, each from 0 to {width - 1}")
        return torch.eye(width, device=self.device)[torch.from_numpy(chosen.astype(np.int64)).to(self.device)]

    @torch.no_grad()
    def _decoded_shape(self) -> tuple[int, ...]:
        return tuple(self.model.decode(self.model.feature(self.model.initial(1))).shape[1:])

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Draws from a seed of this environment's generator, and leaves torch's as it was."""
        with torch.random.fork_rng(range(torch.cuda.device_count())), torch.no_grad(), self.autocast():
            torch.manual_seed(int(self.np_random.integers(2**63)))
            yield


class WorldModelEnv(gymnasium.Env):
    """One dream as a plain Gymnasium environment. Raises ValueError for several."""

    def __init__(self, dreams: WorldModelVectorEnv):
        if dreams.num_envs != 1:
            raise ValueError(f"{dreams.num_envs} dreams side by side: want 1")
        self.dreams = dreams
        self.observation_space, self.action_space = dreams.single_observation_space, dreams.single_action_space
        self.metadata, self.render_mode = dreams.metadata, dreams.render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """See `WorldModelVectorEnv`."""
        super().reset(seed=seed)
        return self.dreams.reset(seed=seed)[0][0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """See `WorldModelVectorEnv`."""
        observation, reward, terminated, truncated, _ = self.dreams.step(np.asarray([action]))
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The frame (H, W, 3) uint8."""
        frames = self.dreams.render()
        return None if frames is None else frames[0]


def flat(feature: Tensor) -> np.ndarray:
    """(n, N, F) -> (n, N * F) float32: features as observations."""
    return _own(feature.flatten(-2))


def _own(values: Tensor) -> np.ndarray:
    """float32, copied: observations are changed in place, States never."""
    return values.float().cpu().numpy().copy()


def _space(features: tuple[int, ...], decoded: tuple[int, ...], observe: Observe) -> Box:
    if observe == "frames" and len(decoded) == 3:
        return Box(0, 255, decoded, np.uint8)
    return Box(-np.inf, np.inf, decoded if observe == "frames" else features, np.float32)


def _pixels(image: Tensor) -> np.ndarray:
    """(n, H, W, C) in 0..1, or somewhat beyond -> uint8"""
    return (image.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
