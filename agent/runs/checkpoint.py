"""Checkpoints: folders that are complete or absent, verified when read, and holding no code.

`checkpoints/step-000012000/` holds `tensors.safetensors` and `meta.json` (the step, the tensors' SHA-256, and the
caller's own JSON). A new one is written under a hidden name, flushed to the disk and moved into place; then older
ones are removed. Hidden names: `.tmp-*` is unfinished or being removed, `.old-step-*` is set aside while another takes
its place.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from agent.runs.flatten import CheckpointError
from replay.atomic import sync_folder

TENSORS = "tensors.safetensors"
META = "meta.json"

Checkpoint = tuple[int, dict[str, Tensor], dict[str, Any]]
"""The step, the tensors by name (on the CPU), and the caller's JSON."""


class DiskFull(CheckpointError):
    """No room for a checkpoint. Earlier ones are whole."""


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], keep: int) -> Path:
    """Writes the checkpoint of a step and returns its folder. The last `keep` (1 or more), this one included, stay.

    Whenever the process is killed, the last whole checkpoint stays. Checkpoints of later steps are removed too: a run
    that resumes from an earlier one could not read them. Raises DiskFull.
    """
    if keep < 1:
        raise ValueError(f"keep must be 1 or more, got {keep}")
    folder.mkdir(parents=True, exist_ok=True)
    _clean(folder)
    path = _path(folder, step)
    temporary = folder / f".tmp-{path.name}"
    data = safetensors.torch.save(_separate(tensors))
    record = {"step": step, "sha256": hashlib.sha256(data).hexdigest(), "meta": dict(meta)}
    text = json.dumps(record, indent=1).encode()
    try:
        temporary.mkdir()
        _write(temporary / TENSORS, data)
        _write(temporary / META, text)
        sync_folder(temporary)
        _move_into_place(temporary, path)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"disk full: no room in {folder} for the checkpoint of step {step}") from None
        raise
    whole = [other for other in _steps(folder) if other <= step][:keep]
    for other in _steps(folder):
        if other not in whole:
            _remove(_path(folder, other))
    return path


def load(path: Path) -> Checkpoint:
    """Reads one checkpoint. Raises CheckpointError where anything in it is missing, truncated or altered."""
    try:
        record = json.loads((path / META).read_bytes())
        step, digest, meta = record["step"], record["sha256"], record["meta"]
        if type(step) is not int or not isinstance(digest, str) or not isinstance(meta, dict):
            raise TypeError("fields of a wrong type")
    except OSError as error:
        raise CheckpointError(f"{path / META}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path / META}: damaged: {_one_line(error)}") from None
    try:
        data = (path / TENSORS).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path / TENSORS}: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{path / TENSORS}: damaged: its SHA-256 is not the one in {META}")
    try:
        return step, safetensors.torch.load(data), meta
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path / TENSORS}: damaged: {_one_line(error)}") from None


def load_latest(folder: Path, until: float = math.inf) -> Checkpoint | None:
    """The newest whole checkpoint of step `until` or earlier; None where there is none. Changes nothing.

    Each damaged one that is passed over is a warning of one line.
    """
    for step in _steps(folder):
        if step > until:
            continue
        path = _path(folder, step)
        try:
            return load(path if path.exists() else _aside(path))
        except CheckpointError as error:
            warnings.warn(f"checkpoint passed over: {error}", stacklevel=2)
    return None


def match(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError, naming the first, for tensors of other names or shapes than those expected."""
    for name, tensor in expected.items():
        if name not in tensors:
            raise CheckpointError(f"checkpoint lacks tensor {name} {tuple(tensor.shape)}")
        if tensors[name].shape != tensor.shape:
            raise CheckpointError(
                f"checkpoint's tensor {name} is {tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
            )
    for name, tensor in tensors.items():
        if name not in expected:
            raise CheckpointError(f"checkpoint has a tensor too many: {name} {tuple(tensor.shape)}")


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}"


def _aside(path: Path) -> Path:
    return path.with_name(f".old-{path.name}")


def _steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, in place or set aside, newest first."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = [re.fullmatch(r"(?:\.old-)?step-(\d{9,})", name) for name in names]
    return sorted({int(name[1]) for name in found if name}, reverse=True)


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors of which no two share memory, as the format requires."""
    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        separate[name] = tensor
    return separate


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _move_into_place(temporary: Path, path: Path) -> None:
    """Moves a folder to `path`; one that is there is set aside first, and comes back if the move fails."""
    if not path.exists():
        os.replace(temporary, path)
        return
    os.replace(path, _aside(path))
    try:
        os.replace(temporary, path)
    except OSError:
        _aside(path).rename(path)
        raise
    _remove(_aside(path))


def _remove(path: Path) -> None:
    """Removes a checkpoint; no half of one is ever seen under its name."""
    doomed = path.with_name(f".tmp-removed-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _clean(folder: Path) -> None:
    """Cleans up after a killed process: unfinished folders go, one set aside and not replaced comes back."""
    for path in folder.glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".old-step-*"):
        place = folder / path.name.removeprefix(".old-")
        if place.exists():
            _remove(path)
        else:
            path.rename(place)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
