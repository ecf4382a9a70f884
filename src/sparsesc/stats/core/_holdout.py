"""Which cells choose, and which score? Halves of the cells that both hold every label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def stratified_holdout(
    groups: Sequence[np.ndarray], fraction: float, rng: np.random.Generator, *, n_rows: int | None = None
) -> np.ndarray:
    """Draw rows to hold out, in the same share of every group of every grouping where that is possible.

    Groups take turns from the smallest to the largest; each draws among its rows that are not yet assigned, as many as
    bring it to its share.

    Parameters
    ----------
    groups
        Groupings, each with one code a row (negative: in no group).
    fraction
        Share of the rows to hold out.
    rng
        Draws.
    n_rows
        Number of rows; needed only when there is no grouping.

    Returns
    -------
    Boolean, one a row. In the first groupings' smallest group, and in every group of a single grouping, the number held
    out differs from its share by less than one, and groups of two rows or more have rows on both sides.
    """
    n_rows = len(groups[0]) if n_rows is None else n_rows
    held = np.zeros(n_rows, bool)
    assigned = np.zeros(n_rows, bool)
    taking_turns = [rows for codes in groups for rows in members(np.asarray(codes))]
    for rows in [*sorted(taking_turns, key=len), np.arange(n_rows)]:
        target = _share(len(rows), fraction, rng) - int(held[rows].sum())
        free = rows[~assigned[rows]]
        chosen = rng.permutation(free)[: max(target, 0)]
        held[chosen] = True
        assigned[rows] = True
    return held


def members(codes: np.ndarray) -> list[np.ndarray]:
    """Rows of each group that has any; those with a negative code are in none."""
    rows = np.flatnonzero(codes >= 0)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    return [part for part in np.split(rows, np.cumsum(np.bincount(codes[rows]))[:-1]) if len(part)] if len(rows) else []


def _share(n: int, fraction: float, rng: np.random.Generator) -> int:
    """How many of n rows: fraction x n, rounded up or down by chance; at least one on either side of two or more."""
    count = int(np.floor(n * fraction + rng.random()))
    return min(max(count, 1), n - 1) if n > 1 else count
