"""Tables of the pages that benchmarks write."""

from __future__ import annotations

from collections.abc import Iterable


def markdown(head: str, rows: Iterable[str]) -> list[str]:
    """Lines of a table, after an empty one: cells of the head, and of each row, are parted by ``|``."""
    return ["", f"| {head} |", "|" + "---|" * (head.count("|") + 1), *(f"| {row} |" for row in rows)]
