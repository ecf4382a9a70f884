"""What every decoder can do, and the scale on which effects on genes are compared."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from sparsesc._values import check_choice

SCALES = ("log1p", "proportions", "linear")
_PER = 1e4  # proportions are read as counts per 10,000, as log-normalized expression usually is


@runtime_checkable
class Decoder(Protocol):
    """What turns positions in an embedding into gene expression.

    Shapes: `Z` and `V` are cells x dimensions, results are cells x genes. `covariates` is the result of
    :meth:`covariates` for the same cells.

    See Also
    --------
    sparsesc.decoders.as_decoder : Makes one from a model, loadings or a function.

    Examples
    --------
    Any object with these members is a decoder:

    >>> import pandas as pd
    >>> import sparsesc as ssc
    >>> loadings = pd.DataFrame([[1.0, 0.0], [0.0, 2.0]], index=["CD3D", "MS4A1"])
    >>> isinstance(ssc.decoders.LinearDecoder(loadings), ssc.decoders.Decoder)
    True
    """

    genes: pd.Index
    """Names of the genes, in the order of the columns."""
    scale: str
    """``"log1p"``: natural logarithms, as after log1p. ``"proportions"``: positive, a cell sums to about one.
    ``"linear"``: anything else; differences are taken as they are."""

    def covariates(self, cells: pd.Index) -> Any:
        """What decoding these cells (by their names) needs besides the embedding; ``None`` if it needs nothing."""

    def decode(self, Z: np.ndarray, covariates: Any = None) -> np.ndarray:
        """Expression of cells."""

    def jvp(self, Z: np.ndarray, V: np.ndarray, covariates: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Expression of cells, and its derivative when cells move along `V`."""


def log2_expression(values: np.ndarray, scale: str, tangent: np.ndarray | None = None) -> np.ndarray:
    """Decoded values in units of log2, so that differences are log2 fold changes.

    Parameters
    ----------
    values
        Result of a decoder, cells x genes.
    scale
        Its scale: ``"proportions"`` become log2 of 1 + counts per 10,000; ``"log1p"`` is changed from base e to base 2;
        ``"linear"`` values stay as they are.
    tangent
        A derivative of `values`: its derivative on the new scale is returned instead.

    Returns
    -------
    Cells x genes, float64.

    Raises
    ------
    ValueError
        If the scale is unknown.

    See Also
    --------
    sparsesc.decoders.Decoder : What has such a scale.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> ssc.decoders.log2_expression(np.log1p([[1.0, 3.0]]), "log1p").round(6).tolist()
    [[1.0, 2.0]]
    """
    check_choice(scale, SCALES, name="scale of a decoder")
    values = np.asarray(values, dtype=np.float64)
    if scale == "proportions":
        # rounding may give small negative numbers; counts are not negative
        values = np.maximum(values, 0) * _PER
        if tangent is None:
            return np.log1p(values) / np.log(2)
        return np.asarray(tangent, dtype=np.float64) * (_PER / np.log(2)) / (1 + values)
    out = values if tangent is None else np.asarray(tangent, dtype=np.float64)
    return out / np.log(2) if scale == "log1p" else out


def check_latent(Z: np.ndarray, n_dimensions: int) -> np.ndarray:
    """Cells x dimensions as float32.

    Raises
    ------
    ValueError
        If the number of dimensions differs.
    """
    Z = np.ascontiguousarray(Z, dtype=np.float32)
    if Z.ndim != 2 or Z.shape[1] != n_dimensions:
        msg = f"The decoder takes cells x {n_dimensions} dimensions, found shape {Z.shape}."
        raise ValueError(msg)
    return Z
