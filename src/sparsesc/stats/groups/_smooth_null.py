"""Do labels say more of the features than labels of no meaning would that are as smooth over the cells?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ._label_fields import CellGraph, label_fields, smoothness
from ._where import score_where

N_DRAWS = 299
MAX_CELLS = 3000
_RARE = 0.001
_SAME = 0.8  # adjusted Rand index from which random labels are the given ones, drawn again


@dataclass(frozen=True)
class SmoothNull:
    """A column of labels beside random labels of equal sizes and smoothness."""

    statistic: float
    """Mean over features of the held-out excess F1 of their labels, less what further labels cost."""
    null: np.ndarray
    """The same of every draw."""
    limit: float
    """Excess F1 that one in a thousand features has with random labels."""
    steps: float
    n_same: int
    """Draws that were dropped because they are nearly the given labels."""

    @property
    def pval(self) -> float:
        """Probability of so large a statistic; NaN where most random labels are the given ones."""
        if len(self.null) <= self.n_same:
            return float("nan")
        return float((1 + (self.null >= self.statistic).sum()) / (1 + len(self.null)))


def smooth_null(
    X: np.ndarray,
    on: sparse.csr_matrix,
    groups: np.ndarray,
    test: np.ndarray,
    *,
    n_groups: int,
    rng: np.random.Generator,
    n_draws: int = N_DRAWS,
    max_cells: int = MAX_CELLS,
) -> SmoothNull:
    """Compare labels with random ones, on at most `max_cells` cells drawn by `rng`.

    Parameters
    ----------
    X
        Embedding, cells x dimensions: its nearest neighbors make the graph.
    on
        Cells x features, 1 where a feature is on.
    groups
        Label of each cell.
    test
        Cells that score; the others choose.
    n_groups
        Number of labels.
    rng
        Draws cells and labels.
    n_draws
        Random labels.
    max_cells
        Cells to work on.

    Notes
    -----
    The question is about the column as a whole. For one feature alone it has no good answer: a region that is drawn at
    random over the graph often is a cluster of cells, which a feature may well stand for, and then the label would be
    right. Labels that mean something go with the features one after the other.
    """
    from sklearn.metrics import adjusted_rand_score

    if len(X) > max_cells:
        kept = np.sort(rng.permutation(len(X))[:max_cells])
        X, on, groups, test = X[kept], on[kept], groups[kept], test[kept]
    graph = CellGraph.of(X)
    active = np.asarray(on.sum(axis=0)).ravel() > 0
    sizes = np.bincount(groups, minlength=n_groups)

    def scores(labels: np.ndarray) -> tuple[float, np.ndarray]:
        where = score_where(on, labels, test, n_groups=n_groups)
        return (float(where.net[active].mean()) if active.any() else 0.0), where.excess[active]

    steps = smoothness(graph, groups, n_groups, rng)
    draws, excess, n_same = [], [], 0
    for labels in label_fields(graph, sizes, steps, n_draws, rng):
        if adjusted_rand_score(groups, labels) >= _SAME:
            n_same += 1
        else:
            statistic, of_features = scores(labels)
            draws.append(statistic)
            excess.append(of_features)
    return SmoothNull(
        statistic=scores(groups)[0],
        null=np.array(draws),
        limit=float(np.quantile(np.concatenate(excess), 1 - _RARE)) if draws and active.any() else 1.0,
        steps=steps,
        n_same=n_same,
    )
