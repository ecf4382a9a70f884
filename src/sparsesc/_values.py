"""Checks of single values: a message says what is wrong, what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_SHOWN = 12


def listing(names: Iterable[Any]) -> str:
    """``'a', 'b', ...`` with a count when the list is long."""
    names = [repr(str(n)) for n in names]
    if not names:
        return "none"
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, ... ({len(names)} in all)"


def check_choice(value: Any, choices: Iterable[str], *, name: str) -> None:
    """Refuse a value that is not one of `choices`."""
    choices = list(choices)
    if value not in choices:
        msg = f"Unknown {name}: {value!r}. Choose one of {listing(choices)}."
        raise ValueError(msg)


def check_positive_int(value: Any, *, name: str) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        msg = f"{name} must be a whole number of at least 1, found {value!r}."
        raise ValueError(msg)
    return int(value)


def as_list(keys: str | Sequence[str]) -> list[str]:
    """One name or several, as a list without repeats."""
    return [keys] if isinstance(keys, str) else list(dict.fromkeys(keys))


def check_share(value: Any, *, name: str, most: float = 1.0, or_most: bool = False, of: str = "") -> float:
    """A number above 0 and below `most` (or equal to it); `of` says in the message what it is a share of."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not (0 < value < most or (or_most and value == most)):
        msg = f"{name} must lie between 0 and {most:g}{f' ({of})' if of else ''}, found {value!r}."
        raise ValueError(msg)
    return float(value)


def check_memory(value: Any) -> float:
    """A positive number of GiB, in bytes."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not value > 0:
        msg = f"max_memory must be a positive number of GiB, found {value!r}."
        raise ValueError(msg)
    return float(value) * 2**30
