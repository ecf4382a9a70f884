"""From entries to gradients and new weights: the features' half of a training step.

Symbols are those of :mod:`._forward`. Every function works on a part of the features, or counts entries of some rows
for them. Sums over all features run over fixed slots, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from ._bfloat16 import pack_half
from ._chunks import SLOTS, accumulate, dot
from ._simd import LANES, load, spread, square_root, store, total
from ._threads import JIT


@nb.njit(**JIT)
def count_entries(
    first: int, last: int, index: np.ndarray, begin: np.ndarray, end: np.ndarray, counts: np.ndarray
) -> None:
    """How many entries of these rows each feature has."""
    for i in range(first, last):
        for e in range(begin[i], end[i]):
            counts[index[e]] += 1


@nb.njit(**JIT)
def place_entries(counts: np.ndarray, aux_counts: np.ndarray, start: np.ndarray, middle: np.ndarray) -> None:
    """Turn counts by part and feature into places.

    Feature f has its active entries from ``start[f]`` to ``middle[f]``, its auxiliary ones from there to
    ``start[f + 1]``.
    """
    at = 0
    n_parts, n_features = len(counts), len(middle)
    for f in range(n_features):
        start[f] = at
        for part in range(n_parts):
            n = counts[part, f]
            counts[part, f] = at
            at += n
        middle[f] = at
        for part in range(n_parts):
            n = aux_counts[part, f]
            aux_counts[part, f] = at
            at += n
    start[n_features] = at


@nb.njit(**JIT)
def scatter_entries(
    first: int, last: int, index: np.ndarray, value: np.ndarray, slope: np.ndarray, begin: np.ndarray, end: np.ndarray,
    places: np.ndarray, by_row: np.ndarray, by_value: np.ndarray, by_slope: np.ndarray,
) -> None:  # fmt: skip
    """Copy the entries of these rows to the places of their features, rows ascending within a feature."""
    for i in range(first, last):
        for e in range(begin[i], end[i]):
            at = places[index[e]]
            places[index[e]] = at + 1
            by_row[at], by_value[at], by_slope[at] = i, value[e], slope[e]


@nb.njit(**JIT)
def differentiate_features(
    part: int, n_parts: int, seen: np.ndarray, sums: np.ndarray, E: np.ndarray, D: np.ndarray, level: np.ndarray,
    start: np.ndarray, middle: np.ndarray, by_row: np.ndarray, by_value: np.ndarray, by_slope: np.ndarray,
    grad_E: np.ndarray, grad_D: np.ndarray, grad_b: np.ndarray, square: np.ndarray, along: np.ndarray,
    toward: np.ndarray, silent: np.ndarray, n_rows: int,
) -> None:  # fmt: skip
    """Unscaled gradients of both weight matrices and the encoder bias for every ``n_parts``-th feature.

    ``along`` is the decoder gradient's part along its row, ``square`` the squared norm of all without that part;
    ``toward`` (slots, C W) collects what the encoder path sends to ``b_dec``. ``silent`` counts the cells seen since
    each feature was last active by itself. In a nested dictionary the first features are the busiest: hence in turn.
    """
    n_chunks, B, width = seen.shape
    P, whole, n_features = sums.shape[1] - 1, E.shape[1], len(middle)
    x, R, encoder, decoder = seen.reshape(-1), sums.reshape(-1), E.reshape(-1), D.reshape(-1)
    gE, gD, to = grad_E.reshape(-1), grad_D.reshape(-1), toward.reshape(-1)
    for f in range(part, n_features, n_parts):
        s = grad_b.dtype.type(0)
        for e in range(start[f], start[f + 1]):
            s += by_slope[e]
        grad_b[f] = s
        square[f] = s * s
        along[f] = 0
        silent[f] = 0 if middle[f] > start[f] else silent[f] + n_rows
        sent = (f % SLOTS) * whole
        for c in range(0, whole, LANES):
            store(to, sent + c, load(to, sent + c) - spread(s) * load(encoder, f * whole + c))
    zero = spread(grad_b.dtype.type(0))
    for chunk in range(n_chunks):
        own = chunk * (P + 1) * B * width
        # One matrix after the other: a chunk of the residuals fits into the cache, with one of the cells it would not.
        for f in range(part, n_features, n_parts):
            at = (chunk * D.shape[1] + f) * width
            for c in range(0, width, LANES):
                store(gD, at + c, zero)
            if start[f] < start[f + 1]:
                accumulate(gD, at, R, width, own + level[f] * B * width, by_row, by_value, start[f], middle[f])
                accumulate(gD, at, R, width, own + P * B * width, by_row, by_value, middle[f], start[f + 1])
                square[f] += dot(gD, at, gD, at, width)
                along[f] += dot(gD, at, decoder, at, width)
        for f in range(part, n_features, n_parts):
            at = (chunk * D.shape[1] + f) * width
            for c in range(0, width, LANES):
                store(gE, at + c, zero)
            if start[f] < start[f + 1]:
                accumulate(gE, at, x, width, chunk * B * width, by_row, by_slope, start[f], start[f + 1])
                square[f] += dot(gE, at, gE, at, width)
    for f in range(part, n_features, n_parts):
        square[f] -= along[f] * along[f]


@nb.njit(**JIT)
def update_features(
    first: int, last: int, E: np.ndarray, D: np.ndarray, b_enc: np.ndarray, packed: np.ndarray,
    packed_halves: np.ndarray, grad_E: np.ndarray, grad_D: np.ndarray, grad_b: np.ndarray, along: np.ndarray,
    first_E: np.ndarray, first_D: np.ndarray, first_b: np.ndarray, second_E: np.ndarray, second_D: np.ndarray,
    second_b: np.ndarray, shrink: float, rate: float, pull: float, keep1: float, keep2: float, epsilon: float,
) -> None:  # fmt: skip
    """Adam on the gradients times ``shrink`` for some features, then their decoder rows back to unit norm.

    ``rate`` and ``epsilon`` come with both bias corrections folded in. ``pull`` moves the encoder by that share of the
    way toward the decoder, apart from the gradients (as AdamW decays weights). ``packed`` and
    ``packed_halves`` are refreshed where they are not empty.
    """
    n_chunks, width, whole = len(D), D.shape[2], E.shape[1]
    kind = E.dtype.type
    k1, k2, n1, n2 = spread(kind(keep1)), spread(kind(keep2)), spread(kind(1 - keep1)), spread(kind(1 - keep2))
    step, eps, factor, toward = spread(kind(rate)), spread(kind(epsilon)), spread(kind(shrink)), spread(kind(pull))
    w, m, v, g = E.reshape(-1), first_E.reshape(-1), second_E.reshape(-1), grad_E.reshape(-1)
    wD, mD, vD, gD = D.reshape(-1), first_D.reshape(-1), second_D.reshape(-1), grad_D.reshape(-1)
    tiles, half_tiles = packed.reshape(-1), packed_halves.reshape(-1)
    for f in range(first, last):
        norm = spread(kind(0))
        back = spread(along[f])
        for chunk in range(n_chunks):
            for c in range(0, width, LANES):
                i, j = f * whole + chunk * width + c, (chunk * D.shape[1] + f) * width + c
                aim = load(wD, j)
                slope = factor * load(g, j)
                m1 = k1 * load(m, i) + n1 * slope
                v1 = k2 * load(v, i) + n2 * slope * slope
                here = load(w, i)
                store(m, i, m1)
                store(v, i, v1)
                store(w, i, here + toward * (aim - here) - step * m1 / (square_root(v1) + eps))
                slope = factor * (load(gD, j) - back * aim)
                m1 = k1 * load(mD, j) + n1 * slope
                v1 = k2 * load(vD, j) + n2 * slope * slope
                aim -= step * m1 / (square_root(v1) + eps)
                store(mD, j, m1)
                store(vD, j, v1)
                store(wD, j, aim)
                norm += aim * aim
        length = total(norm)
        if length > 0:
            inverse = spread(kind(1) / np.sqrt(length))
            for chunk in range(n_chunks):
                for c in range(0, width, LANES):
                    j = (chunk * D.shape[1] + f) * width + c
                    store(wD, j, inverse * load(wD, j))
        s = kind(shrink) * grad_b[f]
        first_b[f] = kind(keep1) * first_b[f] + kind(1 - keep1) * s
        second_b[f] = kind(keep2) * second_b[f] + kind(1 - keep2) * s * s
        b_enc[f] -= kind(rate) * first_b[f] / (np.sqrt(second_b[f]) + kind(epsilon))
        if len(tiles) > 0:
            to = (f // 64) * whole * 64 + f % 64
            for c in range(whole):
                tiles[to + c * 64] = w[f * whole + c]
        if len(half_tiles) > 0:
            pack_half(w, f * whole, whole, half_tiles, (f // 64) * whole * 32 + f % 64)
