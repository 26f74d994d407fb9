"""The fields of nested configuration dataclasses by dotted name: their types, values and spelling."""

import copy
import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Nested = TypeVar("Nested")

Blocks = tuple[tuple[int, int], ...]
"""Sizes (height, width), written `2x2,4x4`."""


class ConfigError(ValueError):
    """A configuration that cannot be run; its message is one line for the person who wrote it."""


@contextmanager
def refusals() -> Iterator[None]:
    """What cannot be made of a configuration on this machine becomes a ConfigError.

    Models and environments say what is wrong by a ValueError, and what is missing (OpenGL) by a RuntimeError.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ConfigError(str(error)) from None


@dataclass(frozen=True)
class Field:
    """One leaf of a configuration: the type it takes and the value it holds."""

    kind: Any
    value: Any


def fields(config: Any, prefix: str = "") -> dict[str, Field]:
    """Every leaf of a nested dataclass by dotted name, in order: `train.replay_ratio -> Field(float, 32.0)`."""
    hints = get_type_hints(type(config))
    found: dict[str, Field] = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            found |= fields(value, name + ".")
        else:
            found[name] = Field(hints[field.name], value)
    return found


def replace(config: Nested, values: Mapping[str, Any]) -> Nested:
    """A copy of `config` with the fields of these dotted names replaced. Unknown names are a ConfigError."""
    known = fields(config)
    result = copy.deepcopy(config)
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown field {name}{did_you_mean(name, known)}")
        *sections, leaf = name.split(".")
        owner: Any = result
        for section in sections:
            owner = getattr(owner, section)
        setattr(owner, leaf, value)
    return result


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`: did you mean X?` with the known name nearest to `name`; empty where none is near.

    A last part that stands in one known name alone is nearest of all: `--ratio` means `--train.replay_ratio`.
    """
    names = list(known)
    by_case = {known_name.lower(): known_name for known_name in names}
    near = difflib.get_close_matches(name.lower(), by_case, n=1)
    same_leaf = [known_name for known_name in names if known_name.split(".")[-1] == name.split(".")[-1]]
    if len(same_leaf) == 1:
        return f": did you mean {prefix}{same_leaf[0]}?"
    return f": did you mean {prefix}{by_case[near[0]]}?" if near else ""


def wanted(kind: Any) -> str:
    """What a field of this type takes, in words: the middle of an error message."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    words = {int: "an integer", float: "a number", bool: "True or False", str: "a text"}
    return "block sizes like 2x2,4x4" if kind == Blocks else words.get(kind, f"a {kind}")


def parse_blocks(text: str) -> Blocks:
    """`2x2,4x4` -> ((2, 2), (4, 4)). Anything else is a ValueError."""
    parts = [re.fullmatch(r"(\d{1,6})x(\d{1,6})", part) for part in text.split(",")]
    sizes = tuple((int(part[1]), int(part[2])) for part in parts if part)
    if len(sizes) < len(parts):
        raise ValueError(f"not block sizes: {text!r}")
    return sizes


def format_blocks(blocks: Blocks) -> str:
    """((2, 2), (4, 4)) -> `2x2,4x4`."""
    return ",".join(f"{height}x{width}" for height, width in blocks)


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as nested mappings of texts and numbers, as YAML and JSON hold them."""
    result: dict[str, Any] = {}
    for name, field in fields(config).items():
        *sections, leaf = name.split(".")
        owner = result
        for section in sections:
            owner = owner.setdefault(section, {})
        owner[leaf] = format_blocks(field.value) if field.kind == Blocks else field.value
    return result


def from_dict(config: Nested, tree: Any) -> Nested:
    """`config` with what the nested mappings say; fields that they leave out keep their value.

    Unknown names and values of a wrong type are ConfigErrors.
    """
    known = fields(config)
    sections = {name.rsplit(".", 1)[0] for name in known if "." in name}
    values: dict[str, Any] = {}

    def walk(tree: Any, prefix: str) -> None:
        if not isinstance(tree, dict):
            raise ConfigError(f"{prefix.rstrip('.') or 'the configuration'} wants named fields, got {_short(tree)}")
        for key, value in tree.items():
            name = f"{prefix}{key}"
            if name in sections:
                walk(value, name + ".")
            elif name in known:
                values[name] = _checked(name, known[name].kind, value)
            else:
                raise ConfigError(f"unknown field {name}{did_you_mean(name, known)}")

    walk(tree, "")
    return replace(config, values)


def _checked(name: str, kind: Any, value: Any) -> Any:
    """`value` as the field's type; a number may stand as text, since YAML reads 3e-4 as one."""
    refusal = ConfigError(f"{name} wants {wanted(kind)}, got {_short(value)}")
    try:
        if kind == Blocks and isinstance(value, str):
            return parse_blocks(value)
        if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        raise refusal from None
    if get_origin(kind) is Literal:
        fits = value in get_args(kind)
    else:
        fits = isinstance(kind, type) and type(value) is kind
    if not fits:
        raise refusal
    return value


def _short(value: Any) -> str:
    """A value as it stands in an error message: one line, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
