"""What a configuration asks of the machine: devices and packages, looked for before anything is stored."""

import os

import torch

from agent import runlog
from agent.config import Config
from agent.fields import ConfigError


def check(config: Config) -> None:
    """Refuses, with a ConfigError of one line, a device or a package that is not here."""
    device = config.train.device
    check_device(device)
    if ":" in device and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"--train.device {device} is one card for all of torchrun's processes: use cuda, or auto")
    runlog.check(config)


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
