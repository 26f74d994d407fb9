"""The fields of nested configuration dataclasses by dotted name: their types, values and spelling."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Nested = TypeVar("Nested")

Blocks = tuple[tuple[int, int], ...]
"""Sizes (height, width), written `2x2,4x4`."""


class ConfigError(ValueError):
    """A configuration that cannot be run; its message is one line for the person who wrote it."""


class Diverged(RuntimeError):
    """Ten updates in a row had a loss or a gradient that is not a number."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turns a ValueError or a RuntimeError into a ConfigError of one line.

    Configurations, models and environments raise ValueError for what is wrong, RuntimeError for what this machine
    lacks (OpenGL).
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ConfigError(" ".join(str(error).split())) from None


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
    """A copy of `config` with the fields of these dotted names replaced, all at once.

    Every dataclass on the way is made anew, so that its `__post_init__` checks the new values together. Raises
    ConfigError for an unknown name, and where a check fails.
    """
    known = fields(config)
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown field {name}{did_you_mean(name, known)}")
    with refusals():
        return _replace(config, _nested(values))


def _replace(config: Any, tree: Mapping[str, Any]) -> Any:
    changes = {
        name: _replace(getattr(config, name), value) if dataclasses.is_dataclass(getattr(config, name)) else value
        for name, value in tree.items()
    }
    return dataclasses.replace(config, **changes)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}"""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, leaf = name.split(".")
        owner = tree
        for section in sections:
            owner = owner.setdefault(section, {})
        owner[leaf] = value
    return tree


def option(name: str) -> str:
    """The spelling of a field on the command line: `run_dir` -> `--run-dir`, `worldmodel.name` -> `--worldmodel`."""
    return "--" + name.removesuffix(".name").replace("_", "-")


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`: did you mean X?` with the known name nearest to `name`; empty where none is near.

    A last part that is that of one known name alone is nearest: `--replay-ratio` means `--train.replay-ratio`.
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


def to_dict(config: Any, leave_out: Callable[[str], bool] | None = None) -> dict[str, Any]:
    """The configuration as nested mappings of texts and numbers, as YAML and JSON hold them.

    Args:
        leave_out: whether to leave out the field of a dotted name.
    """
    leaves = {name: leaf for name, leaf in fields(config).items() if not (leave_out and leave_out(name))}
    return _nested({n: format_blocks(leaf.value) if leaf.kind == Blocks else leaf.value for n, leaf in leaves.items()})


def from_dict(config: Nested, tree: Any) -> Nested:
    """`config` with the values of nested mappings; fields that they leave out keep their value.

    Raises ConfigError for unknown names, for values of a wrong type, and as `replace`.
    """
    known = fields(config)
    sections = {name.rsplit(".", 1)[0] for name in known if "." in name}
    values: dict[str, Any] = {}

    def collect(tree: Any, prefix: str) -> None:
        if not isinstance(tree, dict):
            raise ConfigError(f"{prefix.rstrip('.') or 'the configuration'} wants named fields, got {_short(tree)}")
        for key, value in tree.items():
            name = f"{prefix}{key}"
            if name in sections:
                collect(value, name + ".")
            elif name in known:
                values[name] = _typed(name, known[name].kind, value)
            else:
                raise ConfigError(f"unknown field {name}{did_you_mean(name, known)}")

    collect(tree, "")
    return replace(config, values)


def _typed(name: str, kind: Any, value: Any) -> Any:
    """`value` as the field's type; a number may be a text, since YAML reads 3e-4 as one."""
    refusal = ConfigError(f"{name} wants {wanted(kind)}, got {_short(value)}")
    try:
        if isinstance(value, str) and (kind == Blocks or kind is float):
            return parse(kind, value)
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
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


def parse(kind: Any, text: str) -> Any:
    """The value of this type that a text spells. Raises ValueError where it spells none."""
    if kind == Blocks:
        return parse_blocks(text)
    if kind in (int, float, str):
        return kind(text)
    choices = {str(choice): choice for choice in (get_args(kind) if get_origin(kind) is Literal else (True, False))}
    if text not in choices:
        raise ValueError(text)
    return choices[text]


def _short(value: Any) -> str:
    """A value as it stands in an error message: one line, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
