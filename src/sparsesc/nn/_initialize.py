"""Where training starts: decoder rows of unit norm, the encoder along them, no biases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

INITS = ("kmeans", "random")

_SAMPLE = 1024
_CLUSTERED = 20_000  # cells that k-means sees, at most
_ITERATIONS = 30  # of k-means
_SHORTEST = 1e-3  # length of a centre that has a direction; that of a cell is about the root of d


def initial_parameters(
    X: np.ndarray,
    n_features: int,
    k: int,
    rng: np.random.Generator,
    *,
    init: str = "random",
    widths: Sequence[int] = (),
) -> dict[str, np.ndarray]:
    """Parameters for standardised cells ``X`` (n, d): the encoder is the scaled transpose of the decoder.

    Rows of the decoder are random directions, or with ``init="kmeans"`` those of the cells' k-means centres: as many
    centres as features, or for nested widths as many as each adds, so that the first features start at coarse groups
    of cells and the last ones at fine groups. The cells alone determine the centres.

    Features that overlap explain the same part of a cell several times over. The scale is the one at which the k
    largest entries of a cell reconstruct it best, so that training does not begin by undoing that.
    """
    D = rng.normal(size=(n_features, X.shape[1]))
    if init == "kmeans":
        widths = tuple(widths) or (n_features,)
        for first, last in zip((0, *widths), widths, strict=False):
            centres = kmeans_centres(X, last - first)
            length = np.linalg.norm(centres, axis=1)
            # A centre at the mean of all cells has no direction: these features stay random, as those without a centre.
            rows = np.flatnonzero(length > _SHORTEST)
            D[first + rows] = centres[rows]
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


def kmeans_centres(X: np.ndarray, n_centres: int) -> np.ndarray:
    """Centres of cells, at most `n_centres` and at most half as many as cells; the same for the same cells."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    # The last bits of products depend on where in memory the cells lie; in float64 they are beyond what is kept.
    cells = X[:: -(-len(X) // _CLUSTERED)].astype(np.float64)
    n_centres = max(1, min(n_centres, len(cells) // 2))
    with threadpool_limits(limits=1, user_api="openmp"):  # threads would add up the cells in any order
        kmeans = KMeans(n_centres, n_init=1, max_iter=_ITERATIONS, random_state=0).fit(cells)
    return np.ascontiguousarray(kmeans.cluster_centers_, dtype=np.float32)
