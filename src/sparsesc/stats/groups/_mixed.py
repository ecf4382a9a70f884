"""Is a feature strongly active in cells of one label and weakly active in those of another?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ._where import excess_f1, log_hypergeometric_tail

_SPLITS = (0.1, 0.25, 0.5, 0.75, 0.9)
_MAJORITY = 0.5
_LIFT = 1 / 3  # precision in excess of chance
_ELSEWHERE = 0.25  # largest share of a label on the other side


@dataclass(frozen=True)
class Mixed:
    """Labels of strong and of weak activations; -1 where both are the same cells. One entry a feature."""

    strong: np.ndarray
    weak: np.ndarray
    n_strong: np.ndarray
    """Active cells above the split, 0 where there is none."""

    @property
    def mixed(self) -> np.ndarray:
        """Whether a feature is active in two kinds of cells at two levels."""
        return self.strong >= 0


def find_mixed(
    codes: sparse.csr_matrix, groups: np.ndarray, *, n_groups: int, min_cells: int = 8, alpha: float = 0.001
) -> Mixed:
    """Features of which strong and weak activations are different cells.

    The active cells of a feature are split by activation, at several places. It is mixed when one label has a majority
    above and another one below, each with at most a quarter on the other side.

    Parameters
    ----------
    codes
        Cells x features, non-negative.
    groups
        Label of each cell, ``0 ... n_groups - 1``.
    n_groups
        Number of labels.
    min_cells
        Active cells that each side has at least.
    alpha
        Limit for the probability that the cells above would hold so many of their label if activations were shuffled
        among the active cells, adjusted (Bonferroni) for all features and splits.
    """
    csc = sparse.csc_matrix(codes)
    n_features = csc.shape[1]
    base = np.bincount(groups, minlength=n_groups) / max(len(groups), 1)
    strong, weak, n_strong = (np.full(n_features, -1), np.full(n_features, -1), np.zeros(n_features, int))
    limit = np.log(alpha / (max(n_features, 1) * len(_SPLITS)))
    for f in range(n_features):
        entries = slice(csc.indptr[f], csc.indptr[f + 1])
        values, labels = csc.data[entries], groups[csc.indices[entries]]
        labels = labels[values > 0][np.argsort(-values[values > 0], kind="stable")]
        n = len(labels)
        cuts = sorted({round(share * n) for share in _SPLITS if min_cells <= round(share * n) <= n - min_cells})
        if not cuts:
            continue
        total, best = np.bincount(labels, minlength=n_groups), 0.0
        for cut in cuts:
            upper = np.bincount(labels[:cut], minlength=n_groups)
            above, below = upper / cut, (total - upper) / (n - cut)
            a, b = int(above.argmax()), int(below.argmax())
            clear = (
                min(above[a], below[b]) >= _MAJORITY
                and max(above[b], below[a]) <= _ELSEWHERE
                and min(excess_f1(above[a], base[a]), excess_f1(below[b], base[b])) >= _LIFT
            )
            gap = above[a] - below[a] + below[b] - above[b]
            if a == b or not clear or gap <= best:
                continue
            log_p = log_hypergeometric_tail(upper[[a]], np.array([cut]), total[[a]], n)[0]
            if log_p < limit:
                strong[f], weak[f], n_strong[f], best = a, b, cut, gap
    return Mixed(strong, weak, n_strong)
