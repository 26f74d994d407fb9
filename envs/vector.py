"""Environments in worker processes, started by forkserver, as one Gymnasium vector environment."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

import numpy as np
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.forkserver import start_process
from envs.worker import serve

_JOIN_SECONDS = 5.0
_DEATHS = 3  # of an environment's process, without a step between, after which it is not started again
TRAINING_SEEDS = 1_000_000
"""Seeds of restarted workers stay below; evaluation's begin here."""

StepReturn = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class WorkerError(RuntimeError):
    """An environment raised an exception (the message has its traceback), or its process keeps dying."""


class WorkerRefused(WorkerError):
    """The environment cannot be made, for the `reason` given."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class WorkerDied(Exception):
    """A worker process ended without answering."""


class ForkserverVectorEnv(VectorEnv):
    """n copies of `envs.make(name, **options)`, each in a process of its own.

    Autoreset is NEXT_STEP: the step after an episode's end ignores the action and gives the first observation
    of the next episode, reward 0, terminated and truncated False.

    A worker that dies is started again, with a warning. The step in which it died gives its last observation, reward 0,
    truncated True and `info["worker_restarted"]`; the next step resets it, with a seed below `TRAINING_SEEDS` that
    depends on the seed of `reset`, the worker's index and its number of restarts.

    Args:
        name, options: passed to `envs.make` in the worker.
        n: how many environments, at least 1.

    Raises:
        ValueError, RuntimeError: n is less than 1, or as raised by `envs.make`.
        WorkerError: `envs.make` failed in another way; from any later call: an environment raised an exception, gave
            what cannot be pickled, died twice in a reset, or died for the third time without a step between.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, name: str, n: int, **options: Any) -> None:
        if n < 1:
            raise ValueError(f"a vector environment needs at least 1 environment, not {n}")
        self.num_envs = n
        self._name, self._options = name, options
        self._pending: str | None = None
        self._needs_reset = np.ones(n, bool)
        self._restarts = [0] * n
        self._deaths = [0] * n  # of each environment since its last step
        self._root_seed = np.random.SeedSequence().entropy
        self._was_reset = self._needs_reset
        # Seeds for the next reset of each environment; None goes on with the environment's own generator.
        self._next_seeds: list[int | None] = [None] * n
        self._workers: list[_Worker] = []
        try:
            # All are started before the first is waited for.
            for _ in range(n):
                self._workers.append(_Worker(name, options))
            spaces = [self._call(i, "spaces") for i in range(n)]
        except WorkerDied as death:
            self.close()
            raise WorkerError(f"a worker of {name} died before it was ready ({death})") from death
        except WorkerRefused as refusal:
            self.close()
            raise refusal.reason from None
        except BaseException:
            self.close()
            raise
        self.single_observation_space, self.single_action_space = spaces[0]
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        shape = self.single_observation_space.shape or ()
        self._observations = np.zeros((n, *shape), self.single_observation_space.dtype)

    @property
    def processes(self) -> list[Any]:
        """The worker processes, in order."""
        return [worker.process for worker in self._workers]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset all environments; with an int seed s, environment i takes s + i, as is usual in Gymnasium.

        Returns observations (n, *shape) and infos.
        """
        self._check_free()
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
            self._root_seed = int(seed)
            seeds: list[int | None] = [int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = [None] * self.num_envs if seed is None else list(seed)
            if len(seeds) != self.num_envs:
                raise ValueError(f"{self.num_envs} environments need as many seeds, not {len(seeds)}")
            self._root_seed = [given for given in seeds if given is not None] or self._root_seed
        if seed is not None:
            self._restarts = [0] * self.num_envs
            self._next_seeds = seeds
        for i in range(self.num_envs):
            self._send_reset(i, options)
        infos: dict[str, Any] = {}
        errors = []
        for i in range(self.num_envs):
            try:
                infos = self._add_info(infos, self._take_reset(i, options), i)
            except WorkerError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return self._observations.copy(), infos

    def step(self, actions: np.ndarray) -> StepReturn:
        """`step_async`, then `step_wait`."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: np.ndarray) -> None:
        """Send the actions, (n,), to the workers and return at once."""
        self._check_free()
        if len(actions) != self.num_envs:
            raise ValueError(f"{self.num_envs} environments need as many actions, not {len(actions)}")
        self._was_reset = self._needs_reset.copy()
        for i, action in enumerate(actions):
            if self._was_reset[i]:
                self._send_reset(i, None)
            else:
                self._workers[i].send("step", action)
        self._pending = "step"

    def step_wait(self) -> StepReturn:
        """Wait for the step that `step_async` began.

        Returns:
            observations (n, *shape), rewards (n,) float64, terminated (n,) bool, truncated (n,) bool, infos.
        """
        self._check_open()
        if self._pending is None:
            raise NoAsyncCallError("step_wait() without step_async() before it", "step")
        self._pending = None
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, bool)
        truncated = np.zeros(self.num_envs, bool)
        infos: dict[str, Any] = {}
        errors = []
        # Every answer is taken before an error is raised, so that no pipe is left with one unread.
        for i in range(self.num_envs):
            try:
                if self._was_reset[i]:
                    info = self._take_reset(i, None)
                else:
                    self._observations[i], rewards[i], terminated[i], truncated[i], info = self._take_step(i)
                infos = self._add_info(infos, info, i)
                self._needs_reset[i] = terminated[i] or truncated[i]
            except WorkerError as error:
                self._needs_reset[i] = True
                errors.append(error)
        if errors:
            raise errors[0]
        return self._observations.copy(), rewards, terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        """Ends all worker processes."""
        for worker in self._workers:
            worker.send("close", None)
        for worker in self._workers:
            worker.end()

    def _send_reset(self, i: int, options: dict[str, Any] | None) -> None:
        self._workers[i].send("reset", (self._next_seeds[i], options))

    def _take_reset(self, i: int, options: dict[str, Any] | None) -> dict[str, Any]:
        """Stores environment i's first observation and returns its info; a worker that died is tried once more."""
        try:
            answer = self._call(i, "reset")
        except WorkerDied as death:
            # A seed that was given and never used is still right.
            self._restart(i, death, self._next_seeds[i])
            self._send_reset(i, options)
            try:
                answer = self._call(i, "reset")
            except WorkerDied as again:
                raise WorkerError(f"environment {i} ({self._name}) died twice in reset ({again})") from again
        self._observations[i], info = answer
        self._next_seeds[i] = None
        self._needs_reset[i] = False
        return info

    def _take_step(self, i: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        try:
            answer = self._call(i, "step")
        except WorkerDied as death:
            self._restart(i, death)
            return self._observations[i], 0.0, False, True, {"worker_restarted": True}
        self._deaths[i] = 0
        return answer

    def _call(self, i: int, kind: str) -> Any:
        """Worker i's answer of this kind; skips the spaces, which a new worker sends first."""
        while True:
            received, answer = self._workers[i].receive()
            if received == "error":
                raise WorkerError(f"environment {i} ({self._name}) raised an exception:\n{answer}")
            if received == "refused":
                raise WorkerRefused(answer)
            if received == kind:
                return answer

    def _restart(self, i: int, death: WorkerDied, seed: int | None = None) -> None:
        """Starts a new process for environment i, without waiting for it; WorkerError after `_DEATHS`."""
        self._deaths[i] += 1
        if self._deaths[i] >= _DEATHS:
            times = f"{self._deaths[i]} times without a step between"
            raise WorkerError(f"environment {i} ({self._name}) died {times} ({death})") from death
        self._restarts[i] += 1
        # With the number, since Python shows equal warnings only once.
        warnings.warn(
            f"worker {i} of {self._name} died ({death}): its episode ends here, restart {self._restarts[i]}",
            stacklevel=4,
        )
        self._workers[i].end()
        self._workers[i] = _Worker(self._name, self._options)
        if seed is None:
            sequence = np.random.SeedSequence(self._root_seed, spawn_key=(i, self._restarts[i]))
            seed = int(sequence.generate_state(1)[0]) % TRAINING_SEEDS
        self._next_seeds[i] = seed

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("this vector environment is closed")

    def _check_free(self) -> None:
        self._check_open()
        if self._pending is not None:
            raise AlreadyPendingCallError("step_async() was called: step_wait() must come next", self._pending)


class _Worker:
    """One worker process and the parent's end of its pipe."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.process, self._pipe = start_process(serve, name, options)

    def send(self, request: str, argument: Any) -> None:
        """Sends a request; `receive` raises where the worker is dead."""
        with suppress(OSError):
            self._pipe.send((request, argument))

    def receive(self) -> tuple[str, Any]:
        """The next answer; raises WorkerDied if there will be none."""
        wait([self._pipe, self.process.sentinel])
        with suppress(EOFError, OSError):
            # A worker that answered and then died has its answer in the pipe still.
            if self._pipe.poll():
                return self._pipe.recv()
        self.process.join(_JOIN_SECONDS)
        raise WorkerDied(f"exit code {self.process.exitcode}")

    def end(self) -> None:
        """Ends the process, by force if it does not end by itself."""
        self._pipe.close()
        for stop in (lambda: None, self.process.terminate, self.process.kill):
            stop()
            self.process.join(_JOIN_SECONDS)
            if not self.process.is_alive():
                return
