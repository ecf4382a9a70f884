"""Representations that a code should beat, fitted to the same embedding without labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import sparse

from sparsesc import _logging

CONTROLS = ("pca", "ica", "nmf", "random_sae")
_MOST = 100  # dimensions, where the embedding is as wide as an expression matrix


def control_representations(
    controls: Sequence[str],
    X: np.ndarray,
    codes: Mapping[str, sparse.csr_matrix],
    *,
    n_components: int | None,
    rng: np.random.Generator,
) -> Iterator[tuple[str, np.ndarray | sparse.csr_matrix]]:
    """Name and array of each control; one random code for each width and sparsity among `codes`."""
    width = min(n_components or _MOST, X.shape[1], len(X) - 1)
    seeds = dict(zip(CONTROLS, rng.integers(2**32 - 1, size=len(CONTROLS)), strict=True))
    for name in controls:
        seed = int(seeds[name])
        if name == "pca":
            yield name, _pca(X, width, seed)
        elif name == "ica":
            yield name, _ica(X, width, seed)
        elif name == "nmf":
            yield name, _nmf(X, width, seed)
        else:
            for title, n_features, k in random_sizes(X, codes):
                yield title, random_code(X, n_features, k, np.random.default_rng(seed))


def random_sizes(X: np.ndarray, codes: Mapping[str, sparse.csr_matrix]) -> list[tuple[str, int, int]]:
    """Name, width and active features of each random code: those of the codes, or the defaults where there is none."""
    from sparsesc._train_config import default_k, default_n_features

    sizes: dict[tuple[int, int], str] = {}
    for name, code in codes.items():
        k = int(np.clip(round(code.nnz / code.shape[0]), 1, code.shape[1]))
        sizes.setdefault((code.shape[1], k), name)
    if not sizes:
        n_features = default_n_features(*X.shape)
        sizes[n_features, default_k(X.shape[1], n_features)] = ""
    several = len(sizes) > 1
    return [(f"random_sae ({name})" if several else "random_sae", *size) for size, name in sizes.items()]


def random_code(X: np.ndarray, n_features: int, k: int, rng: np.random.Generator) -> sparse.csr_matrix:
    """The k largest positive projections of each centered cell on random directions: an untrained autoencoder."""
    from sparsesc.nn._encode import encode_blocks

    D = rng.normal(size=(X.shape[1], n_features)).astype(np.float32)
    D /= np.linalg.norm(D, axis=0)
    zeros = np.zeros(n_features, np.float32)
    return encode_blocks(X, D, zeros, X.mean(axis=0, dtype=np.float64).astype(np.float32), zeros, k=k)


def _pca(X: np.ndarray, width: int, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    return PCA(width, random_state=seed).fit_transform(X)


def _ica(X: np.ndarray, width: int, seed: int) -> np.ndarray:
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        sources = FastICA(width, whiten="unit-variance", max_iter=500, tol=1e-3, random_state=seed).fit_transform(X)
    if any(issubclass(w.category, ConvergenceWarning) for w in caught):
        _logging.info("control 'ica' had not converged after 500 steps: its components may depend on rng")
    return sources


def _nmf(X: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Non-negative factors; where there are negative values, of the positive and negative parts side by side."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    if X.min() < 0:
        X = X - X.mean(axis=0)
        X = np.hstack([np.maximum(X, 0), np.maximum(-X, 0)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last steps change little
        return NMF(width, init="nndsvda", random_state=seed, max_iter=300).fit_transform(X)
