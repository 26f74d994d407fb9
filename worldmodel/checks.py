"""Checks of numbers, for the `__post_init__` of configuration dataclasses."""

import dataclasses
import math
from collections.abc import Collection
from typing import Any


def check_numbers(
    section: str,
    config: Any,
    may_be_zero: Collection[str] = (),
    at_least_one: Collection[str] = (),
    at_most_one: Collection[str] = (),
) -> None:
    """Raises ValueError, of one line, for the first number of a dataclass that is out of range.

    Numbers must be finite and positive. Fields named in `may_be_zero` and those whose name ends in `_scale` may be
    zero. Numbers within tuples, such as block sizes, are checked one by one.

    Args:
        section: the configuration's section, which messages name before the field; "" for none.
    """
    for field in dataclasses.fields(config):
        zero = field.name in may_be_zero or field.name.endswith("_scale")
        for number in _numbers(getattr(config, field.name)):
            name = f"{section}.{field.name}" if section else field.name
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{name} must be finite, got {number}")
            if number < 0 or (number == 0 and not zero):
                raise ValueError(f"{name} must be {'zero or more' if zero else 'more than zero'}, got {number}")
            if field.name in at_least_one and number < 1:
                raise ValueError(f"{name} must be one or more, got {number}")
            if field.name in at_most_one and number > 1:
                raise ValueError(f"{name} is a share: at most 1, got {number}")


def _numbers(value: Any) -> list[float]:
    if isinstance(value, tuple):
        return [number for part in value for number in _numbers(part)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []
