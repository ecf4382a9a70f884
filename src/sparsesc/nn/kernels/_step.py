"""Whole training steps in compiled code: the order of the parts, dealt out to threads."""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from . import _backward, _forward
from ._bfloat16 import multiply_halves
from ._chunks import BLOCK, SLOTS, stretch
from ._select import NEVER, SMALLEST, batch_limit
from ._threads import on_threads

ALL, FETCH, REST = 0, 1, 2  # what a call does: everything, only fill the batch, or all that follows the product
LOSS, ERROR, ACTIVE, NORM, DEAD = range(5)  # columns of a report
_GUESS = 0.9  # the last limit lowered by this is where the next batch's search starts
BETAS = (0.9, 0.999)
EPSILON = 1e-10


class Buffers(NamedTuple):
    """Parameters and scratch memory of one training, in the layout of :mod:`._chunks`."""

    cells: np.ndarray
    """(n, d) training cells."""
    noise: np.ndarray
    """Numbers added to what the encoder sees; empty for none."""
    E: np.ndarray
    D: np.ndarray
    b_enc: np.ndarray
    """(F padded,), :data:`._select.NEVER` where there is no feature."""
    b_dec: np.ndarray
    """(C W,)"""
    packed: np.ndarray
    """(F / 64, C W, 64) for the product in compiled code; empty where another library multiplies."""
    halves: np.ndarray
    """(B, C W / 2) words, the batch in half precision; empty where the product is in another."""
    packed_halves: np.ndarray
    """(F / 64, C W / 2, 64) words, like ``packed``."""
    m_E: np.ndarray
    m_D: np.ndarray
    m_b: np.ndarray
    m_c: np.ndarray
    v_E: np.ndarray
    v_D: np.ndarray
    v_b: np.ndarray
    v_c: np.ndarray
    grad_E: np.ndarray
    grad_D: np.ndarray
    grad_b: np.ndarray
    grad_c: np.ndarray
    target: np.ndarray
    seen: np.ndarray
    seen_rows: np.ndarray
    pre: np.ndarray
    feature: np.ndarray
    value: np.ndarray
    slope: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    stop: np.ndarray
    maxima: np.ndarray
    sums: np.ndarray
    row_loss: np.ndarray
    row_error: np.ndarray
    column_sum: np.ndarray
    only_dead: np.ndarray
    """(F padded,) encoder bias of the dead features, :data:`._select.NEVER` elsewhere."""
    aux_index: np.ndarray
    aux_value: np.ndarray
    aux_slope: np.ndarray
    aux_begin: np.ndarray
    aux_end: np.ndarray
    start: np.ndarray
    middle: np.ndarray
    by_row: np.ndarray
    by_value: np.ndarray
    by_slope: np.ndarray
    square: np.ndarray
    along: np.ndarray
    toward: np.ndarray
    silent: np.ndarray
    widths: np.ndarray
    weights: np.ndarray
    """(P,) share of the loss that each prefix has."""
    level: np.ndarray
    """(F,) number of the first prefix that holds each feature."""
    clock: np.ndarray
    """(1,) steps taken."""
    guess: np.ndarray
    """(1,) the last batch's limit."""
    k: int
    k_aux: int
    by_batch: bool
    dead_after: int
    aux_weight: float
    clip: float
    tie_strength: float


