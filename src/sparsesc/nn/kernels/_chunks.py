"""Rows in chunks: sums and products of short rows that stay in registers.

Dimensions are cut into chunks of W = 16 or 32 numbers and stored chunk by chunk, (C, rows, W): what a chunk needs of a
wide embedding stays in the cache while all features pass over it. Padding is zero everywhere and stays so.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from ._simd import LANES, load, spread, store, total
from ._threads import JIT, MAX_PARTS

SLOTS = MAX_PARTS  # parts of the rows, or of the features, that are summed one after another
BLOCK = 32  # rows that are selected together: their pre-activations stay in the cache


@nb.njit(**JIT)
def stretch(n: int) -> int:
    """Entries set aside for a block of rows of ``n`` features: all of them, and room to fill the last register."""
    return BLOCK * n + LANES


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that begin at a cache line: the last bits of a product can depend on where its factors lie."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def in_tiles(E: np.ndarray) -> np.ndarray:
    """Encoder rows (F, C W) in tiles of 64 features, (F / 64, C W, 64), as the compiled product reads them."""
    return E.reshape(len(E) // 64, 64, -1).transpose(0, 2, 1)


@nb.njit(**JIT)
def accumulate(
    out: np.ndarray,
    at: int,
    source: np.ndarray,
    width: int,
    column: int,
    row: np.ndarray,
    weight: np.ndarray,
    first: int,
    last: int,
) -> None:
    """``out[at : at + width] += sum_e weight[e] * source[row[e] * width + column :]``, the sum held in registers."""
    if width == LANES:
        a = load(out, at)
        for e in range(first, last):
            a += spread(weight[e]) * load(source, row[e] * width + column)
        store(out, at, a)
    else:
        a, b = load(out, at), load(out, at + LANES)
        for e in range(first, last):
            v, here = spread(weight[e]), row[e] * width + column
            a += v * load(source, here)
            b += v * load(source, here + LANES)
        store(out, at, a)
        store(out, at + LANES, b)


@nb.njit(**JIT)
def add_slopes(
    out: np.ndarray, first: int, last: int, side: np.ndarray, at: int, D: np.ndarray, width: int, column: int,
    row: np.ndarray,
) -> None:  # fmt: skip
    """``out[e] += side[at : at + width] . D[row[e] * width + column :]``."""
    if width == LANES:
        a = load(side, at)
        for e in range(first, last):
            out[e] += total(a * load(D, row[e] * width + column))
    else:
        a, b = load(side, at), load(side, at + LANES)
        for e in range(first, last):
            here = row[e] * width + column
            out[e] += total(a * load(D, here) + b * load(D, here + LANES))


@nb.njit(**JIT)
def set_scaled(out: np.ndarray, at: int, source: np.ndarray, frm: int, factor: float, width: int) -> None:
    """``out[at:] = factor * source[frm:]``."""
    v = spread(factor)
    for c in range(0, width, LANES):
        store(out, at + c, v * load(source, frm + c))


@nb.njit(**JIT)
def add(out: np.ndarray, at: int, source: np.ndarray, frm: int, width: int) -> None:
    for c in range(0, width, LANES):
        store(out, at + c, load(out, at + c) + load(source, frm + c))


@nb.njit(**JIT)
def dot(a: np.ndarray, at: int, b: np.ndarray, frm: int, width: int) -> float:
    s = load(a, at) * load(b, frm)
    for c in range(LANES, width, LANES):
        s += load(a, at + c) * load(b, frm + c)
    return total(s)
