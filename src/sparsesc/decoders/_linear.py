from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from ._base import check_latent


class LinearDecoder:
    """Expression as a linear function of the embedding: principal components, or loadings of LDVAE.

    Parameters
    ----------
    loadings
        Genes x dimensions; the index names the genes.
    means
        Expression at the origin of the embedding, one a gene; ``None``: 0, so that only differences have a meaning.
    scale
        What expression is in: ``"log1p"`` for components of log-normalised values, and for loadings of LDVAE, which
        act on logarithms; ``"linear"`` for scaled values.

    Raises
    ------
    ValueError
        If shapes do not fit together, or values are not finite.
    """

    def __init__(
        self,
        loadings: pd.DataFrame,
        means: np.ndarray | None = None,
        *,
        scale: Literal["log1p", "linear"] = "log1p",
    ) -> None:
        self._loadings = np.ascontiguousarray(loadings.to_numpy(dtype=np.float64))
        n_genes = len(self._loadings)
        self._means = np.zeros(n_genes) if means is None else np.asarray(means, dtype=np.float64).ravel()
        if self._means.shape != (n_genes,):
            msg = f"means must be one number for each of {n_genes} genes, found shape {self._means.shape}."
            raise ValueError(msg)
        if not (np.isfinite(self._loadings).all() and np.isfinite(self._means).all()):
            msg = "loadings and means must be finite numbers."
            raise ValueError(msg)
        self.genes = pd.Index(loadings.index.astype(str))
        self.scale: str = scale

    @property
    def n_dimensions(self) -> int:
        """Dimensions of the embedding."""
        return self._loadings.shape[1]

    def covariates(self, cells: pd.Index) -> None:
        """Nothing: all cells are decoded alike."""
        return None

    def decode(self, Z: np.ndarray, covariates: Any = None) -> np.ndarray:
        """Expression of cells, cells x genes."""
        return check_latent(Z, self.n_dimensions) @ self._loadings.T + self._means

    def jvp(self, Z: np.ndarray, V: np.ndarray, covariates: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Expression of cells, and its derivative along `V`: the same for all cells."""
        return self.decode(Z), check_latent(V, self.n_dimensions) @ self._loadings.T
