"""Resampling of dead features: they move to the cells with the largest reconstruction error."""

from __future__ import annotations

import numpy as np
import torch

from ._encode import encode_standardized
from ._threshold import exact_threshold

_SHARE = 0.002  # of the cells, in which a resampled feature is active
_MIN_CELLS = 10  # a feature of fewer cells would describe noise
_MAX_SHARE = 0.02  # of the cells; where ten cells are more than this, features stay silent
_RARE = 0.25  # of the cells of a resampled feature: one that fires in fewer counts as silent
_ROUNDS = 4  # of the search for silent features
_SAMPLE = 65_536  # most cells that are used
_AT_ONCE = 32  # features that are resampled in one round


def resample_dead(
    weights: dict[str, np.ndarray], X: np.ndarray, k: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Inference weights in which features that never fire are replaced by local ones.

    A feature that dies in training loses the competition for the k active features of a cell: it can explain less than
    the smallest activation that wins. After training there is no competition, only thresholds, which can differ between
    features. Each silent feature gets a cell, drawn with probabilities proportional to the squared error. Its encoder
    is the direction of this cell, and it fires in the 0.2 % of cells with the largest inner product. Its decoder row is
    the direction of their residuals, weighted by activation, and its scale the least-squares fit to them. So on these
    cells it can only lower the error. The other features get a slightly higher threshold, so cells have k active
    features on average as before.

    Parameters
    ----------
    weights
        ``E`` (F, d), ``D`` (F, d), ``b_enc`` (F,), ``b_dec`` (d,), ``threshold`` (F,).
    X
        Cells (n, d) in the same units.
    k
        Mean number of active features per cell.
    rng
        Draws cells.

    Returns
    -------
    New weights; the same ones if every feature fires, or there are too few cells.
    """
    sample = X if len(X) <= _SAMPLE else X[rng.permutation(len(X))[:_SAMPLE]]
    members = max(_MIN_CELLS, round(_SHARE * len(sample)))
    if members > _MAX_SHARE * len(sample):
        return weights
    weights = {name: value.copy() for name, value in weights.items()}
    # The new features raise the threshold of the others, which silences a few more of them.
    silent = np.zeros(len(weights["D"]), bool)
    for _ in range(_ROUNDS):
        n_before = silent.sum()
        codes = encode_standardized(weights, sample, weights["threshold"])
        silent |= np.bincount(codes.indices, minlength=len(silent)) < _RARE * members
        k_left = k - silent.sum() * members / len(sample)
        if silent.sum() == n_before or k_left < k / 2:
            break
        others = weights | {name: weights[name][~silent] for name in ("E", "D", "b_enc", "threshold")}
        weights["threshold"][~silent] = exact_threshold(others, X, k_left)
    silent = np.flatnonzero(silent)
    if not len(silent):
        return weights
    weights["threshold"][silent] = 0
    weights["b_enc"][silent], weights["E"][silent] = -1, 0  # certainly silent until they are resampled

    centered = sample - weights["b_dec"]
    codes = encode_standardized(weights, sample, weights["threshold"])
    residual = (centered - codes @ weights["D"]).astype(np.float32)
    length = np.linalg.norm(centered, axis=1)
    for first in range(0, len(silent), _AT_ONCE):
        features = silent[first : first + _AT_ONCE]
        error = np.square(residual, dtype=np.float64).sum(1) * (length > 0)
        if np.count_nonzero(error) < len(features):
            break
        chosen = rng.choice(len(sample), size=len(features), replace=False, p=error / error.sum())
        direction = centered[chosen] / length[chosen, None]
        # The most similar cells, and the limit that all other cells stay below.
        largest = torch.topk(torch.from_numpy(direction @ centered.T), members + 1, dim=1)
        similarity, cells = largest.values.numpy(), largest.indices[:, :-1].numpy()
        limit = similarity[:, -1]
        active = np.maximum(similarity[:, :-1] - limit[:, None], 0)
        weighted = np.einsum("fm,fmd->fd", active, residual[cells])
        size = np.linalg.norm(weighted, axis=1)
        # Where features of one round share a cell, each takes an equal part, so together they cannot overshoot.
        n_sharing = np.bincount(cells.ravel(), minlength=len(sample))[cells].max(1)
        scale = size / np.maximum(np.square(active, dtype=np.float64).sum(1), 1e-30) / n_sharing
        use = (size > 0) & (limit > 0)
        D = weighted[use] / size[use, None]
        weights["E"][features[use]] = scale[use, None] * direction[use]
        weights["b_enc"][features[use]] = -(scale * limit)[use]
        weights["D"][features[use]] = D
        step = (scale[use, None] * active[use]).astype(np.float32)
        np.subtract.at(residual, cells[use].ravel(), (step[:, :, None] * D[:, None, :]).reshape(-1, D.shape[1]))
    return weights
