"""A world model as an environment: agents of any kind learn inside it, and know of nothing else.

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

StartStates = Callable[[int], State]
"""n -> n States (n,) with memory of what came before them; drawn, where drawn at all, by torch's own generator."""

Observe = Literal["features", "frames"]
"""What an agent in the dream sees: the model's features in one row, (N * F,) float32; or what the model decodes from
them, frames (H, W, C) uint8 or vectors (V,) float32."""

StepReturn = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class WorldModelVectorEnv(VectorEnv):
    """n dreams of one world model, stepped as one batch.

    Rewards are what the model expects. An episode terminates by a draw from the probability of going on that the model
    gives: returns are then in the mean what an agent gets which weighs rewards by that probability, and a danger of a
    fifth at each step ends episodes, as a threshold at a half never would. After `horizon` steps it is truncated.

    Autoreset is NEXT_STEP, as in `envs.vector`: the step after an episode's end ignores the action and gives the first
    observation of the next, reward 0. With SAME_STEP that observation comes at once, and the last one of the episode
    in `infos["final_obs"]`.

    Args:
        model: left as it is; gradients are not recorded.
        start_states: where dreams begin.
        n: how many dreams, at least 1.
        horizon: steps until truncation.
        observe: see `Observe`.
        continuous: actions are vectors in -1..1, not one of A.
        render_mode: "rgb_array" for `render`, where the model decodes images.
        autoreset_mode: NEXT_STEP or SAME_STEP.
        autocast: the precision that the model runs in.

    Raises:
        ValueError: a number below 1, another autoreset mode, or images asked of a model that decodes vectors.
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
        """All dreams begin anew; observations (n, ...) and no infos. With a seed, all that follows follows from it."""
        super().reset(seed=seed)
        with self._drawing():
            self._state = self.start_states(self.num_envs)
            observation = self._observed(self.model.feature(self._state))
        self._steps[:], self._ended[:] = 0, False
        return observation, {}

    def step(self, actions: np.ndarray) -> StepReturn:
        """Observations (n, ...), rewards (n,) float64, terminated (n,), truncated (n,), infos.

        ResetNeeded before the first reset; a ValueError for actions that are none.
        """
        if self._state is None:
            raise ResetNeeded("step() before reset(): a dream has to begin somewhere")
        with self._drawing():
            state = self.model.dream(self._state, self._wide(actions))
            feature = self.model.feature(state)
            reward = self.model.reward(feature).double().cpu().numpy()
            likely = self.model.continue_prob(feature).float()
            terminated = (torch.rand_like(likely) >= likely).cpu().numpy()
            began = self._ended.copy()  # nowhere, where resets do not wait for a step of their own
            observation = self._observed(feature)
            self._begin(state, began, observation)
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
        """The n frames (H, W, 3) uint8 that the dreams stand at; None without a render mode."""
        if self.render_mode is None or self._state is None:
            return None
        with torch.no_grad(), self.autocast():
            return tuple(_pixels(self.model.decode(self.model.feature(self._state))))

    def _begin(self, state: State, where: np.ndarray, observation: np.ndarray) -> None:
        """Goes on from `state`, and from fresh starts at `where` (n,), whose observations are put in their place."""
        self._state = state
        if not where.any():
            return
        fresh = self.start_states(int(where.sum()))
        place = torch.from_numpy(np.flatnonzero(where)).to(self.device)
        # States are never changed in place: the one before may be anyone's
        self._state = state.apply(lambda old, new: old.index_copy(0, place, new.to(old.dtype)), fresh)
        observation[where] = self._observed(self.model.feature(fresh))

    def _finals(self, observation: np.ndarray, ended: np.ndarray) -> dict[str, Any]:
        """The last observations of episodes, as Gymnasium's own vector environments tell them."""
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(ended):
            infos = self._add_info(infos, {"final_obs": observation[i].copy(), "final_info": {}}, int(i))
        return infos

    def _observed(self, feature: Tensor) -> np.ndarray:
        """(n, N, F) -> what an agent sees."""
        if self.observe == "features":
            return flat(feature)
        decoded = self.model.decode(feature)
        return _pixels(decoded) if decoded.dim() == 4 else _own(decoded)

    def _wide(self, actions: np.ndarray) -> Tensor:
        """Actions as world models take them: (n, A), one-hot where they are discrete."""
        n, width = self.num_envs, self.model.actions
        if self.continuous:
            values = np.array(actions, np.float32)
            if values.shape != (n, width) or not (np.abs(values) <= 1).all():  # nor is what is not a number
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
        """Draws by a seed from this environment's generator; torch's goes on after it as if nothing had been drawn."""
        with torch.random.fork_rng(range(torch.cuda.device_count())), torch.no_grad(), self.autocast():
            torch.manual_seed(int(self.np_random.integers(2**63)))
            yield


class WorldModelEnv(gymnasium.Env):
    """One dream as a plain Gymnasium environment; a ValueError of several."""

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
    """(n, N, F) -> (n, N * F) float32: features as an agent in the dream sees them."""
    return _own(feature.flatten(-2))


def _own(values: Tensor) -> np.ndarray:
    """float32, and no view of a State's tensors: observations are changed in place."""
    return values.float().cpu().numpy().copy()


def _space(features: tuple[int, ...], decoded: tuple[int, ...], observe: Observe) -> Box:
    if observe == "frames" and len(decoded) == 3:
        return Box(0, 255, decoded, np.uint8)
    return Box(-np.inf, np.inf, decoded if observe == "frames" else features, np.float32)


def _pixels(image: Tensor) -> np.ndarray:
    """(n, H, W, C) in 0..1, or somewhat beyond -> uint8"""
    return (image.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
