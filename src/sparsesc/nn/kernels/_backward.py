"""The backward pass and the weight update of a training step, feature by feature.

Symbols are those of :mod:`._forward`. Every function works on a part of the features, or counts the entries of some
rows for them. Sums over all features run over fixed slots, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from ._bfloat16 import pack_row
from ._chunks import SLOTS, accumulate, dot
from ._simd import LANES, broadcast, horizontal_sum, load, square_root, store
from ._threads import JIT


@nb.njit(**JIT)
def count_entries(
    first: int, last: int, index: np.ndarray, begin: np.ndarray, end: np.ndarray, counts: np.ndarray
) -> None:
    """Add the number of entries that each feature has in these rows."""
    for i in range(first, last):
        for e in range(begin[i], end[i]):
            counts[index[e]] += 1


@nb.njit(**JIT)
def place_entries(counts: np.ndarray, aux_counts: np.ndarray, start: np.ndarray, aux_start: np.ndarray) -> None:
    """Turn counts by part and feature into memory offsets.

    The active entries of feature f go from ``start[f]`` to ``aux_start[f]``, its auxiliary ones from there to
    ``start[f + 1]``.
    """
    at = 0
    n_parts, n_features = len(counts), len(aux_start)
    for f in range(n_features):
        start[f] = at
        for part in range(n_parts):
            n = counts[part, f]
            counts[part, f] = at
            at += n
        aux_start[f] = at
        for part in range(n_parts):
            n = aux_counts[part, f]
            aux_counts[part, f] = at
            at += n
    start[n_features] = at


@nb.njit(**JIT)
def scatter_entries(
    first: int, last: int, index: np.ndarray, value: np.ndarray, grad_value: np.ndarray, begin: np.ndarray,
    end: np.ndarray, offsets: np.ndarray, by_row: np.ndarray, by_value: np.ndarray, by_grad: np.ndarray,
) -> None:  # fmt: skip
    """Copy the entries of these rows to the offsets of their features, rows ascending within a feature."""
    for i in range(first, last):
        for e in range(begin[i], end[i]):
            at = offsets[index[e]]
            offsets[index[e]] = at + 1
            by_row[at], by_value[at], by_grad[at] = i, value[e], grad_value[e]


@nb.njit(**JIT)
def differentiate_features(
    part: int, n_parts: int, seen: np.ndarray, sums: np.ndarray, E: np.ndarray, D: np.ndarray, level: np.ndarray,
    start: np.ndarray, aux_start: np.ndarray, by_row: np.ndarray, by_value: np.ndarray, by_grad: np.ndarray,
    grad_E: np.ndarray, grad_D: np.ndarray, grad_b: np.ndarray, square: np.ndarray, grad_dot_row: np.ndarray,
    input_grad: np.ndarray, silent: np.ndarray, n_rows: int,
) -> None:  # fmt: skip
    """Unscaled gradients of both weight matrices and the encoder bias for every ``n_parts``-th feature.

    ``grad_dot_row`` is the inner product of the decoder's gradient with its row, and ``square`` the squared norm of all
    gradients without the component along the row. ``input_grad`` (slots, C W) collects the gradient of ``b_dec``
    through the encoder's input. ``silent`` counts the cells seen since each feature was last active outside the
    auxiliary loss. In a nested dictionary the first features are the busiest, so threads take features in turn.
    """
    n_chunks, B, width = seen.shape
    P, row_size, n_features = sums.shape[1] - 1, E.shape[1], len(aux_start)
    x, R, encoder, decoder = seen.reshape(-1), sums.reshape(-1), E.reshape(-1), D.reshape(-1)
    gE, gD, gx = grad_E.reshape(-1), grad_D.reshape(-1), input_grad.reshape(-1)
    for f in range(part, n_features, n_parts):
        s = grad_b.dtype.type(0)
        for e in range(start[f], start[f + 1]):
            s += by_grad[e]
        grad_b[f] = s
        square[f] = s * s
        grad_dot_row[f] = 0
        silent[f] = 0 if aux_start[f] > start[f] else silent[f] + n_rows
        slot = (f % SLOTS) * row_size
        for c in range(0, row_size, LANES):
            store(gx, slot + c, load(gx, slot + c) - broadcast(s) * load(encoder, f * row_size + c))
    zero = broadcast(grad_b.dtype.type(0))
    for chunk in range(n_chunks):
        chunk_at = chunk * (P + 1) * B * width
        # One matrix after the other: the cache holds a chunk of the residuals, but not one of the cells beside it.
        for f in range(part, n_features, n_parts):
            at = (chunk * D.shape[1] + f) * width
            for c in range(0, width, LANES):
                store(gD, at + c, zero)
            if start[f] < start[f + 1]:
                accumulate(gD, at, R, width, chunk_at + level[f] * B * width, by_row, by_value, start[f], aux_start[f])
                accumulate(gD, at, R, width, chunk_at + P * B * width, by_row, by_value, aux_start[f], start[f + 1])
                square[f] += dot(gD, at, gD, at, width)
                grad_dot_row[f] += dot(gD, at, decoder, at, width)
        for f in range(part, n_features, n_parts):
            at = (chunk * D.shape[1] + f) * width
            for c in range(0, width, LANES):
                store(gE, at + c, zero)
            if start[f] < start[f + 1]:
                accumulate(gE, at, x, width, chunk * B * width, by_row, by_grad, start[f], start[f + 1])
                square[f] += dot(gE, at, gE, at, width)
    for f in range(part, n_features, n_parts):
        square[f] -= grad_dot_row[f] * grad_dot_row[f]


@nb.njit(**JIT)
def update_features(
    first: int, last: int, E: np.ndarray, D: np.ndarray, b_enc: np.ndarray, packed: np.ndarray,
    packed_bfloat16: np.ndarray, grad_E: np.ndarray, grad_D: np.ndarray, grad_b: np.ndarray, grad_dot_row: np.ndarray,
    first_E: np.ndarray, first_D: np.ndarray, first_b: np.ndarray, second_E: np.ndarray, second_D: np.ndarray,
    second_b: np.ndarray, grad_scale: float, step_size: float, tie: float, beta1: float, beta2: float,
    epsilon: float,
) -> None:  # fmt: skip
    """Adam on the gradients times ``grad_scale`` for some features, then their decoder rows back to unit norm.

    ``step_size`` and ``epsilon`` include both bias corrections. ``tie`` is a decoupled decay, as in AdamW, of the
    encoder toward the decoder: the share of their difference that a step removes. ``packed`` and ``packed_bfloat16``
    are refreshed where they are not empty.
    """
    n_chunks, width, row_size = len(D), D.shape[2], E.shape[1]
    kind = E.dtype.type
    decay1, decay2 = broadcast(kind(beta1)), broadcast(kind(beta2))
    new1, new2 = broadcast(kind(1 - beta1)), broadcast(kind(1 - beta2))
    step, eps = broadcast(kind(step_size)), broadcast(kind(epsilon))
    scale, decay = broadcast(kind(grad_scale)), broadcast(kind(tie))
    w, m, v, g = E.reshape(-1), first_E.reshape(-1), second_E.reshape(-1), grad_E.reshape(-1)
    wD, mD, vD, gD = D.reshape(-1), first_D.reshape(-1), second_D.reshape(-1), grad_D.reshape(-1)
    tiles, bfloat16_tiles = packed.reshape(-1), packed_bfloat16.reshape(-1)
    for f in range(first, last):
        norm = broadcast(kind(0))
        parallel = broadcast(grad_dot_row[f])
        for chunk in range(n_chunks):
            for c in range(0, width, LANES):
                i, j = f * row_size + chunk * width + c, (chunk * D.shape[1] + f) * width + c
                row = load(wD, j)
                grad = scale * load(g, j)
                moment1 = decay1 * load(m, i) + new1 * grad
                moment2 = decay2 * load(v, i) + new2 * grad * grad
                encoder = load(w, i)
                store(m, i, moment1)
                store(v, i, moment2)
                store(w, i, encoder + decay * (row - encoder) - step * moment1 / (square_root(moment2) + eps))
                grad = scale * (load(gD, j) - parallel * row)
                moment1 = decay1 * load(mD, j) + new1 * grad
                moment2 = decay2 * load(vD, j) + new2 * grad * grad
                row -= step * moment1 / (square_root(moment2) + eps)
                store(mD, j, moment1)
                store(vD, j, moment2)
                store(wD, j, row)
                norm += row * row
        length = horizontal_sum(norm)
        if length > 0:
            inverse = broadcast(kind(1) / np.sqrt(length))
            for chunk in range(n_chunks):
                for c in range(0, width, LANES):
                    j = (chunk * D.shape[1] + f) * width + c
                    store(wD, j, inverse * load(wD, j))
        s = kind(grad_scale) * grad_b[f]
        first_b[f] = kind(beta1) * first_b[f] + kind(1 - beta1) * s
        second_b[f] = kind(beta2) * second_b[f] + kind(1 - beta2) * s * s
        b_enc[f] -= kind(step_size) * first_b[f] / (np.sqrt(second_b[f]) + kind(epsilon))
        if len(tiles) > 0:
            column = (f // 64) * row_size * 64 + f % 64
            for c in range(row_size):
                tiles[column + c * 64] = w[f * row_size + c]
        if len(bfloat16_tiles) > 0:
            pack_row(w, f * row_size, row_size, bfloat16_tiles, (f // 64) * row_size * 32 + f % 64)
