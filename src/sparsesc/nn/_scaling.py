"""Standardisation of an embedding, and its exact reversal into the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scaler:
    """``u = (x - mean) @ forward``: centred cells of unit mean variance, optionally whitened."""

    mean: np.ndarray
    """(d,)"""
    scale: float
    """Root of the mean squared deviation; one number, so that distances between cells keep their proportions."""
    forward: np.ndarray | None = None
    """(d, d), set when whitened."""
    backward: np.ndarray | None = None
    """(d, d), its inverse."""

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Cells in the units of the training, float32, C-contiguous."""
        centred = X - self.mean.astype(np.float32)
        if self.forward is not None:
            return np.ascontiguousarray(centred @ self.forward.astype(np.float32))
        return np.ascontiguousarray(centred / np.float32(self.scale))

    def fold(
        self, E: np.ndarray, b_enc: np.ndarray, D: np.ndarray, b_dec: np.ndarray, threshold: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Weights for original units from weights (E, D: features x dimensions) for standardised ones.

        Codes and thresholds are rescaled so that decoder rows have unit norm in original units; the same entries stay
        active.
        """
        if self.forward is None or self.backward is None:  # a number: it cancels out of both matrices
            norm = row_norms(D)
            length = norm * self.scale
            encoder, rows = E * norm[:, None].astype(E.dtype), D / norm[:, None].astype(D.dtype)
            centre = b_dec.astype(np.float64) * self.scale
        else:
            rows = D.astype(np.float64) @ self.backward
            length = row_norms(rows)
            encoder, rows = (E.astype(np.float64) @ self.forward) * length[:, None], rows / length[:, None]
            centre = b_dec.astype(np.float64) @ self.backward
        return {
            "W_enc": np.ascontiguousarray(encoder.T, dtype=np.float32),
            "b_enc": (b_enc * length).astype(np.float32),
            "W_dec": rows.astype(np.float32, copy=False),
            "b_dec": (self.mean + centre).astype(np.float32),
            "threshold": (np.maximum(threshold, 0) * length).astype(np.float32),
        }


def row_norms(rows: np.ndarray) -> np.ndarray:
    """Length of each row in float64, one for a row of zeros."""
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return np.where(length == 0, 1.0, length)


def fit_scaler(X: np.ndarray, *, whiten: bool = False) -> Scaler:
    """Mean and scale of cells (n, d); with `whiten`, rotate and stretch every direction to unit variance.

    Raises
    ------
    ValueError
        If all cells are the same.
    """
    mean = X.mean(0, dtype=np.float64)
    squares = sum(float(np.square(X[i : i + 4096] - mean).sum()) for i in range(0, len(X), 4096))
    scale = float(np.sqrt(squares / X.size))
    if scale <= 1e-6 * max(1e-30, float(np.abs(mean).max())):
        msg = f"The embedding is constant: all {len(X)} cells are the same point. There is nothing to learn."
        raise ValueError(msg)
    if not whiten:
        return Scaler(mean, scale)
    covariance = np.cov(X - mean, rowvar=False, bias=True, dtype=np.float64).reshape(X.shape[1], X.shape[1])
    variance, axes = np.linalg.eigh(covariance)
    # Directions without variance stay as small as they are: blowing them up would be fitting rounding noise.
    std = np.sqrt(np.maximum(variance, 1e-6 * variance.max()))
    return Scaler(mean, scale, axes / std @ axes.T, axes * std @ axes.T)
