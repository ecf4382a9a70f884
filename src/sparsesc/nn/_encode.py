"""Encoding in blocks of cells: the product of a block stays in the cache, and its active entries go into CSR."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy import sparse

from .kernels import _encode as kernels
from .kernels._chunks import BLOCK, LANES, aligned, block_capacity, in_tiles
from .kernels._processor import compiled_product
from .kernels._select import NEVER, SMALLEST, padded
from .kernels._threads import n_parts

_BUFFER_BYTES = 64 * 2**20  # for the entries of one block; only the memory of active entries is used
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

    Beyond the result, this needs memory for one block and for at most one copy of the result.
    """
    (n, d), n_features = X.shape, W_enc.shape[1]
    width = padded(n_features)
    rows = int(np.clip(_BUFFER_BYTES // (8 * width), BLOCK, _MAX_ROWS)) // BLOCK * BLOCK
    rows = min(rows, -(-max(n, 1) // BLOCK) * BLOCK)
    bias, limits = np.full(width, NEVER, np.float32), np.full(width, 1, np.float32)
    bias[:n_features] = b_enc
    # Kernels keep entries at or above a limit, which is the next number after the threshold.
    limits[:n_features] = np.maximum(np.nextafter(threshold, np.float32(np.inf)), np.float32(SMALLEST))
    compiled = compiled_product(d)
    depth = -(-d // LANES) * LANES
    packed = aligned((width // 64 if compiled else 0, depth, 64), np.dtype(np.float32))
    if compiled:
        rows_enc = np.zeros((width, depth), np.float32)
        rows_enc[:n_features, :d] = W_enc.T
        packed[:] = in_tiles(rows_enc)
        cells = encoder = center = pre = torch.empty((1, 1))
    else:
        # The last bits of a product can depend on the alignment of its factors. Torch aligns its memory, numpy may not.
        # With these copies the same cells have the same codes in every process.
        encoder, center = torch.zeros((d, width)), torch.from_numpy(b_dec).clone()
        encoder[:, :n_features] = torch.from_numpy(W_enc)
        cells, pre = torch.empty((rows, d)), torch.empty((rows, width))
    capacity = rows // BLOCK * block_capacity(width)
    index, value = np.empty(capacity, np.int32), np.empty(capacity, np.float32)

    counts = np.zeros(n, np.int64)
    results: list[tuple[np.ndarray, np.ndarray]] = []
    for first in range(0, n, rows):
        block = X[first : first + rows]
        m = len(block)
        if not compiled:
            # x is centered before the product: a shift of the bias would lose digits where the mean is large.
            torch.sub(torch.from_numpy(block), center, out=cells[:m])
            torch.mm(cells[:m], encoder, out=pre[:m])
        count = counts[first : first + m]
        kernels.encode_rows(block, packed, pre.numpy(), b_dec, bias, limits, k or 0, index, value, count, n_parts())
        start = np.concatenate([[0], np.cumsum(count)])
        indices, data = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
        kernels.collect_rows(index, value, start, width, indices, data)
        results.append((indices, data))
    return _join(results, counts, (n, n_features))


def encode_standardized(weights: Mapping[str, np.ndarray], X: np.ndarray, threshold: np.ndarray) -> sparse.csr_matrix:
    """:func:`encode_blocks` with the parameters of a training, in standardized units; their encoder ``E`` is (F, d)."""
    encoder = np.ascontiguousarray(weights["E"].T)
    return encode_blocks(X, encoder, weights["b_enc"], weights["b_dec"], threshold)


def _join(parts: list[tuple[np.ndarray, np.ndarray]], counts: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Concatenate the blocks, and free each one once it is copied."""
    indptr = np.concatenate([[0], np.cumsum(counts)])
    total = int(indptr[-1])
    is_long = total > np.iinfo(np.int32).max
    indices, data = np.empty(total, np.int64 if is_long else np.int32), np.empty(total, np.float32)
    at = total
    while parts:
        i, v = parts.pop()
        indices[at - len(i) : at], data[at - len(i) : at] = i, v
        at -= len(i)
    codes = sparse.csr_matrix((data, indices, indptr if is_long else indptr.astype(np.int32)), shape=shape, copy=False)
    codes.has_sorted_indices = True
    codes.has_canonical_format = True
    return codes
