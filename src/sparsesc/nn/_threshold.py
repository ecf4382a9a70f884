"""The activation threshold at which a code has the sparsity that was asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ._encode import encode_weights

_SAMPLE = 512


def exact_threshold(weights: Mapping[str, np.ndarray], X: np.ndarray, k: float) -> float:
    """The largest threshold at which cells ``X`` (n, d) have at least k active features on average.

    Exact over all cells: a sample of them gives a lower guess, one encoding above it holds all values that can matter.
    Zero when fewer than k features per cell are positive.
    """

    def values(cells: np.ndarray, above: float) -> np.ndarray:
        limits = np.full(len(weights["D"]), above, np.float32)
        return encode_weights(weights, cells, limits).data

    total = max(1, round(k * len(X)))
    sample = X[:: max(1, len(X) // _SAMPLE)]
    positive = values(sample, 0.0)
    loose = min(len(positive), int(1.3 * k * len(sample)) + 1)
    guess = float(np.partition(positive, len(positive) - loose)[len(positive) - loose]) if loose else 0.0
    found = values(X, guess)
    if len(found) < total and guess > 0:
        found = values(X, 0.0)
    if len(found) < total:
        return 0.0
    limit = np.partition(found, len(found) - total)[len(found) - total]
    return float(np.nextafter(limit, np.float32(0)))
