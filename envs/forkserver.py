"""Starts the worker processes of environments and of recordings."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any


def start_process(serve: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """Runs `serve(pipe, *arguments)` in a daemon process of the fork server; returns it and our end of the pipe."""
    # fork hangs once a process has a GL context; spawn would import numpy and gymnasium in each process.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["envs._worker_threads", serve.__module__, "gymnasium"])
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, *arguments), daemon=True)
    with _no_main_module():
        process.start()
    # With this copy closed, the pipe reads as ended when the process does.
    theirs.close()
    return process, ours


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Hides the program's main module, which multiprocessing would import, with torch, in each process."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
