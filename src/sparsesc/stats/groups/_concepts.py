"""Which concept does a feature find, on cells that chose neither the concept nor the threshold?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled
from sparsesc.stats.core._moments import check_groups, group_sums

# Shares of a feature's largest activation, as in InterPLM.
THRESHOLDS = (0.0, 0.15, 0.5, 0.6, 0.8)
CRITERIA = ("excess", "f1")


@dataclass(frozen=True)
class ConceptScores:
    """One concept for every feature: chosen on some cells, scored on others. Arrays of one entry a feature."""

    concept: np.ndarray
    """Group; -1 where the feature is silent in the cells for choosing, or there is no group to choose."""
    threshold: np.ndarray
    """Cells with a larger activation are called; in units of the activation."""
    chosen_by: np.ndarray
    """The criterion in the cells for choosing."""
    f1: np.ndarray
    f1_null: np.ndarray
    """Mean F1 when the labels of the test cells are shuffled: what calling as many cells at random would have."""
    precision: np.ndarray
    recall: np.ndarray
    log_p: np.ndarray
    """Logarithm of the probability of an F1 as large with shuffled labels: exact, one-sided."""


def score_concepts(
    choose: sparse.spmatrix,
    choose_groups: np.ndarray,
    test: sparse.spmatrix,
    test_groups: np.ndarray,
    *,
    n_groups: int,
    eligible: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    criterion: str = "excess",
) -> ConceptScores:
    """The best pair of concept and threshold for every feature in some cells, and its F1 in others.

    Parameters
    ----------
    choose, test
        Cells x features, sparse, non-negative: the cells for choosing and those for scoring.
    choose_groups, test_groups
        Concept of each cell, ``0 ... n_groups - 1``.
    n_groups
        Number of concepts.
    eligible
        Which of them may be chosen; ``None``: all that have cells on both sides.
    thresholds
        Shares of the largest activation among the cells for choosing.
    criterion
        What is maximal: ``"excess"``, F1 in excess of `f1_null` relative to 1, or ``"f1"``.

    Returns
    -------
    Scores; where there is no concept, F1, its null, precision and recall are 0 and `log_p` is 0.

    Notes
    -----
    In the test cells concept and threshold are fixed, so that with shuffled labels the number of called cells of the
    concept is hypergeometric, and F1 rises with it: the p-value needs no draws. It is discrete, hence conservative.
    """
    choose, test = sparse.csr_matrix(choose), sparse.csr_matrix(test)
    choose_groups, _ = check_groups(choose_groups, choose.shape[0], n_groups)
    test_groups, _ = check_groups(test_groups, test.shape[0], n_groups)
    n_features = choose.shape[1]
    sizes = np.bincount(choose_groups, minlength=n_groups), np.bincount(test_groups, minlength=n_groups)
    allowed = (sizes[0] > 0) & (sizes[1] > 0)
    allowed = allowed if eligible is None else allowed & eligible
    largest = np.zeros(n_features, choose.dtype)
    np.maximum.at(largest, choose.indices, choose.data)

    best = np.full(n_features, -np.inf)
    concept, share = np.full(n_features, -1), np.zeros(n_features)
    rows = np.arange(n_features)
    for threshold in thresholds:
        hits, called = _count_calls(choose, threshold * largest, choose_groups, n_groups)
        f1, null = _f1_and_null(hits, called[:, None], sizes[0][None, :], choose.shape[0])
        value = excess_f1(f1, null) if criterion == "excess" else f1
        value = np.where(allowed[None, :] & (largest > 0)[:, None], value, -np.inf)
        candidate = value.argmax(axis=1) if n_groups else np.zeros(n_features, int)
        better = value[rows, candidate] > best
        best[better] = value[rows, candidate][better]
        concept[better], share[better] = candidate[better], threshold

    has_concept = concept >= 0
    wanted = np.maximum(concept, 0)
    levels = share * largest
    hits, called = _count_calls(test, levels, test_groups, n_groups)
    hits, members = np.where(has_concept, hits[rows, wanted], 0), np.where(has_concept, sizes[1][wanted], 0)
    called = np.where(has_concept, called, 0)
    f1, null = _f1_and_null(hits, called, members, test.shape[0])
    return ConceptScores(
        concept=concept,
        threshold=levels,
        chosen_by=np.where(has_concept, best, 0.0),
        f1=f1,
        f1_null=null,
        precision=hits / np.maximum(called, 1),
        recall=hits / np.maximum(members, 1),
        log_p=_log_tail(hits, called, members, test.shape[0]),
    )


def excess_f1(f1: np.ndarray, null: np.ndarray) -> np.ndarray:
    """F1 in excess of what chance gives, relative to 1."""
    f1, null = np.asarray(f1, dtype=np.float64), np.asarray(null, dtype=np.float64)
    return np.divide(f1 - null, 1.0 - null, out=np.zeros_like(f1), where=null < 1.0)


def _count_calls(
    codes: sparse.csr_matrix, levels: np.ndarray, groups: np.ndarray, n_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Called cells of every group (features x groups), and called cells."""
    # an activation equal to the maximum of its feature times a share must not be called by rounding alone
    above = codes.data > levels.astype(codes.dtype)[codes.indices]
    calls = sparse.csr_matrix((above.astype(np.float64), codes.indices, codes.indptr), codes.shape)
    hits = group_sums(calls, groups, n_groups)
    return hits, hits.sum(axis=1)


def _f1_and_null(hits: np.ndarray, called: np.ndarray, members: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    both = np.maximum(called + members, 1.0)
    return 2.0 * hits / both, 2.0 * (called * (members / max(n, 1))) / both


@compiled
def _log_tail_loop(hits: np.ndarray, called: np.ndarray, members: np.ndarray, n: float, out: np.ndarray) -> None:
    for i in range(len(hits)):
        k, m, c = hits[i], called[i], members[i]
        if k <= 0.0 or k <= m + c - n:  # nothing, or what every draw has
            continue
        log_first = (
            math.lgamma(c + 1.0) - math.lgamma(k + 1.0) - math.lgamma(c - k + 1.0)
            + math.lgamma(n - c + 1.0) - math.lgamma(m - k + 1.0) - math.lgamma(n - c - m + k + 1.0)
            - math.lgamma(n + 1.0) + math.lgamma(m + 1.0) + math.lgamma(n - m + 1.0)
        )  # fmt: skip
        total = term = 1.0
        while k < min(m, c) and total < 1e280 and term > 1e-17 * total:
            term *= (c - k) * (m - k) / ((k + 1.0) * (n - c - m + k + 1.0))
            total += term
            k += 1.0
        out[i] = min(log_first + math.log(total), 0.0) if total < 1e280 else 0.0


def _log_tail(hits: np.ndarray, called: np.ndarray, members: np.ndarray, n: int) -> np.ndarray:
    """Logarithm of P(as many or more hits) for a hypergeometric number of hits."""
    out = np.zeros(len(hits))
    hits, called, members = (np.asarray(a, dtype=np.float64) for a in (hits, called, members))
    _log_tail_loop(hits, called, members, float(n), out)
    return out
