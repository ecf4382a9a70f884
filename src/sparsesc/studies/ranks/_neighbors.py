"""How many neighbors of a row share its group or batch, and how many would by chance."""

from __future__ import annotations

import numpy as np


def same_group(neighbors: np.ndarray, queries: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of neighbors in the same group, by row, and the share among all other rows.

    Parameters
    ----------
    neighbors
        Positions of neighbors, queries x neighbors; -1: none.
    queries
        Positions of the rows.
    groups
        Group of every row.
    """
    known = neighbors >= 0
    same = (groups[neighbors] == groups[queries][:, None]) & known
    share = np.divide(same.sum(1), known.sum(1), out=np.full(len(queries), np.nan), where=known.any(1))
    expected = (np.bincount(groups)[groups[queries]] - 1) / (len(groups) - 1)
    return share, expected


def same_batch(
    neighbors: np.ndarray, queries: np.ndarray, batches: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Share of neighbors in the same batch, by row, and the share expected if batches were mixed within groups.

    Expected is the mean, over the neighbors, of the share of the row's batch in the neighbor's group without the row
    itself: a type that only one batch has does not count as a batch effect.
    """
    known = neighbors >= 0
    batch = batches[queries][:, None]
    same = (batches[neighbors] == batch) & known
    table = np.zeros((groups.max() + 1, batches.max() + 1))
    np.add.at(table, (groups, batches), 1.0)
    theirs = groups[neighbors]
    itself = (theirs == groups[queries][:, None]).astype(np.float64)
    chance = (table[theirs, batch] - itself) / np.maximum(table.sum(1)[theirs] - itself, 1.0)
    n = known.sum(1)
    share, expected = (
        np.divide(part.sum(1), n, out=np.full(len(queries), np.nan), where=n > 0) for part in (same, chance * known)
    )
    return share, expected


def group_means(values: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Mean of each group over the values that are not NaN."""
    usable = np.isfinite(values)
    n = np.bincount(groups[usable], minlength=n_groups)
    total = np.bincount(groups[usable], weights=values[usable], minlength=n_groups)
    return np.divide(total, n, out=np.full(n_groups, np.nan), where=n > 0)


def weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over groups in every bootstrap sample of groups, without NaN."""
    usable = np.isfinite(values)
    total = weights[:, usable].sum(1)
    sums = weights[:, usable] @ values[usable]
    return np.divide(sums, total, out=np.full(len(weights), np.nan), where=total > 0)
