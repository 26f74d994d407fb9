"""What a configuration asks of the machine: devices and packages, looked for before anything is stored; threads."""

import ctypes
import os
from contextlib import suppress

import torch

from agent.logging import log
from agent.runs.config import Config
from agent.runs.fields import ConfigError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's mallopt (malloc.h)."""


def configure_threads(threads: int) -> None:
    """So many threads for this process; 0 leaves as many as torch has. What it frees stays with it, to be used again.

    An update takes and frees a gigabyte in tensors of many megabytes. glibc gives such memory back to the system,
    which has to make each page of it anew: docs/performance.md.
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    with suppress(OSError, AttributeError):  # another C library: as it comes
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_MMAP_MAX, 0)


def check(config: Config) -> None:
    """Refuses, with a ConfigError of one line, a device or a package that is not here."""
    device = config.train.device
    check_device(device)
    if ":" in device and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"--train.device {device} is one card for all of torchrun's processes: use cuda, or auto")
    log.check(config)


def check_device(device: str) -> None:
    """Refuses one that is not here."""
    if not has(device):
        raise ConfigError(
            f"--train.device {device}: no such CUDA device on this machine, which has {_cards()}: "
            f"--train.device auto takes what there is"
        )


def has(device: str) -> bool:
    """Whether this machine has the device that `train.device` names."""
    kind, _, number = device.partition(":")
    return kind != "cuda" or int(number or 0) < _cards()


def asked(config: Config) -> tuple[str, str, bool]:
    """All that `check` looks at."""
    return config.train.device, config.wandb, config.tensorboard


def _cards() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
