"""Which columns of each row have the largest values?"""

from __future__ import annotations

import numpy as np


def largest_in_rows(score: np.ndarray, n_top: int | None, direction: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and ranks of the best scores of each row; ties go to the earlier column."""
    value = {"up": score, "down": -score, "both": np.abs(score)}[direction]
    n_genes = score.shape[1]
    if n_top is not None and n_top < n_genes:
        nth = -np.partition(-value, n_top - 1, axis=1)[:, n_top - 1 : n_top]
        candidate = value >= nth
    else:
        n_top = n_genes
        candidate = np.ones(value.shape, bool)
    if direction != "both":
        candidate &= value > 0
    rows, columns = np.nonzero(candidate)
    order = np.lexsort((columns, -value[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    counts = np.bincount(rows, minlength=len(score))
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = rank < n_top
    return rows[kept], columns[kept], rank[kept] + 1
