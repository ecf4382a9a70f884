"""Does one feature find a group of cells, do several share it, or does a more specific one take cells from it?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled
from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.core._ranks import RankedColumns, rank_columns

from ._coactivation import overlap_test


@dataclass(frozen=True)
class Detector:
    """Features that together find the cells of a group: a cell is called when any of them exceeds its threshold.

    See Also
    --------
    sparsesc.stats.best_detector : choose the features

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> codes = sparse.csr_matrix([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    >>> ssc.stats.best_detector(codes, np.array([True, True, False, False])).called(codes).tolist()
    [True, True, False, False]
    """

    features: np.ndarray
    thresholds: np.ndarray
    f1: np.ndarray
    """With the first one, the first two, ..., in the cells they were chosen on."""

    def called(self, codes: sparse.csr_matrix, n_features: int | None = None) -> np.ndarray:
        """Whether each cell is called, by the first `n_features` of them."""
        chosen = slice(0, n_features)
        block = codes[:, self.features[chosen]]
        # thresholds are not negative, so a silent cell is never called
        above = block.data > self.thresholds[chosen][block.indices]
        rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        return np.bincount(rows[above], minlength=block.shape[0]) > 0


@compiled
def _best_addition(
    indptr: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray,
    member: np.ndarray,
    called: np.ndarray,
    hits: int,
    n_called: int,
    size: int,
    f1: np.ndarray,
    threshold: np.ndarray,
) -> None:
    for f in range(len(indptr) - 1):
        stop = indptr[f + 1]
        new_hits, new_called = 0, 0
        i = indptr[f]
        while i < stop and values[i] > 0:
            j = i
            while j < stop and values[j] == values[i]:  # equal values are called together
                if not called[rows[j]]:
                    new_called += 1
                    new_hits += member[rows[j]]
                j += 1
            score = 2.0 * (hits + new_hits) / (n_called + new_called + size)
            if score > f1[f]:
                f1[f] = score
                threshold[f] = values[j] if j < stop and values[j] > 0 else 0.0
            i = j


def best_detector(
    codes: sparse.spmatrix | RankedColumns, member: np.ndarray, *, max_features: int = 5, min_gain: float = 0.03
) -> Detector:
    r"""The feature that finds a group of cells best, and others for as long as each finds more of it.

    Parameters
    ----------
    codes
        Cells x features, sparse, non-negative (or ranked already).
    member
        Which cells are of the group.
    max_features
        Most features to take.
    min_gain
        A further feature must raise F1 by more than this, and find more of the remaining cells of the group than by
        chance (p below 0.05, corrected for the number of features).

    Returns
    -------
    At least one feature, thresholds and F1.

    See Also
    --------
    sparsesc.stats.best_f1 : one feature for every group
    sparsesc.tl.feature_absorption : detectors of all labels, and what takes cells from them

    Notes
    -----
    A cell is called when any of the chosen features exceeds its threshold. Of a group of :math:`n_1` cells, with
    :math:`c` cells called and :math:`h` of them in the group,

    .. math::
        F_1 = \frac{2 h}{c + n_1} .

    References
    ----------
    Chanin et al. (2024), arXiv:2409.14507 (a concept is split when a further feature raises F1 by more than 0.03).

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> x = np.zeros((40, 3))
    >>> x[:10, 0], x[10:20, 1], x[30:, 2] = 1.0, 2.0, 1.0
    >>> detector = ssc.stats.best_detector(sparse.csr_matrix(x), np.arange(40) < 20)
    >>> detector.features.tolist()
    [0, 1]
    >>> detector.f1.round(2).tolist()
    [0.67, 1.0]
    """
    ranked = rank_columns(codes)
    member = np.asarray(member, dtype=bool)
    called = np.zeros(len(member), bool)
    features: list[int] = []
    thresholds: list[float] = []
    scores: list[float] = []
    for _ in range(max_features):
        f1, threshold = np.zeros(ranked.shape[1]), np.zeros(ranked.shape[1])
        hits, n_called = int((called & member).sum()), int(called.sum())
        size = int(member.sum())
        _best_addition(ranked.indptr, ranked.rows, ranked.values, member, called, hits, n_called, size, f1, threshold)
        best = int(f1.argmax())
        start, stop = ranked.indptr[best], ranked.indptr[best + 1]
        above = ranked.rows[start : start + np.sum(ranked.values[start:stop] > threshold[best])]
        if features and (f1[best] <= scores[-1] + min_gain or not _adds(above, member, called, ranked.shape[1])):
            break
        features.append(best)
        thresholds.append(float(threshold[best]))
        scores.append(float(f1[best]))
        called[above] = True
    return Detector(np.array(features), np.array(thresholds), np.array(scores))


def _adds(above: np.ndarray, member: np.ndarray, called: np.ndarray, n_features: int) -> bool:
    """Whether a feature finds more of the cells that are left of a group than the best of so many would by chance."""
    new = above[~called[above]]
    n, size = int((~called).sum()), int((member & ~called).sum())
    log_p = overlap_test(n, size, len(new), int(member[new].sum()))
    return bool(log_p[0] + np.log(n_features) < np.log(0.05))


def find_absorbers(
    active: sparse.csr_matrix,
    missed: np.ndarray,
    n_active: np.ndarray,
    *,
    allowed: np.ndarray,
    min_precision: float = 0.5,
    alpha: float = 0.05,
    max_features: int = 3,
) -> np.ndarray:
    """Features of a part of a group that are active where the detector of the group is not.

    Parameters
    ----------
    active
        Cells of the group x features, 0 and 1.
    missed
        Which of these cells the detector misses.
    n_active
        Cells in which each feature is active, in the group or not.
    allowed
        Features that may be named; those active in more than half of the cells of the group are not.
    min_precision
        Least share of the active cells of a feature that are of the group.
    alpha
        Level of the test that a feature is active in missed cells more often than in others of the group, adjusted for
        all features allowed.
    max_features
        Most features to name.

    Returns
    -------
    Positions, the one that is active in most missed cells first, each adding to those before.
    """
    inside = np.asarray(active.sum(axis=0)).ravel().astype(np.int64)
    in_missed = np.asarray(active[missed].sum(axis=0)).ravel().astype(np.int64)
    n, n_missed = len(missed), int(missed.sum())
    more = in_missed * n > inside * n_missed
    precise = inside >= min_precision * np.maximum(n_active, 1)
    # what is active in most of the group is no finer than its detector
    candidate = np.flatnonzero(allowed & precise & (inside > 0) & (2 * inside <= n))
    if not len(candidate) or not n_missed:
        return np.zeros(0, np.int64)
    p = np.exp(overlap_test(n, n_missed, inside[candidate], in_missed[candidate]))
    candidate = candidate[(benjamini_hochberg(p) < alpha) & more[candidate]]
    left = active[missed][:, candidate].tocsc()
    free = np.ones(n_missed, bool)
    chosen: list[int] = []
    while len(chosen) < max_features and len(candidate):
        covered = np.asarray(left.T @ free.astype(np.int64)).ravel()
        best = int(covered.argmax())
        if covered[best] == 0:
            break
        chosen.append(int(candidate[best]))
        free[left.indices[left.indptr[best] : left.indptr[best + 1]]] = False
    return np.array(chosen, np.int64)
