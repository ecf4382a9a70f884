"""Who carries the covariate of the large simulation? It shifts all programs of a cell by the same small amount.

Every row of the table is one answer, from what could at most be known to what a code has, and what it leaves over.
``r`` is with the covariate as a number (0, 1, 2); the r of the published study is of that kind.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from anndata import AnnData
from scipy import sparse

import sparsesc as ssc

COARSE = {"architecture": "batchtopk", "k": 1}


def fitted(X: np.ndarray, seed: int, **options: object) -> ssc.nn.SparseAutoencoder:
    """The autoencoder that ``ssc.tl.fit_sae`` fits to an embedding."""
    cells = AnnData(sparse.csr_matrix((len(X), 1), dtype=np.float32), obsm={"X_pca": X})
    ssc.tl.fit_sae(cells, use_rep="X_pca", rng=seed, progress_bar=False, **options)
    return ssc.get.sae(cells)


def components(X: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first principal components of some cells, as directions and as values; no labels are involved."""
    centered = X - X.mean(0)
    directions = np.linalg.svd(centered[:5000], full_matrices=False)[2][:n]
    return directions, centered @ directions.T


def dense_direction(X: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first principal component of the residual of a code with one feature per cell.

    Returns
    -------
    The direction, its value in each cell, and the embedding without it.
    """
    left = X - fitted(X, seed, **COARSE).reconstruct(X)
    direction, value = components(left, 1)
    rest = X - (X - X.mean(0)) @ direction.T @ direction
    return direction[0], value, np.ascontiguousarray(rest, np.float32)


def ridge(X: np.ndarray, truth: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Linear predictions of all cells by those that `train` marks, with the best of three penalties (in hindsight)."""
    mean, scale = X[train].mean(0), X[train].std(0) + 1e-9
    A = (X - mean) / scale
    y = truth - truth[train].mean(0)
    best, found = -1.0, np.zeros_like(y)
    for penalty in (1.0, 100.0, 10_000.0):
        solved = np.linalg.solve(A[train].T @ A[train] + penalty * np.eye(A.shape[1]), A[train].T @ y[train])
        predicted = A @ solved
        r = float(np.nanmean([abs(pearson(p, t)) for p, t in zip(predicted[~train].T, y[~train].T, strict=True)]))
        if r > best:
            best, found = r, predicted
    return found


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else 0.0


def without_types(X: np.ndarray, types: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Cells less the mean of their type."""
    out = X.copy()
    for t in np.unique(types):
        out[types == t] -= X[(types == t) & train].mean(0)
    return out


def best_guess(adata: AnnData, types: np.ndarray) -> np.ndarray:
    """The covariate by the programs that a cell of known type has switched on, weighted by their variance."""
    mean = 1 + 0.1 * np.arange(adata.obsm["X1"].shape[1])  # of a Poisson variable, so also its variance
    on = np.asarray(adata.uns["simulation"]["type_programs"])[types] > 0
    return ((adata.obsm["X1"] - mean) * on) @ (1 / mean) / np.maximum(on @ (1 / mean), 1e-9)


def account(adata: AnnData, X: np.ndarray, train: np.ndarray, seed: int) -> Iterator[tuple[str, object]]:
    """Names of answers, and columns of which the best counts; ridge regressions see the truth of half of the cells."""
    number = adata.obs["covariate"].cat.codes.to_numpy().astype(float)
    types = adata.obs["type"].cat.codes.to_numpy()
    yield "the programs themselves, types known (best possible)", best_guess(adata, types)
    yield "ridge regression on the embedding (uses the truth)", ridge(X, number[:, None], train)
    yield "a dimension of the embedding", X
    yield (
        "first component after the mean of each type is taken away (uses the types)",
        components(without_types(X, types, train), 1)[1],
    )
    sae = fitted(X, seed)
    code = sae.encode(X)
    yield (
        "default code: ridge regression on all features (uses the truth)",
        ridge(code.toarray(), number[:, None], train),
    )
    yield "default code: a feature", code
    yield "default code: a feature before the threshold, with its sign", (X - sae.b_dec) @ sae.W_enc + sae.b_enc
    total = np.asarray(code.sum(1)), np.sqrt(np.asarray(code.multiply(code).sum(1))), code.getnnz(axis=1)[:, None]
    yield "default code: sum, norm or number of its activations", np.hstack(total)
    yield "default code: first ten components of what it leaves over", components(X - sae.decode(code), 10)[1]
    coarse = fitted(X, seed, **COARSE)
    yield "code of one feature a cell: a feature", coarse.encode(X)
    yield (
        "first component of the residual of a code with one feature per cell",
        components(X - coarse.reconstruct(X), 1)[1],
    )
