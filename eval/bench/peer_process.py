"""Another package's training as a process of its own: its environment, made once, and the lines that it answers."""

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

from agent.runs.fields import ConfigError

ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_MMAP_MAX_": "0"}
"""What `machine.configure_threads` sets for this process: freed memory is kept for reuse."""

STAMP = ".lssvwm-peer"
"""The file in an environment that says what it holds and whether it is complete."""


def default_folder(requirement: str) -> Path:
    """Where the environment of a package (`name==version`) lies: in the user's cache, by versions."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "lssvwm" / f"{requirement}-torch=={torch_version()}".replace("==", "-")


def torch_version() -> str:
    """This process's torch, without the build: `2.13.0`."""
    return torch.__version__.partition("+")[0]


def installed(requirement: str, folder: Path) -> Path:
    """The Python of an environment with the package and this process's version of torch; makes it where there is none.

    Raises ConfigError, of one line, where it cannot be made, and for a folder that holds anything else. What is half
    made is made anew the next time.
    """
    wanted = f"torch=={torch_version()}", requirement
    python, stamp, begun = folder / "bin" / "python", folder / STAMP, f"begun: {' '.join(wanted)}\n"
    complete = begun.replace("begun", "complete")
    try:
        if stamp.exists() and stamp.read_text() == complete and python.exists():
            return python
        if not stamp.exists() and folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} holds other things: want a new folder")
        print(
            f"installing {' and '.join(wanted)} with what they need into {folder}, once: 1.5 GB with torch's CPU "
            f"build, several more with its CUDA build",
            file=sys.stderr,
            flush=True,
        )
        venv.create(folder, clear=True, with_pip=True)
        stamp.write_text(begun)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"{folder}: no virtual environment can be made there: {error}") from None
    for one in wanted:  # torch alone first, so that nothing draws in another build of it
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", one]
        done = subprocess.run(pip, capture_output=True, text=True, env=_clean_environment())
        if done.returncode:
            raise ConfigError(f"pip install {one} failed: {_last_line(done.stderr)}")
    stamp.write_text(complete)
    return python


class PeerProcess:
    """A process that answers each line of JSON on its stdin with one on its stdout."""

    def __init__(self, command: Sequence[str], folder: Path):
        """Starts `command` in `folder`."""
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=_clean_environment() | ALLOCATOR,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, message: Any) -> dict[str, Any]:
        """The answer to a message. Raises ConfigError, with the last line of its stderr, where the process ends."""
        assert self._process.stdin and self._process.stdout
        try:
            print(json.dumps(message), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise ConfigError(f"the peer's process ended: {_last_line(self._errors.read())}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream:
                stream.close()


def _clean_environment() -> dict[str, str]:
    """This process's environment without what points Python at its own packages."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "without a word"
