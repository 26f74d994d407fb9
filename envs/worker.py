"""A worker process of `envs.vector`: one environment that answers a pipe."""

from __future__ import annotations

import signal
import traceback
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import envs
from envs.errors import UnknownEnvironment


def serve(pipe: Connection, name: str, options: dict[str, Any]) -> None:
    """Makes `envs.make(name, **options)` and answers requests until "close" or the end of the parent.

    The first message is ("spaces", (observation_space, action_space)), or ("refused", exception) for a ValueError or
    RuntimeError of `envs.make`. Requests and answers:

        ("reset", (seed or None, options or None)) -> ("reset", (observation, info))
        ("step", action)                           -> ("step", (observation, reward, terminated, truncated, info))
        ("close", None)                            -> the process ends

    An exception, or an answer that cannot be pickled, gives ("error", traceback).
    """
    # Ctrl-C reaches the whole process group; the parent handles it and closes its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    env = None
    try:
        try:
            env = envs.make(name, **options)
            pipe.send(("spaces", (env.observation_space, env.action_space)))
        except Exception as error:
            # Refusals of these types are one line; other exceptions need the traceback.
            refused = type(error) in (ValueError, RuntimeError) or isinstance(error, UnknownEnvironment)
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
            # `pipe.send` would raise here where an answer cannot be pickled.
            pipe.send_bytes(message)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # The parent is gone.
    finally:
        if env is not None:
            env.close()
