"""Complete training steps in compiled code: the order of the parts, and their distribution over threads."""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from . import _backward, _forward
from ._bfloat16 import multiply_bfloat16
from ._chunks import BLOCK, SLOTS, block_capacity
from ._select import NEVER, SMALLEST, batch_limit
from ._threads import on_threads

ALL, FETCH, REST = 0, 1, 2  # phases of a step: all of it, only the fetch of the batch, all that follows the product
LOSS, ERROR, ACTIVE, NORM, DEAD = range(5)  # columns of a report
_GUESS = 0.9  # the search for the limit of a batch starts at this share of the previous one
BETAS = (0.9, 0.999)
EPSILON = 1e-10


class Buffers(NamedTuple):
    """Parameters and scratch memory of one training, in the layout of :mod:`._chunks`."""

    cells: np.ndarray
    """(n, d) training cells."""
    noise: np.ndarray
    """Numbers added to the encoder's input; empty for none."""
    E: np.ndarray
    """(F padded, C W)"""
    D: np.ndarray
    """(C, F padded, W)"""
    b_enc: np.ndarray
    """(F padded,), :data:`._select.NEVER` where there is no feature."""
    b_dec: np.ndarray
    """(C W,)"""
    packed: np.ndarray
    """(F / 64, C W, 64): the encoder in tiles for the compiled product; empty where torch computes it."""
    seen_bfloat16: np.ndarray
    """(B, C W / 2) words: the batch in bfloat16; empty where the product has another precision."""
    packed_bfloat16: np.ndarray
    """(F / 64, C W / 2, 64) words, like ``packed``."""
    m_E: np.ndarray
    """Adam's first moments, of ``E``, ``D``, ``b_enc`` and (``m_c``) ``b_dec``; ``v_E`` to ``v_c`` are the second."""
    m_D: np.ndarray
    m_b: np.ndarray
    m_c: np.ndarray
    v_E: np.ndarray
    v_D: np.ndarray
    v_b: np.ndarray
    v_c: np.ndarray
    grad_E: np.ndarray
    """Gradients of the same parameters, (C, F padded, W) for both matrices, before the factor 2 / (B d)."""
    grad_D: np.ndarray
    grad_b: np.ndarray
    grad_c: np.ndarray
    target: np.ndarray
    """(C, B, W) batch of cells; ``seen`` and ``seen_rows`` (B, C W) are the encoder's input for them."""
    seen: np.ndarray
    seen_rows: np.ndarray
    pre: np.ndarray
    feature: np.ndarray
    """Feature, value and gradient of each active entry; row i has ``begin[i]`` to ``end[i]``."""
    value: np.ndarray
    grad_value: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    stop: np.ndarray
    maxima: np.ndarray
    sums: np.ndarray
    """(C, P + 1, B, W) weighted residuals, summed over the widths that hold a feature; the last is auxiliary."""
    row_loss: np.ndarray
    row_error: np.ndarray
    output_grad: np.ndarray
    """(slots, C W) gradient of ``b_dec`` through the reconstruction."""
    only_dead: np.ndarray
    """(F padded,) encoder bias of the dead features, :data:`._select.NEVER` elsewhere."""
    aux_index: np.ndarray
    aux_value: np.ndarray
    aux_grad: np.ndarray
    aux_begin: np.ndarray
    aux_end: np.ndarray
    start: np.ndarray
    """(F + 1,) where the entries of each feature begin in ``by_row``, ``by_value`` and ``by_grad``."""
    aux_start: np.ndarray
    """(F,) where its auxiliary entries begin."""
    by_row: np.ndarray
    by_value: np.ndarray
    by_grad: np.ndarray
    square: np.ndarray
    """(F,) squared norm of the gradients of each feature."""
    grad_dot_row: np.ndarray
    """(F,) inner product of each decoder row with its gradient."""
    input_grad: np.ndarray
    """(slots, C W) gradient of ``b_dec`` through the encoder's input."""
    silent: np.ndarray
    """(F,) cells since each feature was last active."""
    widths: np.ndarray
    weights: np.ndarray
    """(P,) share of the loss that each width has."""
    level: np.ndarray
    """(F,) index of the first width that holds each feature."""
    clock: np.ndarray
    """(1,) steps taken."""
    guess: np.ndarray
    """(1,) limit of the previous batch."""
    k: int
    k_aux: int
    by_batch: bool
    dead_after: int
    aux_weight: float
    clip: float
    tie_strength: float


