"""What every decoder can do, and the scale that effects on genes are compared on."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

SCALES = ("log1p", "proportions", "linear")
_PER = 1e4  # proportions are read as counts per 10,000, as log-normalised expression usually is


@runtime_checkable
class Decoder(Protocol):
    """From cells of an embedding to expression.

    Shapes: `Z` and `V` are cells x dimensions, results cells x genes. `covariates` is what :meth:`covariates` gave for
    the same cells.
    """

    genes: pd.Index
    """Names of the genes, in the order of the columns."""
    scale: str
    """``"log1p"``: natural logarithms, as after log1p. ``"proportions"``: positive, a cell sums to about one.
    ``"linear"``: anything else; differences are taken as they are."""

    def covariates(self, cells: pd.Index) -> Any:
        """What decoding these cells (by their names) takes besides the embedding; ``None`` where it is nothing."""

    def decode(self, Z: np.ndarray, covariates: Any = None) -> np.ndarray:
        """Expression of cells."""

    def jvp(self, Z: np.ndarray, V: np.ndarray, covariates: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Expression of cells, and its derivative when cells move along `V`."""


def log2_expression(values: np.ndarray, scale: str, tangent: np.ndarray | None = None) -> np.ndarray:
    """Decoded values in units of log2, so that differences are log2 fold changes.

    Parameters
    ----------
    values
        What a decoder gave, cells x genes.
    scale
        Its scale: proportions become log2 of 1 + counts per 10,000; log1p is changed from base e to base 2; linear
        values stay as they are.
    tangent
        A derivative of `values`: its derivative on the new scale is returned instead.

    Returns
    -------
    Cells x genes, float64.

    Raises
    ------
    ValueError
        If the scale is unknown.
    """
    if scale not in SCALES:
        msg = f"A decoder's scale must be one of {', '.join(SCALES)}, found {scale!r}."
        raise ValueError(msg)
    values = np.asarray(values, dtype=np.float64)
    if scale == "proportions":
        # an untrained decoder may give small negative numbers by rounding; a count cannot be
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
        If the number of dimensions is another one.
    """
    Z = np.ascontiguousarray(Z, dtype=np.float32)
    if Z.ndim != 2 or Z.shape[1] != n_dimensions:
        msg = f"The decoder takes cells x {n_dimensions} dimensions, found shape {Z.shape}."
        raise ValueError(msg)
    return Z
