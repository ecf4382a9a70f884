"""Starting vectors of cells: principal components of the values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

_SPREAD = 1.0  # standard deviation along the first dimension
_NOISE = 0.01


def principal_start(
    values: Mapping[str, Any], likelihoods: Mapping[str, str], n_latent: int, rng: np.random.Generator
) -> np.ndarray:
    """Starting vectors, cells x dimensions: the first has standard deviation 1; modalities have equal weight.

    Parameters
    ----------
    values
        By modality: cells x features.
    likelihoods
        By modality: of counts, logarithms at the median depth are used; real values are standardized.
    n_latent
        Number of dimensions. Those beyond the rank of the values hold a little noise.
    rng
        Draws.
    """
    parts = [_components(_comparable(x, likelihoods[name]), n_latent, rng) for name, x in values.items()]
    joint = parts[0] if len(parts) == 1 else _components(np.hstack(parts), n_latent, rng)
    out = _NOISE * rng.normal(size=(len(joint), n_latent))
    out[:, : joint.shape[1]] += _SPREAD * joint
    return out.astype(np.float32)


def without_labels(start: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Vectors minus the mean of their label, for one covariate after the other (cells x covariates).

    Covariates have separate vectors. If those of the cells started with a part that both explain, they would keep it
    for long.
    """
    start = start.copy()
    for labels in codes.T:
        for label in np.unique(labels):
            start[labels == label] -= start[labels == label].mean(0)
    return start


def mean_values(x: Any, likelihood: str) -> np.ndarray:
    """Mean of every feature, float32; of ``"bernoulli"``: the share of cells in which it is open."""
    x = _in_memory(x)
    return np.asarray((x > 0 if likelihood == "bernoulli" else x).mean(axis=0), dtype=np.float32).ravel()


def _in_memory(x: Any) -> Any:
    return x.to_memory() if hasattr(x, "to_memory") else x.compute() if hasattr(x, "compute") else x


def _comparable(x: Any, likelihood: str) -> Any:
    """Values on a scale on which distances are meaningful."""
    x = _in_memory(x)
    if likelihood == "nb":
        x = sparse.csr_matrix(x, dtype=np.float32)
        depth = np.asarray(x.sum(1)).ravel()
        x = sparse.diags_array(np.median(depth) / np.maximum(depth, 1)) @ x
        x.data = np.log1p(x.data)
        return sparse.csr_matrix(x)
    if likelihood == "bernoulli":
        return sparse.csr_matrix(x > 0, dtype=np.float32)
    dense = x.toarray() if sparse.issparse(x) else np.asarray(x, dtype=np.float64)
    return (dense - dense.mean(0)) / np.maximum(dense.std(0), 1e-8)


def _components(x: Any, n: int, rng: np.random.Generator) -> np.ndarray:
    """Principal components, all in units of the first one's standard deviation."""
    from sklearn.decomposition import PCA

    n = min(n, *(size - 1 for size in x.shape)) or 1
    seed = int(rng.integers(2**31 - 1))
    scores = PCA(n, svd_solver="arpack" if n < min(x.shape) else "full", random_state=seed).fit_transform(x)
    return scores / max(float(scores[:, 0].std()), 1e-8)
