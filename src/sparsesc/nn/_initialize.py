"""Initial parameters: decoder rows of unit norm, a scaled copy of them as encoder, no biases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

INITS = ("kmeans", "random")

_SAMPLE = 1024
_CLUSTERED = 20_000  # most cells that k-means uses
_ITERATIONS = 30  # of k-means
_SHORTEST = 1e-3  # length below which a center has no direction; a cell is about as long as the root of d


def initial_parameters(
    X: np.ndarray,
    n_features: int,
    k: int,
    rng: np.random.Generator,
    *,
    init: str = "random",
    widths: Sequence[int] = (),
) -> dict[str, np.ndarray]:
    """Parameters for standardized cells ``X`` (n, d): the encoder is the scaled transpose of the decoder.

    Rows of the decoder are random directions, or with ``init="kmeans"`` the directions of k-means centers of the cells:
    as many centers as features, or for nested widths as many as each width adds. Then the first features start at
    coarse groups of cells and the last ones at fine groups. The centers depend only on the cells.

    Features that overlap explain the same part of a cell several times. The scale is the one at which the k largest
    entries of a cell reconstruct it best, so training does not begin by correcting that.
    """
    D = rng.normal(size=(n_features, X.shape[1]))
    if init == "kmeans":
        widths = tuple(widths) or (n_features,)
        for first, last in zip((0, *widths), widths, strict=False):
            centers = kmeans_centers(X, last - first)
            length = np.linalg.norm(centers, axis=1)
            # A center at the mean of all cells has no direction: its feature stays random, like those without a center.
            rows = np.flatnonzero(length > _SHORTEST)
            D[first + rows] = centers[rows]
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
    n_zero = len(D) - k
    codes = np.maximum(cells @ D.T, 0)
    codes[codes < np.partition(codes, n_zero, axis=1)[:, n_zero, None]] = 0
    X_hat = codes @ D
    overlap = float(np.square(X_hat, dtype=np.float64).sum())
    return float((cells * X_hat).sum(dtype=np.float64)) / overlap if overlap > 0 else 1.0


def kmeans_centers(X: np.ndarray, n_centers: int) -> np.ndarray:
    """K-means centers, at most `n_centers` and at most half as many as cells; the same cells give the same centers."""
    # The last bits of products depend on the alignment of the cells in memory; in float64, rounding drops them.
    cells = X[:: -(-len(X) // _CLUSTERED)].astype(np.float64)
    n_centers = max(1, min(n_centers, len(cells) // 2))
    with threadpool_limits(limits=1, user_api="openmp"):  # several threads would sum the cells in any order
        kmeans = KMeans(n_centers, n_init=1, max_iter=_ITERATIONS, random_state=0).fit(cells)
    return np.ascontiguousarray(kmeans.cluster_centers_, dtype=np.float32)
