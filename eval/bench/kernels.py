"""What each hand-written CPU kernel of `worldmodel.cpu` wins over the plain form that it replaces."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agent.runs import presets
from agent.runs.config import Config
from agent.training.learner import Learner
from eval.bench.passes import random_batch
from worldmodel import cpu
from worldmodel.boundaries import convolve_masked


def _plain_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def _plain_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


PLAIN: dict[str, Callable[..., Any]] = {
    "rms_norm": _plain_rms_norm,
    "convolve": convolve_masked,
    "attention": _plain_attention,
}
"""The plain form of each kernel, by the kernel's name."""


def bench_kernels(rounds: int = 15, batch: int = 16, frames: int = 32) -> dict[str, Any]:
    """Times each kernel and its plain form on the inputs that one update of the `cpu` preset gives it.

    The two run in turns on one thread, forward and, where the update needs gradients, backward. Times are CPU time of
    that thread, so that other work on the machine counts little.

    Returns, by kernel: `calls` of an update, `milliseconds` of an update, `times_slower` of the plain form (median over
    rounds), and `share_of_update`: what an update would take longer by, as a share of it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        config = presets.apply("cpu", "image", Config())
        learner = Learner(config, (64, 64, 3), 6)
        data = random_batch(batch, frames, (64, 64, 3), 6)

        def update() -> None:
            loss, output, _ = learner.world_model_loss(data, learner.model.initial(batch))
            (loss + learner.actor_critic_loss(data, output)[0]).backward()

        for _ in range(3):
            update()
        calls = _record(update)
        whole = statistics.median(_cpu_seconds(update) for _ in range(rounds))
        found = {name: _compare(name, calls[name], rounds, whole) for name in PLAIN}
    finally:
        torch.set_num_threads(threads)
    return {"milliseconds_per_update": whole * 1e3, "kernels": found}


def print_table(result: dict[str, Any]) -> None:
    """What `bench_kernels` returned, a line for each kernel."""
    print(f"one update, one thread: {result['milliseconds_per_update']:.0f} ms")
    print(f"{'kernel':24s} {'calls':>6s} {'ms':>8s} {'plain is slower':>16s} {'of an update':>13s}")
    for name, row in result["kernels"].items():
        print(
            f"{name:24s} {row['calls']:6d} {row['milliseconds']:8.1f} {row['times_slower']:15.2f}x "
            f"{row['share_of_update']:12.1%}"
        )


def _record(update: Callable[[], None]) -> dict[str, list[Callable[[str], None]]]:
    """Of each kernel the calls of one update: each runs a form of the kernel, by its module, on the call's inputs."""
    calls: dict[str, list[Any]] = {name: [] for name in PLAIN}
    kernels = {name: getattr(cpu, name) for name in PLAIN}

    def recorder(name: str) -> Callable[..., Any]:
        def record(*inputs: Any) -> Any:
            calls[name].append((tuple(_leaf(x) for x in inputs), torch.is_grad_enabled()))
            return kernels[name](*inputs)

        return record

    try:
        for name in PLAIN:
            setattr(cpu, name, recorder(name))
        update()
    finally:
        for name, kernel in kernels.items():
            setattr(cpu, name, kernel)
    return calls


def _leaf(x: Any) -> Any:
    """The input of a call, cut off from what computed it."""
    return x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x


def _compare(name: str, calls: list[Any], rounds: int, whole: float) -> dict[str, Any]:
    kernel, plain = getattr(cpu, name), PLAIN[name]
    pairs = []
    for _ in range(rounds):
        ours = theirs = 0.0
        for inputs, grad in calls:  # in turns, call by call
            ours += _cpu_seconds(lambda: _run(kernel, inputs, grad))  # noqa: B023
            theirs += _cpu_seconds(lambda: _run(plain, inputs, grad))  # noqa: B023
        pairs.append((ours, theirs))
    ours = statistics.median(pair[0] for pair in pairs)
    slower = statistics.median(theirs / ours for ours, theirs in pairs)
    return {
        "calls": len(calls),
        "milliseconds": ours * 1e3,
        "times_slower": slower,
        "share_of_update": ours * (slower - 1) / whole,
    }


def _run(form: Callable[..., Any], inputs: tuple[Any, ...], grad: bool) -> None:
    leaves = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16):
        outputs = form(*inputs)
    if grad and leaves:
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        torch.autograd.grad(outputs, leaves, [torch.ones_like(x) for x in outputs])


def _cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU time of this thread in one call."""
    started = time.thread_time()
    work()
    return time.thread_time() - started
