"""Initialises a world model's scans, and the norms before them, from the first layers of a Mamba-2 language model.

Public checkpoints name the tensors of layer i `backbone.layers.{i}.mixer.*` and `backbone.layers.{i}.norm.weight`, that
of the RMSNorm before the mixer, transformers' and state-spaces' alike (they differ in the embedding's name); a model
saved without its head leaves out `backbone.`, and Codestral's own file puts `model.` before it. Reading safetensors
runs no code.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from worldmodel.lssvwm import LSSVWM
from worldmodel.mamba2 import Mamba2
from worldmodel.mixers import BlockSSM

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
TENSOR = re.compile(r"(?:model\.)?(?:backbone\.)?layers\.(\d+)\.((?:mixer|norm)\..+)")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Taken:
    """Which tensors a world model takes from a checkpoint."""

    path: Path
    layers: int
    """Layers taken: the checkpoint's first, in order."""
    available: int
    """Layers that the checkpoint has."""
    tensors: dict[str, str]
    """The checkpoint's name of each parameter of the world model that is taken."""
    parameters: int
    """Numbers in these tensors."""

    def __str__(self) -> str:
        return (
            f"layers 0..{self.layers - 1} of {self.available} from {self.path}: "
            f"{len(self.tensors)} tensors, {self.parameters:,} parameters"
        )


def load(model: LSSVWM, path: Path | str) -> Taken:
    """Copies the checkpoint's first layers into the model's scans and their norms, in order.

    Other weights stay, and so do those by which the action modulates a norm.

    Args:
        path: a .safetensors file, or a folder with `model.safetensors` or `model.safetensors.index.json`. Weights
            of any precision become the model's. B and C must have one group; more are known by the config.json
            beside the weights, and without that file look like a larger state.

    Raises ValueError, of one line and before any change, where files cannot be read or do not fit.
    """
    taken, files = _match(model, Path(path))
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for parameter, name in taken.tensors.items():
            with _opened(files[name]) as file:
                parameters[parameter].copy_(file.get_tensor(name))
    return taken


def check(model: LSSVWM, path: Path | str) -> Taken:
    """What `load` would take, and its refusals; reads no weights, so that the model may be on the meta device."""
    return _match(model, Path(path))[0]


def _match(model: LSSVWM, path: Path) -> tuple[Taken, dict[str, Path]]:
    """What to take, and the file of each of the checkpoint's tensors."""
    scans = _scans(model)
    if not scans:
        raise ValueError(f"worldmodel.pretrained: world model {model.config.name} has no SSM layers to start from")
    files = _files(path)
    layers: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for name in files:
        if found := TENSOR.fullmatch(name):
            layers[int(found[1])][found[2]] = name
    if not layers:
        raise ValueError(f"{path} holds no Mamba-2 layers: no tensor is named backbone.layers.0.mixer.*")
    _refuse_groups(path if path.is_dir() else path.parent)
    if len(scans) > len(layers):
        raise ValueError(
            f"{path} has {len(layers)} layers, the world model has {len(scans)} with SSM: want fewer worldmodel.layers"
        )
    tensors: dict[str, str] = {}
    numbers = 0
    for i, (mixer, norm, scan) in enumerate(scans):
        _fit(path, i, layers.get(i, {}), files, scan, len(layers))
        for part, shape in _shapes(scan).items():
            kind, _, parameter = part.partition(".")
            tensors[f"{mixer if kind == 'mixer' else norm}.{parameter}"] = layers[i][part]
            numbers += math.prod(shape)
    return Taken(path, len(scans), len(layers), tensors, numbers), files


def _scans(model: LSSVWM) -> list[tuple[str, str, Mamba2]]:
    """Of each scan, in order: the model's names of it and of the norm before it, and itself."""
    layers: list[Any] = list(model.backbone.layers.children())
    return [
        (f"backbone.layers.{i}.mixers.{j}.layer", f"backbone.layers.{i}.norms.{j}.norm", mixer.layer)
        for i, layer in enumerate(layers)
        for j, mixer in enumerate(layer.mixers)
        if isinstance(mixer, BlockSSM) and isinstance(mixer.layer, Mamba2)
    ]


