"""What a configuration needs of the machine: devices and packages, checked before anything is stored; threads."""

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
    """Sets the threads of this process, 0 leaving torch's number, and keeps freed memory for reuse.

    An update allocates and frees a gigabyte in tensors of many megabytes. By default glibc returns such memory to the
    system, which then makes each page anew: docs/performance.md.
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_MMAP_MAX, 0)


def check(config: Config) -> None:
    """Raises ConfigError for a device or a package that is missing."""
    device = config.train.device
    check_device(device)
    if ":" in device and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"--train.device {device} is one card for all of torchrun's processes: use cuda, or auto")
    log.check(config)


def check_device(device: str) -> None:
    """Raises ConfigError for a device that is missing."""
    if not has_device(device):
        raise ConfigError(
            f"--train.device {device}: no such CUDA device on this machine, which has {_cards()}: "
            f"--train.device auto takes what there is"
        )


def has_device(device: str) -> bool:
    """Whether this machine has the device that `train.device` names."""
    kind, _, number = device.partition(":")
    return kind != "cuda" or int(number or 0) < _cards()


def requirements(config: Config) -> tuple[str, str, bool]:
    """Everything that `check` looks at."""
    return config.train.device, config.wandb, config.tensorboard


def _cards() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