def _take_steps(
    s: Buffers, batches: np.ndarray, noise_at: np.ndarray, lr: np.ndarray, what: int, n_parts: int, report: np.ndarray
) -> None:
    """One step for each row of ``batches`` (steps, B).

    ``n_parts`` is a power of two, at most :data:`._chunks.SLOTS`: parts of rows are whole slots, whatever their number.

    A learning rate of zero leaves the parameters alone: gradients only.
    """
    cells, noise, E, D, b_enc, b_dec, packed = s.cells, s.noise, s.E, s.D, s.b_enc, s.b_dec, s.packed
    halves, packed_halves = s.halves, s.packed_halves
    target, seen, seen_rows, pre = s.target, s.seen, s.seen_rows, s.pre
    index, value, slope, begin, end, stop = s.feature, s.value, s.slope, s.begin, s.end, s.stop
    sums, row_loss, row_error, column_sum, toward = s.sums, s.row_loss, s.row_error, s.column_sum, s.toward
    aux_index, aux_value, aux_slope, aux_begin, aux_end = s.aux_index, s.aux_value, s.aux_slope, s.aux_begin, s.aux_end
    grad_E, grad_D, grad_b, square, along, silent = s.grad_E, s.grad_D, s.grad_b, s.square, s.along, s.silent
    m_E, m_D, m_b, v_E, v_D, v_b = s.m_E, s.m_D, s.m_b, s.v_E, s.v_D, s.v_b
    start, middle, level, maxima, widths, only_dead = (
        s.start,
        s.middle,
        s.level,
        s.maxima,
        s.widths,
        s.only_dead,
    )
    k, k_aux, by_batch, depth = s.k, s.k_aux, s.by_batch, s.cells.shape[1]
    kind = value.dtype.type
    B, n_features, width, n_chunks = batches.shape[1], len(middle), target.shape[2], len(target)
    n_blocks = -(-B // BLOCK)
    counts, aux_counts = np.empty((n_parts, n_features), np.int64), np.empty((n_parts, n_features), np.int64)
    stretches = np.arange(n_blocks) * stretch(pre.shape[1])
    scale = kind(2.0 / (B * depth))

    for step in range(len(batches)):
        rows, at, rate = batches[step], noise_at[step], lr[step]
        first_pass = True
        if what == FETCH:
            for block in nb.prange(n_blocks):
                low, high = block * BLOCK, min(B, (block + 1) * BLOCK)
                _forward.fetch_rows(low, high, cells, rows, noise, at, b_dec, width, target, seen, seen_rows)
            continue

        # Active entries. For a limit over the batch a first bound is guessed, and lowered if too little reached it.
        total, found, bound = k * B, 0, kind(SMALLEST)
        rank = by_batch and s.clock[0] > 0
        if rank:
            bound = max(kind(_GUESS) * s.guess[0], bound)
        while True:
            by_bound, n_kept = rank, k if rank or not by_batch else min(2 * k, n_features)
            for block in nb.prange(n_blocks):
                low, high = block * BLOCK, min(B, (block + 1) * BLOCK)
                if what == ALL and first_pass:
                    _forward.fetch_rows(low, high, cells, rows, noise, at, b_dec, width, target, seen, seen_rows)
                    if len(packed_halves) > 0:
                        multiply_halves(low, high, seen_rows, halves, packed_halves, pre)
                    else:
                        _forward.multiply_rows(low, high, seen_rows, packed, pre, depth)
                _forward.select_rows(
                    block, low, high, pre, b_enc, n_kept, bound, by_bound, maxima[block], index, value, begin, end, stop
                )
            first_pass = False
            if not by_batch:
                break
            if not rank:  # the first batch of all: the smallest of each cell's largest 2 k shows where to look
                rank = True
                for i in range(B):
                    if end[i] > begin[i]:
                        bound += value[begin[i] : end[i]].min() / kind(B)
                continue
            found = 0
            for i in range(B):
                found += end[i] - begin[i]
            if found >= total or bound <= kind(SMALLEST):
                break
            bound = bound * kind(0.5) if bound > 1e-3 else kind(SMALLEST)
        limit = bound
        if by_batch:
            if found > total:
                limit = batch_limit(value, stretches, stop, bound, total)
            s.guess[0] = limit

        # Residuals of every cell, and how the loss changes with each entry.
        dead = np.flatnonzero(silent >= s.dead_after)
        if s.aux_weight <= 0:
            dead = dead[:0]
        if len(dead) > 0:
            only_dead[:] = kind(NEVER)
            for j in dead:
                only_dead[j] = b_enc[j]
        for part in nb.prange(n_parts):
            low, high = part * SLOTS // n_parts, (part + 1) * SLOTS // n_parts
            top, bottom = low * B // SLOTS, high * B // SLOTS
            if limit > bound:
                _forward.drop_below(top, bottom, limit, index, value, begin, end)
            for slot in range(low, high):
                column_sum[slot] = 0
                toward[slot] = 0
            for chunk in range(n_chunks):
                for slot in range(low, high):
                    _forward.decode_rows(
                        chunk, slot * B // SLOTS, (slot + 1) * B // SLOTS, target, D, b_dec, widths, s.weights, index,
                        value, begin, end, sums, slope, row_loss, row_error, column_sum[slot],
                    )  # fmt: skip
            counts[part] = 0
            aux_counts[part] = 0
            _backward.count_entries(top, bottom, index, begin, end, counts[part])
            if len(dead) > 0:
                _forward.revive_rows(
                    top, bottom, pre, only_dead, D, k_aux, s.aux_weight, s.weights, aux_index, aux_value, aux_begin,
                    aux_end, sums, aux_slope, row_loss,
                )  # fmt: skip
                _backward.count_entries(top, bottom, aux_index, aux_begin, aux_end, aux_counts[part])

        # The same entries by feature, and the gradients of each feature's weights.
        _backward.place_entries(counts, aux_counts, start, middle)
        by_row, by_value, by_slope = s.by_row, s.by_value, s.by_slope
        if start[n_features] > len(by_row):
            by_row = np.empty(start[n_features], by_row.dtype)
            by_value, by_slope = np.empty(len(by_row), value.dtype), np.empty(len(by_row), value.dtype)
        for part in nb.prange(n_parts):
            top, bottom = part * SLOTS // n_parts * B // SLOTS, (part + 1) * SLOTS // n_parts * B // SLOTS
            _backward.scatter_entries(
                top, bottom, index, value, slope, begin, end, counts[part], by_row, by_value, by_slope
            )
            if len(dead) > 0:
                _backward.scatter_entries(
                    top, bottom, aux_index, aux_value, aux_slope, aux_begin, aux_end, aux_counts[part], by_row,
                    by_value, by_slope,
                )  # fmt: skip
        for part in nb.prange(n_parts):
            _backward.differentiate_features(
                part, n_parts, seen, sums, E, D, level, start, middle, by_row, by_value, by_slope, grad_E, grad_D,
                grad_b, square, along, toward, silent, B,
            )  # fmt: skip
        grad_c = s.grad_c
        norm = 0.0
        for f in range(n_features):
            norm += square[f]
        grad_c[:] = 0
        for slot in range(SLOTS):
            for c in range(len(grad_c)):
                grad_c[c] += column_sum[slot, c] + toward[slot, c]
        for c in range(len(grad_c)):
            norm += grad_c[c] * grad_c[c]
        norm = np.sqrt(max(norm, 0.0)) * scale

        loss, error, active = 0.0, 0.0, 0
        for i in range(B):
            loss += row_loss[i]
            error += row_error[i]
            active += end[i] - begin[i]
        report[step, LOSS], report[step, ERROR], report[step, ACTIVE] = loss / (B * depth), error, active
        report[step, NORM], report[step, DEAD] = norm, len(dead)
        if rate <= 0:
            continue

        # Adam, with the clipping, the loss's scale and both bias corrections folded into its numbers.
        s.clock[0] += 1
        shrink = min(1.0, s.clip / max(norm, 1e-30)) * scale
        correct1, correct2 = 1 - BETAS[0] ** s.clock[0], 1 - BETAS[1] ** s.clock[0]
        go, epsilon, pull = rate * np.sqrt(correct2) / correct1, EPSILON * np.sqrt(correct2), rate * s.tie_strength
        for part in nb.prange(n_parts):
            # In whole tiles of 64 features, which share memory in `packed`.
            tiles = -(-n_features // 64)
            low, high = 64 * (part * tiles // n_parts), min(n_features, 64 * ((part + 1) * tiles // n_parts))
            _backward.update_features(
                low, high, E, D, b_enc, packed, packed_halves, grad_E, grad_D, grad_b, along, m_E, m_D, m_b, v_E, v_D,
                v_b, shrink, go, pull, BETAS[0], BETAS[1], epsilon,
            )  # fmt: skip
        for c in range(len(grad_c)):
            g = shrink * grad_c[c]
            s.m_c[c] = BETAS[0] * s.m_c[c] + (1 - BETAS[0]) * g
            s.v_c[c] = BETAS[1] * s.v_c[c] + (1 - BETAS[1]) * g * g
            b_dec[c] -= go * s.m_c[c] / (np.sqrt(s.v_c[c]) + epsilon)


take_steps = on_threads(_take_steps)
