"""Work for features that fire in no cell: the cells that the code reconstructs worst."""

from __future__ import annotations

import numpy as np

from ._encode import encode_weights
from ._threshold import exact_threshold

_SHARE = 0.002  # of the cells, in which such a feature is active
_FEWEST = 10  # cells: a feature for fewer would describe noise
_LARGEST_SHARE = 0.02  # where cells are so few that ten are more than this, features stay silent
_RARE = 0.25  # of those cells: a feature that fires in fewer is taken for silent
_ROUNDS = 4
_SAMPLE = 65_536
_AT_ONCE = 32


def resample_dead(
    weights: dict[str, np.ndarray], X: np.ndarray, k: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Inference weights in which features that never fire became local ones.

    A feature that dies in training loses the competition for the k active places of a cell: what is left to explain is
    shorter than the smallest activation that wins. Afterwards there is no competition but thresholds, and these may
    differ. Each silent feature gets a cell drawn by its squared error: its encoder looks for cells that point the same
    way and fires in the 0.2 % most alike, its decoder row is the direction of their residuals, its activation is the
    least-squares length along it. So on these cells it can only lower the error. The other features get a slightly
    higher threshold, so that cells have k active features on average as before.

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
    import torch

    sample = X if len(X) <= _SAMPLE else X[rng.permutation(len(X))[:_SAMPLE]]
    members = max(_FEWEST, round(_SHARE * len(sample)))
    if members > _LARGEST_SHARE * len(sample):
        return weights
    weights = {name: value.copy() for name, value in weights.items()}
    # The places of the new features raise the threshold of the others, which silences a few more of them.
    silent = np.zeros(len(weights["D"]), bool)
    for _ in range(_ROUNDS):
        before = silent.sum()
        codes = encode_weights(weights, sample, weights["threshold"])
        silent |= np.bincount(codes.indices, minlength=len(silent)) < _RARE * members
        left = k - silent.sum() * members / len(sample)
        if silent.sum() == before or left < k / 2:
            break
        rest = weights | {name: weights[name][~silent] for name in ("E", "D", "b_enc", "threshold")}
        weights["threshold"][~silent] = exact_threshold(rest, X, left)
    silent = np.flatnonzero(silent)
    if not len(silent):
        return weights
    weights["threshold"][silent] = 0
    weights["b_enc"][silent], weights["E"][silent] = -1, 0  # surely silent until it is their turn

    centred = sample - weights["b_dec"]
    codes = encode_weights(weights, sample, weights["threshold"])
    residual = (centred - codes @ weights["D"]).astype(np.float32)
    length = np.linalg.norm(centred, axis=1)
    for first in range(0, len(silent), _AT_ONCE):
        features = silent[first : first + _AT_ONCE]
        error = np.square(residual, dtype=np.float64).sum(1) * (length > 0)
        if np.count_nonzero(error) < len(features):
            break
        chosen = rng.choice(len(sample), size=len(features), replace=False, p=error / error.sum())
        toward = centred[chosen] / length[chosen, None]
        # The cells most alike, and the bar that all others stay below.
        largest = torch.topk(torch.from_numpy(toward @ centred.T), members + 1, dim=1)
        likeness, cells = largest.values.numpy(), largest.indices[:, :-1].numpy()
        bar = likeness[:, -1]
        active = np.maximum(likeness[:, :-1] - bar[:, None], 0)
        pull = np.einsum("fm,fmd->fd", active, residual[cells])
        size = np.linalg.norm(pull, axis=1)
        # Where features of the same turn meet in a cell, each does its share: then together they cannot overshoot.
        meet = np.bincount(cells.ravel(), minlength=len(sample))[cells].max(1)
        scale = size / np.maximum(np.square(active, dtype=np.float64).sum(1), 1e-30) / meet
        use = (size > 0) & (bar > 0)
        D = pull[use] / size[use, None]
        weights["E"][features[use]] = scale[use, None] * toward[use]
        weights["b_enc"][features[use]] = -(scale * bar)[use]
        weights["D"][features[use]] = D
        step = (scale[use, None] * active[use]).astype(np.float32)
        np.subtract.at(residual, cells[use].ravel(), (step[:, :, None] * D[:, None, :]).reshape(-1, D.shape[1]))
    return weights
