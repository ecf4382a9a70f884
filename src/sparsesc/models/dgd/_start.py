"""Where the vectors of cells start: principal components of the values."""

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
    """Cells x dimensions, the first dimension with standard deviation 1; modalities count alike.

    Parameters
    ----------
    values
        By modality: cells x features.
    likelihoods
        By modality: counts are taken as logarithms of counts at the median depth, other values are standardised.
    n_latent
        Dimensions. Those beyond what values have hold a little noise.
    rng
        Draws.
    """
    parts = [_components(_comparable(x, likelihoods[name]), n_latent, rng) for name, x in values.items()]
    found = parts[0] if len(parts) == 1 else _components(np.hstack(parts), n_latent, rng)
    out = _NOISE * rng.normal(size=(len(found), n_latent))
    out[:, : found.shape[1]] += _SPREAD * found
    return out.astype(np.float32)


def without_labels(start: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Vectors less the mean over their label, for one covariate after the other (cells x covariates).

    Covariates have vectors of their own. Started at what both explain, those of the cells keep it for long.
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
    """Values on a scale on which distances mean something."""
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
    found = PCA(n, svd_solver="arpack" if n < min(x.shape) else "full", random_state=seed).fit_transform(x)
    return found / max(float(found[:, 0].std()), 1e-8)
