"""Encoding in blocks of cells: one matrix product into a small buffer, then straight into CSR."""

from __future__ import annotations

import numpy as np
from scipy import sparse

_BUFFER_BYTES = 8 * 2**20
_MAX_ROWS = 8192


def encode_blocks(
    X: np.ndarray,
    W_enc: np.ndarray,
    b_enc: np.ndarray,
    b_dec: np.ndarray,
    threshold: np.ndarray,
    k: int | None = None,
) -> sparse.csr_matrix:
    """Codes of ``X`` (n, d): entries above their threshold, or with `k` the k largest positive ones of each row.

    Extra memory is the result, a growing copy of it and one block of pre-activations.
    """
    import torch

    from .kernels import _encode as kernels

    n, n_features = len(X), W_enc.shape[1]
    rows = int(np.clip(_BUFFER_BYTES // (4 * max(n_features, 1)), 64, _MAX_ROWS))
    rows = min(rows, max(n, 1))
    # Torch's own memory is aligned, numpy's need not be, and the last bits of a product can depend on it: copies here
    # make the same cells give the same codes in every process.
    weight = torch.from_numpy(W_enc).clone()
    centre = torch.from_numpy(b_dec).clone()
    cells, buffer = torch.empty((rows, X.shape[1])), torch.empty((rows, n_features))
    limits = np.maximum(threshold, 0)
    counts = np.zeros(n, np.int64)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for first in range(0, n, rows):
        block = torch.from_numpy(X[first : first + rows])
        m = len(block)
        pre = buffer[:m]
        # x is centred before the product, not by a shift of the bias: a far-off mean would cost digits.
        torch.sub(block, centre, out=cells[:m])
        torch.mm(cells[:m], weight, out=pre)
        count = counts[first : first + m]
        if k is None:
            kernels.count_above(pre.numpy(), b_enc, limits, count)
            start = np.concatenate([[0], np.cumsum(count)])
            indices, data = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
            kernels.write_above(pre.numpy(), b_enc, limits, start, indices, data)
        else:
            indices, data = np.empty(m * k, np.int32), np.empty(m * k, np.float32)
            kernels.write_top_k(pre.numpy(), b_enc, k, count, indices, data)
            if count.min(initial=k) < k:  # rows with fewer positive entries left gaps
                filled = (np.arange(k) < count[:, None]).ravel()
                indices, data = indices[filled], data[filled]
        parts.append((indices, data))
    return _join(parts, counts, (n, n_features))


def _join(parts: list[tuple[np.ndarray, np.ndarray]], counts: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Concatenate the blocks, freeing each once it is copied."""
    indptr = np.concatenate([[0], np.cumsum(counts)])
    total = int(indptr[-1])
    wide = total > np.iinfo(np.int32).max
    indices, data = np.empty(total, np.int64 if wide else np.int32), np.empty(total, np.float32)
    at = total
    while parts:
        i, v = parts.pop()
        indices[at - len(i) : at], data[at - len(i) : at] = i, v
        at -= len(i)
    codes = sparse.csr_matrix((data, indices, indptr if wide else indptr.astype(np.int32)), shape=shape, copy=False)
    codes.has_sorted_indices = True
    codes.has_canonical_format = True
    return codes
