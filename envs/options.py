"""Options that a name carries after a colon: `delay=4..50,size=64`."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Collection
from typing import Any

from envs.errors import OptionError


def read_options(base: str, text: str) -> dict[str, Any]:
    """`delay=4..50,size=64` -> {"delay": (4, 50), "size": 64}. Raises `OptionError`."""
    options: dict[str, Any] = {}
    for part in text.split(","):
        option, equals, value = part.partition("=")
        if not (option and equals and value):
            raise OptionError(f"{base} has an option {part!r} in its name: options are written {base}:name=value,...")
        if option in options:
            raise OptionError(f"{base} has the option {option!r} twice in its name")
        options[option] = read_value(value)
    return options


def read_value(text: str) -> Any:
    """An int, float, bool or pair of ints where the text is one; else the text."""
    if text in ("true", "false"):
        return text == "true"
    if pair := re.fullmatch(r"(-?\d+)\.\.(-?\d+)", text):
        return int(pair[1]), int(pair[2])
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def check_options(base: str, options: Collection[str], build: Callable[..., Any], fixed: Collection[str]) -> None:
    """Raise `OptionError` for one that `build` does not take or that is `fixed` already."""
    parameters = inspect.signature(build).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    known = [parameter.name for parameter in parameters if _is_named(parameter) and parameter.name not in fixed]
    for option in options:
        if option in known or (takes_any and option not in fixed):
            continue
        if not known:
            raise OptionError(f"{base} has no option {option!r}: it has none at all")
        raise OptionError(f"{base} has no option {option!r}: did you mean {nearest(option, known)!r}?")


def check_required(name: str, given: Collection[str], build: Callable[..., Any]) -> None:
    """Raise `OptionError` where `build` has to have options that are not `given`; the name is for the message."""
    parameters = inspect.signature(build).parameters.values()
    required = [parameter.name for parameter in parameters if _is_named(parameter) and _has_no_default(parameter)]
    missing = [option for option in required if option not in given]
    if missing:
        wants = f"option{'s' if missing[1:] else ''} {', '.join(map(repr, missing))}"
        carried = name + ("," if "=" in name else ":")
        raise OptionError(f"{name} needs the {wants}: write {carried}{','.join(f'{m}=value' for m in missing)}")


def _has_no_default(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty


def _is_named(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def nearest(name: str, candidates: Collection[str]) -> str:
    """The candidate, of at least one, that is most like the name; upper and lower case count the same."""
    # An exact match but for case comes first, and the cutoff of 0 means that something is always named.
    folded = {candidate.lower(): candidate for candidate in reversed(list(candidates))}
    return folded[difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.0)[0]]
