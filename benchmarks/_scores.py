"""Held-out scores of a representation against labels, for any dense cells x dimensions array.

Half of each label's cells choose the dimension (either sign), the other half score it.

- ``auroc``: mean over labels of the chosen dimension's AUROC; ``ge90``: labels for which it is at least .90.
- ``f1``: mean over labels of the F1 of "above a threshold", threshold chosen on the first half, too.
- ``lms``, ``msas``: DRVI's matching sum and mean maximum (Moinfar and Theis 2024) over SMI, the mutual information of
  ten equal-width bins with the label, over the label's entropy; matching and maxima are chosen on the first half.
- ``covered``: labels with |Pearson r| > .5 to a dimension that has it to no other label (all cells).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

BINS = 10


def scores(Z: np.ndarray, labels: np.ndarray, *, rng: np.random.Generator, min_cells: int = 10) -> dict[str, float]:
    """Scores of ``Z`` (cells x dimensions) for all labels with at least ``min_cells`` cells."""
    names, inverse, sizes = np.unique(labels.astype(str), return_inverse=True, return_counts=True)
    test = np.zeros(len(Z), bool)
    for c in range(len(names)):
        members = rng.permutation(np.flatnonzero(inverse == c))
        test[members[: len(members) // 2]] = True
    Y = np.eye(len(names), dtype=bool)[inverse][:, sizes >= min_cells]
    columns = np.arange(Y.shape[1])
    choose, score = auroc(Z[~test], Y[~test]), auroc(Z[test], Y[test])
    best = np.abs(choose - 0.5).argmax(0)
    up = choose[best, columns] >= 0.5
    found = np.where(up, score[best, columns], 1 - score[best, columns])
    smi_train, smi_test = smi(Z[~test], Y[~test]), smi(Z[test], Y[test])
    rows, matched = linear_sum_assignment(-smi_train)
    r = np.abs(pearson(Z, Y)) > 0.5
    single = r.sum(1) == 1
    return {
        "auroc": float(found.mean()),
        "ge90": int((found >= 0.9).sum()),
        "f1": float(np.mean([f1(Z[:, best[c]] * (1 if up[c] else -1), Y[:, c], test) for c in columns])),
        "lms": float(smi_test[rows, matched].sum() / len(columns)),
        "msas": float(smi_test[smi_train.argmax(0), columns].mean()),
        "covered": int(r[single].any(0).sum()),
        "n_labels": len(columns),
    }


def auroc(Z: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """AUROC of every dimension for every label, dimensions x labels."""
    n_in = Y.sum(0)
    total = rankdata(Z, axis=0).T @ Y.astype(float)
    return (total - n_in * (n_in + 1) / 2) / (n_in * (len(Y) - n_in))


def smi(Z: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Mutual information of binned dimensions with one-hot labels over the labels' entropy, dimensions x labels."""
    span = np.ptp(Z, axis=0)
    bins = np.minimum((Z - Z.min(0)) / np.where(span > 0, span, 1) * BINS, BINS - 1).astype(int)
    n, n_in = len(Z), Y.sum(0)
    joint = np.stack([(bins == b).T.astype(float) @ Y for b in range(BINS)], -1) / n  # dimensions x labels x bins
    marginal = np.stack([(bins == b).mean(0) for b in range(BINS)], -1)[:, None, :]
    share = (n_in / n)[None, :, None]
    out = np.zeros(joint.shape[:2])
    for p, q in ((joint, share), (marginal - joint, 1 - share)):
        expected = np.broadcast_to(marginal * q, p.shape)
        positive = p > 1e-12
        terms = np.zeros_like(p)
        terms[positive] = p[positive] * np.log(p[positive] / expected[positive])
        out += terms.sum(-1)
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))[0, :, 0]
    out[span == 0] = 0
    return out / entropy


def pearson(Z: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Pearson correlation of every dimension with every label, dimensions x labels."""
    z, y = Z - Z.mean(0), Y - Y.mean(0)
    scale = np.outer(np.sqrt((z**2).sum(0)), np.sqrt((y**2).sum(0)))
    return np.divide(z.T @ y, scale, out=np.zeros_like(scale), where=scale > 0)


def f1(z: np.ndarray, y: np.ndarray, test: np.ndarray) -> float:
    """F1 on test cells of ``z > t``, with t chosen on the others."""
    values = np.sort(np.unique(z[~test]))
    limits = values[:: max(1, len(values) // 200)]
    limit = limits[np.argmax([_f1(z[~test] > t, y[~test]) for t in limits])]
    return _f1(z[test] > limit, y[test])


def _f1(called: np.ndarray, y: np.ndarray) -> float:
    return 2 * float((called & y).sum()) / max(float(called.sum() + y.sum()), 1)
