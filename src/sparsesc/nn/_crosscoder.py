"""Properties of a dictionary over several embeddings: whose features they are, and how well one predicts the others.

A crosscoder with one encoder for all embeddings is a sparse autoencoder on the embeddings side by side, so it is
trained and used as one. These functions look at its parts: ``columns`` are the dimensions of each embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._metrics import fraction_unexplained

if TYPE_CHECKING:
    from scipy import sparse

    from ._sae import SparseAutoencoder

_MAX_PASSES = 10


def decoder_shares(sae: SparseAutoencoder, columns: list[slice]) -> np.ndarray:
    """Share of each embedding in the squared length of every decoder row, features x embeddings; rows sum to 1."""
    squares = np.stack([np.square(sae.W_dec[:, part], dtype=np.float64).sum(1) for part in columns], axis=1)
    return squares / np.maximum(squares.sum(1, keepdims=True), 1e-30)


def block_fvu(X: np.ndarray, X_hat: np.ndarray, columns: list[slice]) -> np.ndarray:
    """Unexplained share of the variance of each embedding."""
    return np.array([fraction_unexplained(X[:, part], X_hat[:, part]) for part in columns])


def gains(sae: SparseAutoencoder, X: np.ndarray, codes: sparse.csr_matrix, columns: list[slice]) -> np.ndarray:
    """The rise of the FVU of each embedding without a feature, features x embeddings.

    Negative where a feature that helps another embedding makes the reconstruction of this one worse.
    """
    residual = X - sae.decode(codes)
    squared = codes.multiply(codes).sum(0)  # one row: sums over cells
    out = np.empty((sae.n_features, len(columns)))
    for i, part in enumerate(columns):
        D = sae.W_dec[:, part].astype(np.float64)
        # |r + f D|^2 - |r|^2 = 2 f r D + f^2 |D|^2, summed over cells; r f for all features at once
        inner = np.einsum("fd,fd->f", np.asarray(codes.T @ residual[:, part], dtype=np.float64), D)
        lost = 2 * inner + np.asarray(squared, dtype=np.float64).ravel() * np.square(D).sum(1)
        centered = X[:, part] - X[:, part].mean(0, dtype=np.float64)
        out[:, i] = lost / max(np.square(centered).sum(), 1e-30)
    return out


def contributions(sae: SparseAutoencoder, X: np.ndarray, part: slice) -> np.ndarray:
    """The part of every pre-activation that comes from one embedding, cells x features."""
    return (X[:, part] - sae.b_dec[part]) @ sae.W_enc[part]


def complete(sae: SparseAutoencoder, X: np.ndarray, given: slice, n_passes: int) -> list[np.ndarray]:
    """Predict all embeddings of cells from the one that is given; returns the reconstruction after each pass.

    The other embeddings start at the decoder's bias and are replaced by their reconstruction. This prediction of the
    features that the given embedding activates makes the same features stronger in the next pass.
    """
    passes, X_hat = [], np.broadcast_to(sae.b_dec, X.shape)
    for _ in range(n_passes):
        cells = X_hat.copy()
        cells[:, given] = X[:, given]
        X_hat = sae.reconstruct(cells)
        passes.append(X_hat)
    return passes


def best_passes(sae: SparseAutoencoder, X: np.ndarray, given: slice, targets: list[slice]) -> int:
    """The number of passes of :func:`complete` (at most 10) with the smallest mean FVU over `targets`."""
    passes = complete(sae, X, given, _MAX_PASSES)
    return 1 + int(np.argmin([block_fvu(X, X_hat, targets).mean() for X_hat in passes]))
