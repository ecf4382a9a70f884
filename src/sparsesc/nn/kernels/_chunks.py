"""The memory layout of rows, and sums and products of short rows that stay in registers.

Dimensions are cut into C chunks of W = 16 or 32 numbers and stored chunk by chunk, (C, rows, W). While all features
work on one chunk of a wide embedding, that chunk stays in the cache. Padding is zero everywhere and stays zero.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from ._simd import LANES, broadcast, horizontal_sum, load, store
from ._threads import JIT, MAX_PARTS

SLOTS = MAX_PARTS  # partial sums, over rows or features, that are added in a fixed order
BLOCK = 32  # rows that are selected together: their pre-activations stay in the cache


@nb.njit(**JIT)
def block_capacity(n: int) -> int:
    """Entries of memory for a block of rows of ``n`` features: all of them, plus padding to fill the last register."""
    return BLOCK * n + LANES


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that begin at a cache line: the last bits of a product can depend on the alignment of its factors."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def in_tiles(E: np.ndarray) -> np.ndarray:
    """Encoder rows (F, C W) in tiles of 64 features, (F / 64, C W, 64): the order in which the product reads them."""
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
    """``out[at : at + width] += sum_e weight[e] * source[row[e] * width + column :]``, with the sum in registers."""
    if width == LANES:
        a = load(out, at)
        for e in range(first, last):
            a += broadcast(weight[e]) * load(source, row[e] * width + column)
        store(out, at, a)
    else:
        a, b = load(out, at), load(out, at + LANES)
        for e in range(first, last):
            v, source_at = broadcast(weight[e]), row[e] * width + column
            a += v * load(source, source_at)
            b += v * load(source, source_at + LANES)
        store(out, at, a)
        store(out, at + LANES, b)


@nb.njit(**JIT)
def add_inner_products(
    out: np.ndarray, first: int, last: int, left: np.ndarray, at: int, D: np.ndarray, width: int, column: int,
    row: np.ndarray,
) -> None:  # fmt: skip
    """``out[e] += left[at : at + width] . D[row[e] * width + column :]``."""
    if width == LANES:
        a = load(left, at)
        for e in range(first, last):
            out[e] += horizontal_sum(a * load(D, row[e] * width + column))
    else:
        a, b = load(left, at), load(left, at + LANES)
        for e in range(first, last):
            D_at = row[e] * width + column
            out[e] += horizontal_sum(a * load(D, D_at) + b * load(D, D_at + LANES))


@nb.njit(**JIT)
def set_scaled(out: np.ndarray, at: int, source: np.ndarray, source_at: int, factor: float, width: int) -> None:
    """``out[at : at + width] = factor * source[source_at : source_at + width]``."""
    v = broadcast(factor)
    for c in range(0, width, LANES):
        store(out, at + c, v * load(source, source_at + c))


@nb.njit(**JIT)
def add(out: np.ndarray, at: int, source: np.ndarray, source_at: int, width: int) -> None:
    """``out[at : at + width] += source[source_at : source_at + width]``."""
    for c in range(0, width, LANES):
        store(out, at + c, load(out, at + c) + load(source, source_at + c))


@nb.njit(**JIT)
def dot(a: np.ndarray, a_at: int, b: np.ndarray, b_at: int, width: int) -> float:
    """The inner product of ``a[a_at : a_at + width]`` and ``b[b_at : b_at + width]``."""
    s = load(a, a_at) * load(b, b_at)
    for c in range(LANES, width, LANES):
        s += load(a, a_at + c) * load(b, b_at + c)
    return horizontal_sum(s)
