"""Which label, or union of labels, are the cells in which a feature is on? Chosen on some cells, scored on others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled
from sparsesc.stats.core._moments import check_groups, group_sums

MAX_LABELS = 3
LABEL_COST = 0.1  # excess F1 that a further label has to add
_COMPARED = 5  # labels of which unions are made
_MAJORITY = 0.5


@dataclass(frozen=True)
class Where:
    """One label or union of labels for every feature: arrays of one entry a feature, the first one of three."""

    groups: np.ndarray
    """Labels, the one with most of the cells first; -1 behind the last one."""
    broad: np.ndarray
    """Whether more than three labels describe the cells better than any three."""
    chosen_by: np.ndarray
    """Excess F1 in the cells for choosing, less what the labels cost; 0 where there is nothing to choose."""
    f1: np.ndarray
    f1_null: np.ndarray
    """Mean F1 when the labels of the test cells are shuffled: what as many cells at random would have."""
    precision: np.ndarray
    recall: np.ndarray
    share: np.ndarray
    """Share of the test cells that have one of the labels: the precision of cells at random."""
    precision_all: np.ndarray
    """Precision among all cells, those for choosing too."""
    n_members: np.ndarray
    """Cells with one of the labels, on both sides."""
    log_p: np.ndarray
    """Logarithm of the probability of as many cells with shuffled labels: exact, one-sided."""

    @property
    def excess(self) -> np.ndarray:
        """F1 in excess of chance, relative to 1."""
        return excess_f1(self.f1, self.f1_null)

    @property
    def net(self) -> np.ndarray:
        """The excess, less what the labels cost."""
        return self.excess - LABEL_COST * np.maximum((self.groups >= 0).sum(axis=1) - 1, 0)

    @property
    def lift(self) -> np.ndarray:
        """Precision in excess of chance, relative to 1."""
        return excess_f1(self.precision, self.share)


def score_where(
    on: sparse.csr_matrix,
    groups: np.ndarray,
    test: np.ndarray,
    *,
    n_groups: int,
    eligible: np.ndarray | None = None,
) -> Where:
    """The labels of the cells in which each feature is on.

    Parameters
    ----------
    on
        Cells x features, 1 where a feature is on, nothing else stored.
    groups
        Label of each cell, ``0 ... n_groups - 1``.
    test
        Cells that score; the others choose.
    n_groups
        Number of labels.
    eligible
        Which labels may be chosen; ``None``: all that have cells on both sides.

    Notes
    -----
    All unions of up to three of the five best labels are compared; each further label costs `LABEL_COST`. Unions with a
    majority of the cells go before those without.
    """
    on = sparse.csr_matrix(on)
    groups, _ = check_groups(groups, on.shape[0], n_groups)
    test = np.asarray(test, dtype=bool)
    hits = [group_sums(on[side], groups[side], n_groups) for side in (~test, test)]
    sizes = [np.bincount(groups[side], minlength=n_groups).astype(np.float64) for side in (~test, test)]
    allowed = (sizes[0] > 0) & (sizes[1] > 0)
    allowed = allowed if eligible is None else allowed & eligible
    return choose_where(hits[0], hits[1], *sizes, n_on=[h.sum(axis=1) for h in hits], allowed=allowed)


def choose_where(
    hits: np.ndarray,
    test_hits: np.ndarray,
    sizes: np.ndarray,
    test_sizes: np.ndarray,
    *,
    n_on: list[np.ndarray],
    allowed: np.ndarray,
) -> Where:
    """:func:`score_where` from counts, features x labels; `n_on` are the cells in which a feature is on, by side."""
    n_features, n_groups = hits.shape
    n, n_test = sizes.sum(), test_sizes.sum()
    rows = np.arange(n_features)

    def excess(hit: np.ndarray, members: np.ndarray) -> np.ndarray:
        return excess_f1(*_f1_and_null(hit, n_on[0].reshape(-1, *[1] * (hit.ndim - 1)), members, n))

    usable = (hits > 0) & allowed
    alone = np.where(usable, excess(hits, np.broadcast_to(sizes, hits.shape)), -np.inf)
    order = np.argsort(-alone, axis=1, kind="stable")[:, :_COMPARED]
    unions = _unions(order.shape[1])
    taken = unions[None, :, :] & np.take_along_axis(usable, order, axis=1)[:, None, :]
    summed = np.where(taken, np.take_along_axis(hits, order, axis=1)[:, None, :], 0.0).sum(axis=2)
    members = np.where(taken, sizes[order][:, None, :], 0.0).sum(axis=2)
    value = excess(summed, members) - LABEL_COST * (unions.sum(axis=1) - 1)
    value = np.where((taken == unions).all(axis=2) & (members < n), value, -np.inf)
    majority = np.where(summed >= _MAJORITY * n_on[0][:, None], value, -np.inf)
    value = np.where(np.isfinite(majority).any(axis=1)[:, None], majority, value)
    which = value.argmax(axis=1) if value.shape[1] else np.zeros(n_features, int)
    best = value[rows, which] if value.shape[1] else np.full(n_features, -np.inf)
    found = np.isfinite(best)
    broad = found & (_best_of_many(hits, sizes, allowed, excess) > best + LABEL_COST)

    chosen = np.full((n_features, MAX_LABELS), -1)
    for f in np.flatnonzero(found):
        labels = order[f, unions[which[f]]]
        chosen[f, : len(labels)] = labels[np.argsort(-hits[f, labels], kind="stable")]
    inside = chosen >= 0
    pick = np.maximum(chosen, 0)

    def total(values: np.ndarray) -> np.ndarray:
        values = np.broadcast_to(values, (n_features, n_groups))
        return np.where(inside, np.take_along_axis(values, pick, axis=1), 0.0).sum(axis=1)

    in_test, test_members = total(test_hits), total(test_sizes)
    called = np.where(found, n_on[1], 0.0)
    test_f1, test_null = _f1_and_null(in_test, called, test_members, n_test)
    return Where(
        groups=chosen,
        broad=broad,
        chosen_by=np.where(found, best, 0.0),
        f1=test_f1,
        f1_null=test_null,
        precision=in_test / np.maximum(called, 1),
        recall=in_test / np.maximum(test_members, 1),
        share=test_members / max(n_test, 1),
        precision_all=(in_test + total(hits)) / np.maximum(called + n_on[0], 1),
        n_members=(test_members + total(sizes)).astype(int),
        log_p=log_hypergeometric_tail(in_test, called, test_members, n_test),
    )


def _unions(n: int) -> np.ndarray:
    """All sets of one to three of `n` labels, sets x labels."""
    sets = [c for size in range(1, min(MAX_LABELS, n) + 1) for c in combinations(range(n), size)]
    out = np.zeros((len(sets), n), bool)
    for i, members in enumerate(sets):
        out[i, list(members)] = True
    return out


def _best_of_many(
    hits: np.ndarray, sizes: np.ndarray, allowed: np.ndarray, excess: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """The best excess F1 of more than three labels, less what they cost: those of whose cells most are on."""
    rate = np.divide(hits, sizes, out=np.zeros_like(hits), where=sizes > 0)
    rate[:, ~allowed] = -1
    order = np.argsort(-rate, axis=1, kind="stable")
    usable = np.take_along_axis((hits > 0) & allowed, order, axis=1)
    members = np.cumsum(sizes[order], axis=1)
    value = excess(np.cumsum(np.take_along_axis(hits, order, axis=1), axis=1), members)
    value = np.where(usable & (members < sizes.sum()), value - LABEL_COST * np.arange(hits.shape[1]), -np.inf)
    return value[:, MAX_LABELS:].max(axis=1, initial=-np.inf)


def excess_f1(f1: np.ndarray, null: np.ndarray) -> np.ndarray:
    """F1 (or precision) in excess of what chance gives, relative to 1."""
    f1, null = np.asarray(f1, dtype=np.float64), np.asarray(null, dtype=np.float64)
    return np.divide(f1 - null, 1.0 - null, out=np.zeros_like(f1), where=null < 1.0)


def _f1_and_null(hits: np.ndarray, called: np.ndarray, members: np.ndarray, n: float) -> tuple[np.ndarray, np.ndarray]:
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


def log_hypergeometric_tail(hits: np.ndarray, called: np.ndarray, members: np.ndarray, n: float) -> np.ndarray:
    """Logarithm of P(as many or more hits) when `called` of `n` cells, `members` of which count, are drawn."""
    out = np.zeros(len(hits))
    hits, called, members = (np.asarray(a, dtype=np.float64) for a in (hits, called, members))
    _log_tail_loop(hits, called, members, float(n), out)
    return out
