"""Nested States, optimisers and random generators as flat tensors by name and JSON, and back."""

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

Tree = dict[str, Any]
"""A nested mapping whose leaves are tensors."""


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged or of another model; its message is one line."""


def flatten(prefix: str, tree: Mapping[str, Any] | TensorDictBase) -> dict[str, Tensor]:
    """{"a": {"b": tensor}} -> {"prefix/a/b": tensor}. A mapping without tensors leaves no trace.

    A `/` within a name is written %2F, and so % is written %25. A leaf that is not a tensor is a TypeError.
    """
    flat: dict[str, Tensor] = {}
    for key, value in tree.items():
        if not isinstance(key, str):
            raise TypeError(f"{prefix}: names must be texts, got {key!r}")
        name = f"{prefix}/{key.replace('%', '%25').replace('/', '%2F')}"
        if isinstance(value, Mapping | TensorDictBase):
            flat |= flatten(name, value)
        elif isinstance(value, Tensor):
            flat[name] = value
        else:
            raise TypeError(f"{name}: a leaf must be a tensor, got {type(value).__name__}")
    return flat


def unflatten(prefix: str, tensors: Mapping[str, Tensor]) -> Tree:
    """The nested mapping that `flatten` gave these names; names under other prefixes are passed over."""
    tree: Tree = {}
    for name, tensor in tensors.items():
        if not name.startswith(prefix + "/"):
            continue
        *path, leaf = [part.replace("%2F", "/").replace("%25", "%") for part in name[len(prefix) + 1 :].split("/")]
        owner = tree
        for part in path:
            owner = owner.setdefault(part, {})
            if not isinstance(owner, dict):
                raise CheckpointError(f"{name}: stands below a tensor")
        if leaf in owner:
            raise CheckpointError(f"{name}: stands in the place of other tensors")
        owner[leaf] = tensor
    return tree


def optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's state as tensors named `prefix/<parameter>/<name>`, and its parameter groups as JSON."""
    state = optimizer.state_dict()
    tensors = flatten(prefix, {str(index): values for index, values in state["state"].items()})
    return tensors, state["param_groups"]


def restore_optimizer(
    prefix: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Restores what `optimizer_tensors` gave. Raises CheckpointError where it is of other parameters."""
    current = optimizer.state_dict()["param_groups"]
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise CheckpointError(f"{prefix}: parameter groups are damaged")
    if [group.get("params") for group in groups] != [group["params"] for group in current]:
        raise CheckpointError(f"{prefix}: the checkpoint's parameters are not this optimiser's")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, Tree] = {}
    for name, values in unflatten(prefix, tensors).items():
        if not name.isdecimal() or int(name) >= len(parameters) or not isinstance(values, dict):
            raise CheckpointError(f"{prefix}/{name}: is not the state of one of {len(parameters)} parameters")
        shape = tuple(parameters[int(name)].shape)
        for key, tensor in values.items():
            if not isinstance(tensor, Tensor) or (tensor.dim() and tensor.shape != shape):
                raise CheckpointError(f"{prefix}/{name}/{key}: is not of the parameter's shape {tuple(shape)}")
        state[int(name)] = values
    # JSON has no tuples: the optimiser's own groups say which lists were tuples
    merged = [
        {key: tuple(value) if isinstance(like.get(key), tuple) else value for key, value in group.items()}
        for group, like in zip(groups, current, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": merged})


def rng_state(prefix: str) -> dict[str, Tensor]:
    """The state of torch's generators as tensors."""
    tensors = {f"{prefix}/torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states = torch.cuda.get_rng_state_all()
        tensors |= {f"{prefix}/cuda{index}": state for index, state in enumerate(states)}
    return tensors


def restore_rng(prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Restores what `rng_state` gave, on as many CUDA devices as both have. Raises CheckpointError where damaged."""
    try:
        torch.set_rng_state(tensors[f"{prefix}/torch"])
        for index in range(torch.cuda.device_count()):
            if f"{prefix}/cuda{index}" in tensors:
                torch.cuda.set_rng_state(tensors[f"{prefix}/cuda{index}"], index)
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{prefix}: random state is damaged: {error}") from None
