"""Standardization of an embedding, and its exact inverse on the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scaler:
    """Centers cells and scales them to unit mean variance, or whitens them: ``u = (x - mean) @ whitening``."""

    mean: np.ndarray
    """(d,)"""
    scale: float
    """Root of the mean squared deviation; one number for all dimensions, to keep the proportions of distances."""
    whitening: np.ndarray | None = None
    """(d, d); ``None`` means division by ``scale``."""
    coloring: np.ndarray | None = None
    """(d, d), the inverse of ``whitening``."""

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Cells in standardized units, float32, C-contiguous."""
        centered = X - self.mean.astype(np.float32)
        if self.whitening is not None:
            return np.ascontiguousarray(centered @ self.whitening.astype(np.float32))
        return np.ascontiguousarray(centered / np.float32(self.scale))

    def fold(
        self, E: np.ndarray, b_enc: np.ndarray, D: np.ndarray, b_dec: np.ndarray, threshold: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Weights for original units from weights (E, D: features x dimensions) for standardized units.

        Codes and thresholds are rescaled so that decoder rows have unit norm in original units. The same entries are
        active.
        """
        if self.whitening is None or self.coloring is None:  # a number cancels out of both matrices
            norm = row_norms(D)
            length = norm * self.scale
            encoder, rows = E * norm[:, None].astype(E.dtype), D / norm[:, None].astype(D.dtype)
            offset = b_dec.astype(np.float64) * self.scale
        else:
            rows = D.astype(np.float64) @ self.coloring
            length = row_norms(rows)
            encoder, rows = (E.astype(np.float64) @ self.whitening) * length[:, None], rows / length[:, None]
            offset = b_dec.astype(np.float64) @ self.coloring
        return {
            "W_enc": np.ascontiguousarray(encoder.T, dtype=np.float32),
            "b_enc": (b_enc * length).astype(np.float32),
            "W_dec": rows.astype(np.float32, copy=False),
            "b_dec": (self.mean + offset).astype(np.float32),
            "threshold": (np.maximum(threshold, 0) * length).astype(np.float32),
        }


def row_norms(rows: np.ndarray) -> np.ndarray:
    """Length of each row in float64, one for a row of zeros."""
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return np.where(length == 0, 1.0, length)


def fit_scaler(X: np.ndarray, *, whiten: bool = False) -> Scaler:
    """Mean and scale of cells (n, d); with `whiten`, scale every direction to unit variance.

    Raises
    ------
    ValueError
        If all cells are the same.
    """
    mean = X.mean(0, dtype=np.float64)
    squares = sum(float(np.square(X[i : i + 4096] - mean).sum()) for i in range(0, len(X), 4096))
    scale = float(np.sqrt(squares / X.size))
    if scale <= 1e-6 * max(1e-30, float(np.abs(mean).max())):
        msg = f"The embedding is constant: all {len(X)} cells are the same point. Use an embedding that varies."
        raise ValueError(msg)
    if not whiten:
        return Scaler(mean, scale)
    covariance = np.cov(X - mean, rowvar=False, bias=True, dtype=np.float64).reshape(X.shape[1], X.shape[1])
    variance, axes = np.linalg.eigh(covariance)
    # Directions without variance stay small: at unit variance they would be rounding noise.
    std = np.sqrt(np.maximum(variance, 1e-6 * variance.max()))
    return Scaler(mean, scale, axes / std @ axes.T, axes * std @ axes.T)
