"""Reading a dictionary over several embeddings at once: whose features are they, and what do they carry across?

A crosscoder with one encoder for all embeddings is a sparse autoencoder on the embeddings side by side, so it is
trained and used as one. What is left is to tell its parts from each other: ``columns`` are the dimensions of each
embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._metrics import fraction_unexplained

if TYPE_CHECKING:
    from scipy import sparse

    from ._sae import SparseAutoencoder

MOST_PASSES = 10


def decoder_shares(sae: SparseAutoencoder, columns: list[slice]) -> np.ndarray:
    """Share of each embedding in the squared length of every decoder row, features x embeddings; rows sum to 1."""
    squares = np.stack([np.square(sae.W_dec[:, part], dtype=np.float64).sum(1) for part in columns], axis=1)
    return squares / np.maximum(squares.sum(1, keepdims=True), 1e-30)


def block_fvu(X: np.ndarray, X_hat: np.ndarray, columns: list[slice]) -> np.ndarray:
    """Unexplained share of the variance of each embedding."""
    return np.array([fraction_unexplained(X[:, part], X_hat[:, part]) for part in columns])


def gains(sae: SparseAutoencoder, X: np.ndarray, codes: sparse.csr_matrix, columns: list[slice]) -> np.ndarray:
    """What the FVU of each embedding would rise by without a feature, features x embeddings.

    Negative where a feature, active for the sake of another embedding, makes the reconstruction of this one worse.
    """
    residual = X - sae.decode(codes)
    squared = codes.multiply(codes).sum(0)  # a row, over cells
    out = np.empty((sae.n_features, len(columns)))
    for i, part in enumerate(columns):
        D = sae.W_dec[:, part].astype(np.float64)
        # |r + f D|^2 - |r|^2 = 2 f r D + f^2 |D|^2, summed over cells; r f for all features at once
        met = np.einsum("fd,fd->f", np.asarray(codes.T @ residual[:, part], dtype=np.float64), D)
        lost = 2 * met + np.asarray(squared, dtype=np.float64).ravel() * np.square(D).sum(1)
        centred = X[:, part] - X[:, part].mean(0, dtype=np.float64)
        out[:, i] = lost / max(np.square(centred).sum(), 1e-30)
    return out


def contributions(sae: SparseAutoencoder, X: np.ndarray, part: slice) -> np.ndarray:
    """What one embedding adds to the pre-activation of every feature, cells x features."""
    return (X[:, part] - sae.b_dec[part]) @ sae.W_enc[part]


def complete(sae: SparseAutoencoder, X: np.ndarray, given: slice, n_passes: int) -> list[np.ndarray]:
    """Cells of which only one embedding is known, as the dictionary fills in the rest, after each pass.

    The others start at the decoder's bias and are replaced by their reconstruction: what the features that the known
    embedding switches on expect of them makes these features stronger in the next pass.
    """
    filled, found = [], np.broadcast_to(sae.b_dec, X.shape)
    for _ in range(n_passes):
        cells = found.copy()
        cells[:, given] = X[:, given]
        found = sae.reconstruct(cells)
        filled.append(found)
    return filled


def best_passes(sae: SparseAutoencoder, X: np.ndarray, given: slice, targets: list[slice]) -> int:
    """How many passes of :func:`complete` (at most 10) leave the smallest FVU of `targets`, mean over them."""
    filled = complete(sae, X, given, MOST_PASSES)
    return 1 + int(np.argmin([block_fvu(X, found, targets).mean() for found in filled]))
