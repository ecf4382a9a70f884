"""How well do a few features together distinguish groups of cells?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse, special, stats

from sparsesc.stats.core._row_blocks import column_totals

_RIDGE = 1.0  # on standardized features; keeps weights finite where groups are separated without error
_STEPS = 50


def sparse_probe(
    train: sparse.spmatrix,
    train_members: np.ndarray,
    test: sparse.spmatrix,
    test_members: np.ndarray,
    *,
    sizes: Sequence[int] = (1, 2, 5),
) -> np.ndarray:
    """Held-out AUROC of a logistic regression on the few features that fit a group best.

    Features are chosen one after the other on the training cells, each the one with the largest absolute correlation
    with what the earlier ones leave unexplained of the membership (orthogonal matching pursuit).

    Parameters
    ----------
    train
        Cells x features, sparse: the cells that choose features and fit weights.
    train_members
        Boolean, cells x groups.
    test
        Other cells x the same features.
    test_members
        Boolean, those cells x groups.
    sizes
        Numbers of features.

    Returns
    -------
    AUROC on the test cells, sizes x groups; NaN for a group without members or without others there.

    References
    ----------
    Gurnee et al. (2023), Finding Neurons in a Haystack, TMLR (sparse probing). Pati et al. (1993), Asilomar Conf 27
    (orthogonal matching pursuit).
    """
    train, test = sparse.csc_matrix(train), sparse.csc_matrix(test)
    most = min(max(sizes), train.shape[1])
    y = np.asarray(train_members, dtype=np.float64)
    totals = column_totals(train)
    scale = totals.inverse_sd
    chosen = _pursue(train, y, scale, totals.mean, most)  # groups x most
    inside, outside = (
        (part[:, chosen.ravel()].toarray() - totals.mean[chosen.ravel()]) * scale[chosen.ravel()]
        for part in (train, test)
    )
    inside, outside = (a.reshape(len(a), *chosen.shape).transpose(1, 0, 2) for a in (inside, outside))
    out = np.empty((len(sizes), y.shape[1]))
    for i, size in enumerate(min(size, most) for size in sizes):
        if size == 1:  # with one feature, scores have the order of its values: only the direction counts
            weights = np.sign(np.einsum("cn,nc->c", inside[:, :, 0], y - y.mean(axis=0)))[:, None]
        else:
            weights = _logistic(inside[:, :, :size], y.T)
        score = np.matmul(outside[:, :, :size], weights[:, :, None])[:, :, 0]
        # cells with the same values are ties, although a product may end in other last digits for each row
        out[i] = _auroc(np.round(score.T, 9), test_members)
    return out


def _pursue(codes: sparse.csc_matrix, y: np.ndarray, scale: np.ndarray, mean: np.ndarray, most: int) -> np.ndarray:
    """Features by group, in the order in which they are chosen."""
    n_groups = y.shape[1]
    columns = np.arange(n_groups)
    rest = y - y.mean(axis=0)
    basis: list[np.ndarray] = []
    chosen = np.zeros((n_groups, most), np.int64)
    taken = np.zeros((codes.shape[1], n_groups), bool)
    for step in range(most):
        fit = np.abs(codes.T @ rest) * scale[:, None]
        fit[taken] = -1.0
        chosen[:, step] = best = fit.argmax(axis=0)
        taken[best, columns] = True
        q = (codes[:, best].toarray() - mean[best]) * scale[best]
        for earlier in basis:
            q -= earlier * (earlier * q).sum(axis=0)
        length = np.sqrt((q**2).sum(axis=0))
        # what earlier features span already adds nothing
        q = np.divide(q, length, out=np.zeros_like(q), where=length > 1e-6 * np.sqrt(len(q)))
        rest = rest - q * (q * rest).sum(axis=0)
        basis.append(q)
    return chosen


def _logistic(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights (groups x features) of penalized logistic regressions of `y` (groups x cells), all by Newton's steps."""
    n_groups, n, size = X.shape
    design = np.concatenate([X, np.ones((n_groups, n, 1))], axis=2)
    across = np.ascontiguousarray(design.transpose(0, 2, 1))
    penalty = np.diag(np.append(np.full(size, _RIDGE), 0.0))
    share = np.clip(y.mean(axis=1), 0.5 / n, 1.0 - 0.5 / n)
    w = np.zeros((n_groups, size + 1))
    w[:, -1] = special.logit(share)

    def loss(w: np.ndarray) -> np.ndarray:
        z = np.matmul(design, w[:, :, None])[:, :, 0]
        return (np.logaddexp(0.0, z) - y * z).sum(axis=1) + 0.5 * _RIDGE * (w[:, :-1] ** 2).sum(axis=1)

    now = loss(w)
    for _ in range(_STEPS):
        p = special.expit(np.matmul(design, w[:, :, None])[:, :, 0])
        gradient = np.matmul(across, (p - y)[:, :, None])[:, :, 0] + w @ penalty
        curvature = np.matmul(across * (p * (1.0 - p))[:, None, :], design) + penalty
        curvature[:, -1, -1] += 1e-9
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        for _ in range(20):  # far from the optimum a full step can overshoot
            after = loss(w - step)
            worse = after > now + 1e-9 * np.abs(now)
            if not worse.any():
                break
            step[worse] *= 0.5
        w, now = w - step, after
        if np.abs(step).max(initial=0.0) < 1e-6:
            break
    return w[:, :-1]


def _auroc(score: np.ndarray, members: np.ndarray) -> np.ndarray:
    """AUROC of column i of `score` for column i of `members`."""
    n = members.sum(axis=0)
    sums = (stats.rankdata(score, axis=0) * members).sum(axis=0)
    pairs = n * (len(members) - n)
    return np.divide(sums - n * (n + 1.0) / 2.0, pairs, out=np.full(len(n), np.nan), where=pairs > 0)
