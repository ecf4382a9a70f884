"""The activation threshold at which a code has a given sparsity."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ._encode import encode_standardized

_SAMPLE = 512


def exact_threshold(weights: Mapping[str, np.ndarray], X: np.ndarray, k: float) -> float:
    """The largest threshold at which cells ``X`` (n, d) have at least k active features on average.

    The result is exact over all cells: a sample gives a guess from below, and one encoding above that guess holds all
    values that can matter. Zero when fewer than k features per cell are positive.
    """

    def values_above(cells: np.ndarray, limit: float) -> np.ndarray:
        limits = np.full(len(weights["D"]), limit, np.float32)
        return encode_standardized(weights, cells, limits).data

    total = max(1, round(k * len(X)))
    sample = X[:: max(1, len(X) // _SAMPLE)]
    positive = values_above(sample, 0.0)
    rank = min(len(positive), int(1.3 * k * len(sample)) + 1)
    guess = float(np.partition(positive, len(positive) - rank)[len(positive) - rank]) if rank else 0.0
    values = values_above(X, guess)
    if len(values) < total and guess > 0:
        values = values_above(X, 0.0)
    if len(values) < total:
        return 0.0
    limit = np.partition(values, len(values) - total)[len(values) - total]
    return float(np.nextafter(limit, np.float32(0)))
