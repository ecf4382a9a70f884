from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from ._base import check_latent


class LinearDecoder:
    r"""Expression as a linear function of the embedding: principal components, or loadings of LDVAE.

    Decodes :math:`z` to :math:`\mu + L z`, with the `means` :math:`\mu` and the `loadings` :math:`L`.

    Parameters
    ----------
    loadings
        Genes x dimensions; the index names the genes.
    means
        Expression at the origin of the embedding, one value per gene; ``None``: 0, so only differences have a meaning.
    scale
        Scale of expression: ``"log1p"`` for components of log-normalized values, and for loadings of LDVAE, which act
        on logarithms; ``"linear"`` for scaled values.

    Raises
    ------
    ValueError
        If shapes do not fit together, or values are not finite.

    See Also
    --------
    sparsesc.decoders.as_decoder : Makes one from ``varm["PCs"]``.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import sparsesc as ssc
    >>> loadings = pd.DataFrame([[1.0, 0.0], [0.0, 2.0]], index=["CD3D", "MS4A1"])
    >>> ssc.decoders.LinearDecoder(loadings).decode(np.array([[3.0, 1.0]])).tolist()
    [[3.0, 2.0]]
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
        """Nothing: all cells are decoded in the same way."""

    def decode(self, Z: np.ndarray, covariates: Any = None) -> np.ndarray:
        """Expression of cells, cells x genes."""
        return check_latent(Z, self.n_dimensions) @ self._loadings.T + self._means

    def jvp(self, Z: np.ndarray, V: np.ndarray, covariates: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Expression of cells, and its derivative along `V`: the same for all cells."""
        return self.decode(Z), check_latent(V, self.n_dimensions) @ self._loadings.T
