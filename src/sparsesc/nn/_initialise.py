"""Where training starts: decoder rows of unit norm, the encoder along them, no biases."""

from __future__ import annotations

import numpy as np

_SAMPLE = 1024


def initial_parameters(X: np.ndarray, n_features: int, k: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Parameters for standardised cells ``X`` (n, d): random directions, the encoder their scaled transpose.

    Features that overlap explain the same part of a cell several times over. The scale is the one at which the k
    largest entries of a cell reconstruct it best, so that training does not begin by undoing that.
    """
    D = rng.normal(size=(n_features, X.shape[1]))
    D = (D / np.linalg.norm(D, axis=1, keepdims=True)).astype(np.float32)
    scale = encoder_scale(X[rng.permutation(len(X))[:_SAMPLE]], D, k)
    return {
        "E": D * np.float32(scale),
        "D": D,
        "b_enc": np.zeros(n_features, np.float32),
        "b_dec": np.zeros(X.shape[1], np.float32),
    }


def encoder_scale(cells: np.ndarray, D: np.ndarray, k: int) -> float:
    """Factor of the encoder ``D.T`` at which the k largest entries of each cell reconstruct the cells best."""
    left_out = len(D) - k
    codes = np.maximum(cells @ D.T, 0)
    codes[codes < np.partition(codes, left_out, axis=1)[:, left_out, None]] = 0
    X_hat = codes @ D
    overlap = float(np.square(X_hat, dtype=np.float64).sum())
    return float((cells * X_hat).sum(dtype=np.float64)) / overlap if overlap > 0 else 1.0
