"""Docstrings of readers: what they share is written once, and columns are explained as the registry has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from textwrap import indent, wrap

from sparsesc.door._keys import TABLES, tables_of

_WIDTH = 112
_PARAMETERS = {
    "adata": "Object with the table.",
    "feature": "Rows of one feature or of several, by name or position; ``None``: all.",
    "unit": "Rows of one unit or of several, by name or position; ``None``: all.",
    "cells": "The signed saliency of each cell that was looked at, for one unit, instead of a table.",
    "key": "Name under which it is stored: entry of ``uns``.",
}


def documented[F: Callable](function: F) -> F:
    """Complete the docstring of a reader, which has a summary, and perhaps notes and examples.

    Sections "Parameters", "Returns" and "Raises" go in between: behind the text before the first section.
    """
    summary, header, rest = inspect.cleandoc(function.__doc__ or "").partition("\n\nSee Also\n")
    tables = tables_of(function.__name__)
    writers = dict.fromkeys(TABLES[name].writer.split("(")[0] for name in tables.values())
    parameters = inspect.signature(function).parameters
    about = _PARAMETERS | {"table": "\n".join(wrap(f"{' or '.join(f'``"{c}"``' for c in tables)}: see below.", _WIDTH))}
    returns = "\n\n".join(_describe(choice, name) for choice, name in tables.items())
    missing = ["nothing is stored under `key`", "the table was not computed (names the function that does)"]
    missing += [f"there is no such {name}" for name in ("feature", "unit") if name in parameters]
    raises = f"KeyError\n    If {', '.join(missing[:-1])}, or {missing[-1]}."
    if "table" in parameters:
        raises += "\nValueError\n    If `table` is none of these names" + (
            ", or features are given for a table without them." if "feature" in parameters else "."
        )
    written = " and ".join(f":func:`sparsesc.{writer}`" for writer in writers)
    function.__doc__ = "\n\n".join(
        [
            f"{summary}\n\nReads what {written} wrote.",
            _section("Parameters", "\n".join(f"{name}\n{indent(about[name], '    ')}" for name in parameters)),
            _section("Returns", f"A copy of the table, or of some of its rows.\n\n{returns}"),
            _section("Raises", raises),
        ]
    ) + (header + rest)
    return function


def _section(title: str, text: str) -> str:
    return f"{title}\n{'-' * len(title)}\n{text}"


def _describe(choice: str, name: str) -> str:
    """One table, with what its columns mean."""
    table = TABLES[name]
    columns, optional = (
        "; ".join(f"`{column}`: {meaning}" for column, meaning in part.items())
        for part in (table.columns, table.optional)
    )
    columns += f". With some options also {optional}" if optional else ""
    head = f'``"{choice}"``' if choice else f'``"{name}"``'
    return f"{head}\n" + indent("\n".join(wrap(f"One row: {table.rows}. {columns}.", _WIDTH)), "    ")