def _take_steps(
    s: Buffers, batches: np.ndarray, noise_at: np.ndarray, lr: np.ndarray, phase: int, n_parts: int, report: np.ndarray
) -> None:
    """One step for each row of ``batches`` (steps, B).

    ``n_parts`` is a power of two, at most :data:`._chunks.SLOTS`, so that every part of the rows is a number of whole
    slots. A learning rate of zero leaves the parameters unchanged: gradients only.
    """
    cells, noise, E, D, b_enc, b_dec, packed = s.cells, s.noise, s.E, s.D, s.b_enc, s.b_dec, s.packed
    seen_bfloat16, packed_bfloat16 = s.seen_bfloat16, s.packed_bfloat16
    target, seen, seen_rows, pre = s.target, s.seen, s.seen_rows, s.pre
    index, value, grad_value, begin, end, stop = s.feature, s.value, s.grad_value, s.begin, s.end, s.stop
    sums, row_loss, row_error, output_grad, input_grad = s.sums, s.row_loss, s.row_error, s.output_grad, s.input_grad
    aux_index, aux_value, aux_grad, aux_begin, aux_end = s.aux_index, s.aux_value, s.aux_grad, s.aux_begin, s.aux_end
    grad_E, grad_D, grad_b, square = s.grad_E, s.grad_D, s.grad_b, s.square
    grad_dot_row, silent = s.grad_dot_row, s.silent
    m_E, m_D, m_b, v_E, v_D, v_b = s.m_E, s.m_D, s.m_b, s.v_E, s.v_D, s.v_b
    start, aux_start, level, maxima, widths, only_dead = s.start, s.aux_start, s.level, s.maxima, s.widths, s.only_dead
    k, k_aux, by_batch, depth = s.k, s.k_aux, s.by_batch, s.cells.shape[1]
    kind = value.dtype.type
    B, n_features, width, n_chunks = batches.shape[1], len(aux_start), target.shape[2], len(target)
    n_blocks = -(-B // BLOCK)
    counts, aux_counts = np.empty((n_parts, n_features), np.int64), np.empty((n_parts, n_features), np.int64)
    block_starts = np.arange(n_blocks) * block_capacity(pre.shape[1])
    scale = kind(2.0 / (B * depth))

    for step in range(len(batches)):
        rows, at, step_lr = batches[step], noise_at[step], lr[step]
        first_pass = True
        if phase == FETCH:
            for block in nb.prange(n_blocks):
                low, high = block * BLOCK, min(B, (block + 1) * BLOCK)
                _forward.fetch_rows(low, high, cells, rows, noise, at, b_dec, width, target, seen, seen_rows)
            continue

        # Active entries. A limit over the batch starts from a guess, which is lowered if too few entries reach it.
        total, n_reached, bound = k * B, 0, kind(SMALLEST)
        by_limit = by_batch and s.clock[0] > 0
        if by_limit:
            bound = max(kind(_GUESS) * s.guess[0], bound)
        while True:
            keep_by_limit, n_kept = by_limit, k if by_limit or not by_batch else min(2 * k, n_features)
            for block in nb.prange(n_blocks):
                low, high = block * BLOCK, min(B, (block + 1) * BLOCK)
                if phase == ALL and first_pass:
                    _forward.fetch_rows(low, high, cells, rows, noise, at, b_dec, width, target, seen, seen_rows)
                    if len(packed_bfloat16) > 0:
                        multiply_bfloat16(low, high, seen_rows, seen_bfloat16, packed_bfloat16, pre)
                    else:
                        _forward.multiply_rows(low, high, seen_rows, packed, pre, depth)
                _forward.select_rows(
                    block, low, high, pre, b_enc, n_kept, bound, keep_by_limit, maxima[block], index, value, begin, end,
                    stop,
                )  # fmt: skip
            first_pass = False
            if not by_batch:
                break
            if not by_limit:  # first batch: the guess is the mean of the smallest of each cell's 2 k largest
                by_limit = True
                for i in range(B):
                    if end[i] > begin[i]:
                        bound += value[begin[i] : end[i]].min() / kind(B)
                continue
            n_reached = 0
            for i in range(B):
                n_reached += end[i] - begin[i]
            if n_reached >= total or bound <= kind(SMALLEST):
                break
            bound = bound * kind(0.5) if bound > 1e-3 else kind(SMALLEST)
        limit = bound
        if by_batch:
            if n_reached > total:
                limit = batch_limit(value, block_starts, stop, bound, total)
            s.guess[0] = limit

        # Residuals of every cell, and the gradient of each entry.
        dead = np.flatnonzero(silent >= s.dead_after)
        if s.aux_weight <= 0:
            dead = dead[:0]
        if len(dead) > 0:
            only_dead[:] = kind(NEVER)
            for j in dead:
                only_dead[j] = b_enc[j]
        for part in nb.prange(n_parts):
            low, high = part * SLOTS // n_parts, (part + 1) * SLOTS // n_parts
            first_row, last_row = low * B // SLOTS, high * B // SLOTS
            if limit > bound:
                _forward.drop_below(first_row, last_row, limit, index, value, begin, end)
            for slot in range(low, high):
                output_grad[slot] = 0
                input_grad[slot] = 0
            for chunk in range(n_chunks):
                for slot in range(low, high):
                    _forward.decode_rows(
                        chunk, slot * B // SLOTS, (slot + 1) * B // SLOTS, target, D, b_dec, widths, s.weights, index,
                        value, begin, end, sums, grad_value, row_loss, row_error, output_grad[slot],
                    )  # fmt: skip
            counts[part] = 0
            aux_counts[part] = 0
            _backward.count_entries(first_row, last_row, index, begin, end, counts[part])
            if len(dead) > 0:
                _forward.revive_rows(
                    first_row, last_row, pre, only_dead, D, k_aux, s.aux_weight, s.weights, aux_index, aux_value,
                    aux_begin, aux_end, sums, aux_grad, row_loss,
                )  # fmt: skip
                _backward.count_entries(first_row, last_row, aux_index, aux_begin, aux_end, aux_counts[part])

        # The same entries by feature, and the gradients of each feature's weights.
        _backward.place_entries(counts, aux_counts, start, aux_start)
        by_row, by_value, by_grad = s.by_row, s.by_value, s.by_grad
        if start[n_features] > len(by_row):
            by_row = np.empty(start[n_features], by_row.dtype)
            by_value, by_grad = np.empty(len(by_row), value.dtype), np.empty(len(by_row), value.dtype)
        for part in nb.prange(n_parts):
            first_row, last_row = part * SLOTS // n_parts * B // SLOTS, (part + 1) * SLOTS // n_parts * B // SLOTS
            _backward.scatter_entries(
                first_row, last_row, index, value, grad_value, begin, end, counts[part], by_row, by_value, by_grad
            )
            if len(dead) > 0:
                _backward.scatter_entries(
                    first_row, last_row, aux_index, aux_value, aux_grad, aux_begin, aux_end, aux_counts[part], by_row,
                    by_value, by_grad,
                )  # fmt: skip
        for part in nb.prange(n_parts):
            _backward.differentiate_features(
                part, n_parts, seen, sums, E, D, level, start, aux_start, by_row, by_value, by_grad, grad_E, grad_D,
                grad_b, square, grad_dot_row, input_grad, silent, B,
            )  # fmt: skip
        grad_c = s.grad_c
        norm = 0.0
        for f in range(n_features):
            norm += square[f]
        grad_c[:] = 0
        for slot in range(SLOTS):
            for c in range(len(grad_c)):
                grad_c[c] += output_grad[slot, c] + input_grad[slot, c]
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
        if step_lr <= 0:
            continue

        # Adam; its numbers include the clipping, the scale of the loss and both bias corrections.
        s.clock[0] += 1
        grad_scale = min(1.0, s.clip / max(norm, 1e-30)) * scale
        correction1, correction2 = 1 - BETAS[0] ** s.clock[0], 1 - BETAS[1] ** s.clock[0]
        step_size, epsilon = step_lr * np.sqrt(correction2) / correction1, EPSILON * np.sqrt(correction2)
        tie = step_lr * s.tie_strength
        for part in nb.prange(n_parts):
            # A part is whole tiles of 64 features, which share memory in `packed`.
            tiles = -(-n_features // 64)
            low, high = 64 * (part * tiles // n_parts), min(n_features, 64 * ((part + 1) * tiles // n_parts))
            _backward.update_features(
                low, high, E, D, b_enc, packed, packed_bfloat16, grad_E, grad_D, grad_b, grad_dot_row, m_E, m_D, m_b,
                v_E, v_D, v_b, grad_scale, step_size, tie, BETAS[0], BETAS[1], epsilon,
            )  # fmt: skip
        for c in range(len(grad_c)):
            g = grad_scale * grad_c[c]
            s.m_c[c] = BETAS[0] * s.m_c[c] + (1 - BETAS[0]) * g
            s.v_c[c] = BETAS[1] * s.v_c[c] + (1 - BETAS[1]) * g * g
            b_dec[c] -= step_size * s.m_c[c] / (np.sqrt(s.v_c[c]) + epsilon)


take_steps = on_threads(_take_steps)
