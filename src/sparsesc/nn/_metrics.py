"""How well a code describes cells: pure functions of cells and their reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from ._sae import SparseAutoencoder


def fraction_unexplained(X: np.ndarray, X_hat: np.ndarray) -> float:
    """FVU: squared error over squared deviation from the mean cell, summed in float64."""
    error = np.square(X - X_hat, dtype=np.float64).sum()
    total = np.square(X - X.mean(0, dtype=np.float64)).sum()
    return float(error / total) if total > 0 else float("nan")


def fit_metrics(sae: SparseAutoencoder, X: np.ndarray) -> dict[str, float]:
    """Metrics of a sparse autoencoder on cells (n, d), in original units.

    ``fvu`` and ``explained_variance = 1 - fvu``; ``l0`` active features per cell; ``dead_fraction`` features active in
    none of these cells; ``cosine`` between centered cells and their centered reconstruction, mean over cells;
    ``shrinkage`` E|x_hat|^2 / E<x, x_hat> of the same (1 is none, below 1 reconstructions are too short).
    """
    codes = sae.encode(X)
    X_hat = sae.decode(codes)
    fvu = fraction_unexplained(X, X_hat)
    center = X.mean(0, dtype=np.float64)
    a, b = X - center, X_hat - center
    dot, aa, bb = (np.einsum("ij,ij->i", u, v) for u, v in ((a, b), (a, a), (b, b)))
    lengths = np.sqrt(aa * bb)
    return {
        "fvu": fvu,
        "explained_variance": 1 - fvu,
        "l0": codes.nnz / max(len(X), 1),
        "dead_fraction": 1 - active_features(codes).mean(),
        "cosine": float(np.divide(dot, lengths, out=np.zeros_like(dot), where=lengths > 0).mean()),
        "shrinkage": float(bb.sum() / dot.sum()) if dot.sum() != 0 else float("nan"),
    }


def active_features(codes: sparse.csr_matrix) -> np.ndarray:
    """Which features are active in at least one cell, (F,)."""
    return np.bincount(codes.indices, minlength=codes.shape[1]) > 0
