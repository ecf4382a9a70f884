"""Encoding in blocks of cells: a product that stays in the cache, then straight into CSR."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import sparse

_BUFFER_BYTES = 64 * 2**20  # of the entries of one block; only what is active is ever touched
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

    Extra memory is the result, a growing copy of it and one block.
    """
    import torch

    from .kernels import _encode as kernels
    from .kernels._chunks import BLOCK, LANES, aligned, in_tiles, stretch
    from .kernels._processor import own_product
    from .kernels._select import NEVER, SMALLEST, padded
    from .kernels._threads import n_parts

    (n, d), n_features = X.shape, W_enc.shape[1]
    width = padded(n_features)
    rows = int(np.clip(_BUFFER_BYTES // (8 * width), BLOCK, _MAX_ROWS)) // BLOCK * BLOCK
    rows = min(rows, -(-max(n, 1) // BLOCK) * BLOCK)
    bias, limits = np.full(width, NEVER, np.float32), np.full(width, 1, np.float32)
    bias[:n_features] = b_enc
    # What is kept is at or above the limit: the next number after the threshold.
    limits[:n_features] = np.maximum(np.nextafter(threshold, np.float32(np.inf)), np.float32(SMALLEST))
    own = own_product(d)
    depth = -(-d // LANES) * LANES
    packed = aligned((width // 64 if own else 0, depth, 64), np.dtype(np.float32))
    if own:
        encoder = np.zeros((width, depth), np.float32)
        encoder[:n_features, :d] = W_enc.T
        packed[:] = in_tiles(encoder)
        cells = weight = centre = pre = torch.empty((1, 1))
    else:
        # Torch's own memory is aligned, numpy's need not be, and the last bits of a product can depend on it: copies
        # here make the same cells give the same codes in every process.
        weight, centre = torch.zeros((d, width)), torch.from_numpy(b_dec).clone()
        weight[:, :n_features] = torch.from_numpy(W_enc)
        cells, pre = torch.empty((rows, d)), torch.empty((rows, width))
    room = rows // BLOCK * stretch(width)
    index, value = np.empty(room, np.int32), np.empty(room, np.float32)

    counts = np.zeros(n, np.int64)
    results: list[tuple[np.ndarray, np.ndarray]] = []
    for first in range(0, n, rows):
        block = X[first : first + rows]
        m = len(block)
        if not own:
            # x is centred before the product, not by a shift of the bias: a far-off mean would cost digits.
            torch.sub(torch.from_numpy(block), centre, out=cells[:m])
            torch.mm(cells[:m], weight, out=pre[:m])
        count = counts[first : first + m]
        kernels.encode_rows(block, packed, pre.numpy(), b_dec, bias, limits, k or 0, index, value, count, n_parts())
        start = np.concatenate([[0], np.cumsum(count)])
        indices, data = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
        kernels.collect_rows(index, value, start, width, indices, data)
        results.append((indices, data))
    return _join(results, counts, (n, n_features))


def encode_weights(weights: Mapping[str, np.ndarray], X: np.ndarray, threshold: np.ndarray) -> sparse.csr_matrix:
    """:func:`encode_blocks` with the parameters of a training, whose encoder ``E`` is (F, d)."""
    encoder = np.ascontiguousarray(weights["E"].T)
    return encode_blocks(X, encoder, weights["b_enc"], weights["b_dec"], threshold)


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