def _fit(path: Path, i: int, names: Mapping[str, str], files: Mapping[str, Path], scan: Mamba2, layers: int) -> None:
    """Refuses layer i, whose tensors have these names by part, where the scan's parameters are others."""
    wanted = _shapes(scan)
    if odd := sorted(wanted.keys() ^ names.keys()):
        word = "lacks" if odd[0] in wanted else "has"
        raise ValueError(f"{path}: layer {i} is not a Mamba-2 layer of the public layout: it {word} {odd[0]}")
    shapes = {part: _shape(files[name], name) for part, name in names.items()}
    for part, shape in wanted.items():
        if shapes[part] != shape:
            raise ValueError(
                f"{path}: tensor {names[part]} is {shapes[part]}, the world model's is {shape}: "
                f"{_options(shapes, layers)}"
            )


def _options(shapes: Mapping[str, Shape], layers: int) -> str:
    """A message that names the options with which tensors of these shapes would fit."""
    no_fit = "no options would fit it"
    try:
        (width, inner), (heads,) = shapes["mixer.out_proj.weight"], shapes["mixer.A_log"]
        channels = shapes["mixer.conv1d.weight"][0]
        expand, headdim, state = inner // width, inner // heads, (channels - inner) // 2
        with torch.device("meta"):
            fitting = _shapes(Mamba2(width, expand, headdim, state))
    except (ValueError, IndexError, ZeroDivisionError, RuntimeError):
        return no_fit
    if fitting != dict(shapes):
        return no_fit
    return (
        f"--worldmodel.d_model {width} --worldmodel.expand {expand} --worldmodel.headdim {headdim} "
        f"--worldmodel.d_state {state} would fit, --worldmodel.layers {layers} at most"
    )


def _shapes(scan: Mamba2) -> dict[str, Shape]:
    """Of what a layer of a checkpoint has for this scan, by part."""
    mixer = {f"mixer.{name}": tuple(parameter.shape) for name, parameter in scan.named_parameters()}
    return mixer | {"norm.weight": (scan.in_proj.in_features,)}


def _files(path: Path) -> dict[str, Path]:
    """The file of each tensor of the checkpoint."""
    if path.is_dir() and not (path / SINGLE).exists():
        return _sharded(path)
    file = path / SINGLE if path.is_dir() else path
    if file.suffix in PICKLES:
        raise ValueError(f"{file} may hold code that runs when it is read: convert it to safetensors")
    if not file.exists():
        raise ValueError(f"{file}: no such file or folder")
    with _opened(file) as opened:
        return dict.fromkeys(opened.keys(), file)


def _sharded(folder: Path) -> dict[str, Path]:
    if not (folder / INDEX).exists():
        if pickles := sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES):
            raise ValueError(
                f"{folder} has {pickles[0]} alone, which may hold code that runs when it is read: "
                f"convert it to safetensors"
            )
        raise ValueError(f"{folder} has neither {SINGLE} nor {INDEX}")
    index = _json(folder / INDEX).get("weight_map")
    shards = index if isinstance(index, dict) else {}
    if not shards or not all(isinstance(shard, str) and Path(shard).name == shard for shard in shards.values()):
        raise ValueError(f"{folder / INDEX}: its weight_map does not name a file of the folder for each tensor")
    return {name: folder / shard for name, shard in shards.items()}


def _refuse_groups(folder: Path) -> None:
    """Several groups of B and C have the shapes of one group with a larger state; config.json tells them apart."""
    for file in (folder / "config.json", folder / "params.json"):  # Codestral's own has the second name
        config = _json(file) if file.exists() else {}
        ssm = config.get("ssm_cfg")  # state-spaces'
        groups = config.get("n_groups", ssm.get("ngroups", 1) if isinstance(ssm, dict) else 1)
        if groups != 1:
            raise ValueError(f"{file} says n_groups {groups}: the world model's scan has one group of B and C")


def _shape(file: Path, name: str) -> Shape:
    with _opened(file) as opened:
        return tuple(opened.get_slice(name).get_shape())


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The safetensors file; what goes wrong with it is a ValueError of one line."""
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None


def _json(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{file}: wants named fields")
    return tree
