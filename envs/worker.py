"""What runs in a worker process of `envs.vector`: one environment that answers a pipe."""

from __future__ import annotations

import signal
import traceback
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import envs
from envs.errors import UnusableName


def serve(pipe: Connection, name: str, options: dict[str, Any]) -> None:
    """Make `envs.make(name, **options)` and answer requests until told to close or the parent is gone.

    The first message sent is ("spaces", (observation_space, action_space)). Then each request is answered by
    ("reset", (observation, info)) or ("step", (observation, reward, terminated, truncated, info)).
    An exception in the environment, or an answer that cannot be pickled, is answered by ("error", the traceback as
    text); a ValueError or RuntimeError while it is made, by ("refused", the exception).
    Requests: ("reset", (seed or None, options or None)), ("step", action), ("close", None).
    """
    # Ctrl-C reaches the whole process group; the parent handles it and closes its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    env = None
    try:
        try:
            env = envs.make(name, **options)
            pipe.send(("spaces", (env.observation_space, env.action_space)))
        except Exception as error:
            # Our own refusals are of these types and say all in one line; of others the traceback is needed.
            refused = type(error) in (ValueError, RuntimeError) or isinstance(error, UnusableName)
            pipe.send(("refused", error) if refused else ("error", traceback.format_exc()))
            return
        while True:
            request, argument = pipe.recv()
            if request == "close":
                return
            answer: Any
            try:
                if request == "reset":
                    seed, reset_options = argument
                    answer = env.reset(seed=seed, options=reset_options)
                else:
                    answer = env.step(argument)
                message = ForkingPickler.dumps((request, answer))
            except Exception:
                message = ForkingPickler.dumps(("error", traceback.format_exc()))
            # What `pipe.send` does, but that it would raise here where an answer cannot be pickled.
            pipe.send_bytes(message)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # The parent is gone.
    finally:
        if env is not None:
            env.close()
