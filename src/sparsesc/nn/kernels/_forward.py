"""The forward pass of a training step, row by row: active entries, residuals and gradients of the entries.

Only the active features of each cell are computed: there is no dense code, and no dense gradient of it. Shapes: batch
of B cells, d dimensions, F features, P nested widths of the dictionary (1 except for ``matryoshka``).

The loss is ``sum_p w_p |x - x_hat_p|^2 / (B d)`` over widths p, whose weights sum to one, plus ``aux_weight`` times
the same for the auxiliary reconstruction of the residual by dead features. In standardized units that is the fraction
of variance unexplained.

With r_p = w_p (x_hat_p - x), a feature that belongs to widths p >= g sees only their sum S_g = sum_{p >= g} r_p, so
each cell keeps P such sums, and every entry (cell i, feature f, value v) takes its gradients from the sum of its level:
``dv = S_g . D_f``, ``dD_f += v S_g``, ``dE_f += dv (x - b_dec)``. The auxiliary
reconstruction is one more such sum.

Every function works on a part of the rows, so that callers can distribute the parts over threads. Arrays of rows are in
chunks (see :mod:`._chunks`); only the encoder, (F, C W), and its input keep whole rows, for the product.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from ._chunks import accumulate, add, add_inner_products, block_capacity, dot, set_scaled
from ._select import NEVER, top_k_of_row
from ._simd import LANES, keep_at_least, load, product_tile, store
from ._threads import JIT


@nb.njit(**JIT)
def fetch_rows(
    first: int, last: int, cells: np.ndarray, rows: np.ndarray, noise: np.ndarray, noise_at: int, b_dec: np.ndarray,
    width: int, target: np.ndarray, seen: np.ndarray, seen_rows: np.ndarray,
) -> None:  # fmt: skip
    """Batch rows from the cells (n, d): the target (C, B, W) and the encoder's input, which is centered and has noise.

    ``seen`` (C, B, W) and ``seen_rows`` (B, C W) both hold the input; with one chunk they may be the same memory.
    """
    d, B, row_size = cells.shape[1], target.shape[1], seen_rows.shape[1]
    flat_target, flat_seen, flat_rows = target.reshape(-1), seen.reshape(-1), seen_rows.reshape(-1)
    noisy = len(noise) > 0
    for i in range(first, last):
        cell, out = cells[rows[i]], flat_rows[i * row_size : (i + 1) * row_size]
        for c in range(d):
            out[c] = cell[c] - b_dec[c]
        if noisy:
            row_noise = noise[noise_at + i * d : noise_at + (i + 1) * d]
            for c in range(d):
                out[c] += row_noise[c]
        for chunk in range(len(target)):
            start = chunk * width
            target_row = flat_target[(chunk * B + i) * width : (chunk * B + i + 1) * width]
            for c in range(min(width, d - start)):
                target_row[c] = cell[start + c]
            if len(target) > 1:
                for c in range(0, width, LANES):
                    store(flat_seen, (chunk * B + i) * width + c, load(flat_rows, i * row_size + start + c))


@nb.njit(**JIT)
def multiply_rows(
    first: int, last: int, seen_rows: np.ndarray, packed: np.ndarray, pre: np.ndarray, depth: int
) -> None:
    """Encoder product of a block of rows; ``packed`` is the encoder in tiles of 64 features, (F / 64, C W, 64)."""
    row_size, n = seen_rows.shape[1], pre.shape[1]
    for tile in range(len(packed)):
        for i in range(first, last, 4):
            product_tile(
                seen_rows, i * row_size, row_size, packed, tile * row_size * 64, depth, pre, i * n + tile * 64, n
            )


@nb.njit(**JIT)
def select_rows(
    block: int, first: int, last: int, pre: np.ndarray, bias: np.ndarray, k: int, bound: float, by_batch: bool,
    maxima: np.ndarray, index: np.ndarray, value: np.ndarray, begin: np.ndarray, end: np.ndarray, stop: np.ndarray,
) -> None:  # fmt: skip
    """Active entries of a block of rows (or candidates for them), row after row into the segment of the block.

    Row i has ``begin[i]`` to ``end[i]``; the segment is padded to whole registers up to ``stop[block]``.
    """
    n, flat = pre.shape[1], pre.reshape(-1)
    at = block * block_capacity(n)
    start = at
    for i in range(first, last):
        begin[i] = at
        if by_batch:
            at = keep_at_least(flat, i * n, bias, n, bound, index, value, at)
        else:
            at = top_k_of_row(flat, i * n, bias, n, k, maxima, index, value, at)
        end[i] = at
    while (at - start) % LANES != 0:
        value[at] = value.dtype.type(NEVER)
        at += 1
    stop[block] = at


@nb.njit(**JIT)
def drop_below(
    first: int, last: int, limit: float, index: np.ndarray, value: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> None:
    """Keep only the candidates that reach the limit of the batch."""
    for i in range(first, last):
        kept = begin[i]
        for e in range(begin[i], end[i]):
            v, f = value[e], index[e]
            value[kept] = v
            index[kept] = f
            kept += v >= limit
        end[i] = kept


@nb.njit(**JIT)
def decode_rows(
    chunk: int, first: int, last: int, target: np.ndarray, D: np.ndarray, b_dec: np.ndarray, widths: np.ndarray,
    weights: np.ndarray, index: np.ndarray, value: np.ndarray, begin: np.ndarray, end: np.ndarray, sums: np.ndarray,
    grad_value: np.ndarray, row_loss: np.ndarray, row_error: np.ndarray, output_grad: np.ndarray,
) -> None:  # fmt: skip
    """One chunk of some rows: residual sums of every width, and this chunk's part of the gradient of each entry.

    ``sums`` is (C, P + 1, B, W). ``row_loss`` collects the weighted squared error of all widths,
    ``row_error`` that of the whole code, ``output_grad`` (C W,) the gradient of ``b_dec`` through the reconstruction.
    """
    B, width = target.shape[1], target.shape[2]
    P, column = len(widths), chunk * D.shape[1] * width
    R, x, rows = sums.reshape(-1), target.reshape(-1), D.reshape(-1)
    base = chunk * (P + 1) * B
    for i in range(first, last):
        at, error = begin[i], 0.0
        loss = 0.0
        for p in range(P):
            r = (base + p * B + i) * width
            if p == 0:
                for c in range(0, width, LANES):
                    store(R, r + c, load(b_dec, chunk * width + c) - load(x, (chunk * B + i) * width + c))
            else:
                set_scaled(R, r, R, r - B * width, value.dtype.type(1), width)
            stop = end[i]
            if p < P - 1:
                stop = at
                while stop < end[i] and index[stop] < widths[p]:
                    stop += 1
            accumulate(R, r, rows, width, column, index, value, at, stop)
            at = stop
            error = dot(R, r, R, r, width)
            loss += weights[p] * error
        if chunk == 0:
            row_loss[i], row_error[i] = 0.0, 0.0
            for e in range(begin[i], end[i]):
                grad_value[e] = 0
        row_loss[i] += loss
        row_error[i] += error
        at = end[i]
        for p in range(P - 1, -1, -1):
            r = (base + p * B + i) * width
            if P > 1:
                set_scaled(R, r, R, r, weights[p], width)
                if p < P - 1:
                    add(R, r, R, r + B * width, width)
            start = begin[i]
            if p > 0:
                start = at
                while start > begin[i] and index[start - 1] >= widths[p - 1]:
                    start -= 1
            add_inner_products(grad_value, start, at, R, r, rows, width, column, index)
            at = start
        add(output_grad, chunk * width, R, (base + i) * width, width)


@nb.njit(**JIT)
def revive_rows(
    first: int, last: int, pre: np.ndarray, only_dead: np.ndarray, D: np.ndarray, k_aux: int, aux_weight: float,
    weights: np.ndarray, index: np.ndarray, value: np.ndarray, begin: np.ndarray, end: np.ndarray, sums: np.ndarray,
    grad_value: np.ndarray, row_loss: np.ndarray,
) -> None:  # fmt: skip
    """The auxiliary loss: the ``k_aux`` largest dead features of every cell reconstruct the residual of the code.

    ``only_dead`` is the bias of the dead features and :data:`._select.NEVER` of all others. Cell i has entries
    ``begin[i]`` to ``end[i]``; their residuals are the last of the cell's sums.
    """
    n_chunks, B, width = len(sums), sums.shape[2], sums.shape[3]
    R, rows, n = sums.reshape(-1), D.reshape(-1), pre.shape[1]
    flat, P = pre.reshape(-1), sums.shape[1] - 1
    kind = value.dtype.type
    maxima = np.empty(n + 2 * LANES, value.dtype)
    # The selection needs room for candidates, which would overlap the rows of the next thread.
    candidate_index, candidate_value = np.empty(n + LANES, index.dtype), np.empty(n + LANES, value.dtype)
    for i in range(first, last):
        n_kept = top_k_of_row(flat, i * n, only_dead, n, k_aux, maxima, candidate_index, candidate_value, 0)
        start = begin[i]
        at = start + n_kept
        end[i] = at
        for j in range(n_kept):
            index[start + j], value[start + j], grad_value[start + j] = candidate_index[j], candidate_value[j], 0
        error = 0.0
        for chunk in range(n_chunks):
            u = ((chunk * (P + 1) + P) * B + i) * width
            column = chunk * D.shape[1] * width
            set_scaled(R, u, R, u - B * width, kind(1) / weights[P - 1], width)  # the residual of the whole code
            accumulate(R, u, rows, width, column, index, value, start, at)
            error += dot(R, u, R, u, width)
            set_scaled(R, u, R, u, kind(aux_weight), width)
            add_inner_products(grad_value, start, at, R, u, rows, width, column, index)
        row_loss[i] += aux_weight * error
