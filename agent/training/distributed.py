"""Several processes, one model: each acts in its own environments and reads its own replay; gradients are averaged.

    torchrun --nproc-per-node 4 train_agent.py --env MemoryMaze

Each process is a whole run. The first one's folder is the run's; process r keeps its episodes, checkpoints and metrics
in processes/r within it. What they have in common: weights, optimisers, and the count of environment steps. With one
process, nothing here does anything. NCCL between cards, gloo on CPUs.
"""

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(hours=2)
"""How long processes wait for one that evaluates."""


def begin() -> None:
    """Join the processes that torchrun started; does nothing without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


def end() -> None:
    """Leave them."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_folder(folder: Path) -> Path:
    """Where this process keeps its part of the run in `folder`."""
    return folder / "processes" / str(rank()) if rank() else folder


def own_seed(seed: int) -> int:
    """This process's seed: the first one's is the run's."""
    return int(np.random.SeedSequence([seed, rank()]).generate_state(1)[0]) >> 2 if rank() else seed


def barrier() -> None:
    """Until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Gives all processes the first one's values, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def all_mean(tensors: Iterable[Tensor]) -> None:
    """Replaces floating-point tensors by their means over all processes, in place and in one message."""
    if not dist.is_initialized():
        return
    together = list(tensors)
    flat = torch.cat([tensor.detach().float().flatten() for tensor in together])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, mean in zip(together, flat.split([tensor.numel() for tensor in together]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def all_sum(number: int) -> int:
    """The sum over all processes."""
    return _reduced(number, dist.ReduceOp.SUM)


def all_min(number: int) -> int:
    """The smallest over all processes."""
    return _reduced(number, dist.ReduceOp.MIN)


def all_equal(number: int) -> bool:
    """Whether all processes say this number."""
    return all_min(number) == -all_min(-number)


def _reduced(number: int, how: dist.ReduceOp.RedOpType) -> int:
    if not dist.is_initialized():
        return number
    tensor = torch.tensor(number)
    dist.all_reduce(tensor, how)
    return int(tensor)
