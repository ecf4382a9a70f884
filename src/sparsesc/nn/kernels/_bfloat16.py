"""The encoder product in half precision, for processors with bfloat16 instructions for their vector registers.

Two neighbouring dimensions share a 32-bit word; one instruction multiplies sixteen such pairs and adds both products to
sixteen float32 sums. Elsewhere this code is never called, and generates nothing.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ._processor import own_half_product
from ._simd import _I32, LANES, PRODUCT_ROWS, PRODUCT_VECTORS, _Data, _spread, intrinsic, load
from ._threads import JIT


class _BFloat(ir.Type):
    """The LLVM type that llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_HALF = _BFloat()
_HALVES, _PAIRS = ir.VectorType(_HALF, LANES), ir.VectorType(_HALF, 2 * LANES)
_WORDS, _SUMS = ir.VectorType(_I32, LANES), ir.VectorType(ir.FloatType(), LANES)


@intrinsic
def _pair(typingctx: Any, first: Any, second: Any) -> Any:
    """Two float32 as bfloat16 in one word, the first one in its lower half."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not own_half_product() or signature.args[0] != types.float32:
            return _I32(0)
        low, high = (builder.zext(builder.bitcast(builder.fptrunc(x, _HALF), ir.IntType(16)), _I32) for x in args)
        return builder.or_(low, builder.shl(high, _I32(16)))

    return types.uint32(first, second), generate


@intrinsic
def _store_halves(typingctx: Any, words: Any, at: Any, lanes: Any) -> Any:
    """Write sixteen float32 as bfloat16 into eight words."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if own_half_product() and args[2].type == _SUMS:
            place = _Data(context, builder, signature.args[0], args[0]).at(args[1])
            builder.store(builder.fptrunc(args[2], _HALVES), builder.bitcast(place, _HALVES.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(words, types.intp, lanes), generate


@intrinsic
def _tile(
    typingctx: Any, x: Any, x_at: Any, x_stride: Any, w: Any, w_at: Any, depth: Any, out: Any, out_at: Any, stride: Any
) -> Any:
    """``out`` (4 rows, 64 columns) = ``x`` (4 rows, depth words) @ ``w`` (depth words, 64)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        t = signature.args
        left, right = _Data(context, builder, t[0], args[0]), _Data(context, builder, t[3], args[3])
        result = _Data(context, builder, t[6], args[6])
        if not own_half_product() or result.vector != _SUMS:
            return context.get_dummy_value()
        x_at, x_stride, w_at, depth, out_at, stride = args[1], args[2], args[4], args[5], args[7], args[8]
        intp, add, mul = depth.type, builder.add, builder.mul
        product = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_SUMS, [_SUMS, _PAIRS, _PAIRS]), "llvm.x86.avx512bf16.dpbf16ps.512"
        )
        zero = ir.Constant(_SUMS, [0.0] * LANES)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(PRODUCT_VECTORS)] for _ in range(PRODUCT_ROWS)]
        rows = [add(x_at, mul(x_stride, intp(i))) for i in range(PRODUCT_ROWS)]
        with cgutils.for_range_slice(builder, intp(0), depth, intp(1), intp) as (c, _):
            first = add(w_at, mul(c, intp(PRODUCT_VECTORS * LANES)))
            weights = [builder.bitcast(right.load(add(first, intp(LANES * v))), _PAIRS) for v in range(PRODUCT_VECTORS)]
            for i, row in enumerate(rows):
                factor = builder.bitcast(_spread(builder, builder.load(left.at(add(row, c)))), _PAIRS)
                for v, weight in enumerate(weights):
                    builder.store(builder.call(product, [builder.load(sums[i][v]), factor, weight]), sums[i][v])
        for i in range(PRODUCT_ROWS):
            for v in range(PRODUCT_VECTORS):
                at = add(add(out_at, mul(stride, intp(i))), intp(LANES * v))
                result.store(builder.load(sums[i][v]), at)
        return context.get_dummy_value()

    one = types.intp
    return types.void(x, one, one, w, one, one, out, one, one), generate


@nb.njit(**JIT)
def pack_half(w: np.ndarray, at: int, whole: int, tiles: np.ndarray, to: int) -> None:
    """One encoder row ``w[at : at + whole]`` into its column of a tile (whole / 2 words, 64)."""
    for c in range(whole // 2):
        tiles[to + c * 64] = _pair(w[at + 2 * c], w[at + 2 * c + 1])


@nb.njit(**JIT)
def multiply_halves(
    first: int, last: int, seen_rows: np.ndarray, halves: np.ndarray, packed: np.ndarray, pre: np.ndarray
) -> None:
    """Encoder product of a block of rows; ``packed`` is (F / 64, C W / 2, 64) words, ``halves`` memory for the rows."""
    whole, n, depth = seen_rows.shape[1], pre.shape[1], packed.shape[1]
    rows, words = seen_rows.reshape(-1), halves.reshape(-1)
    for c in range(first * whole, last * whole, LANES):
        _store_halves(words, c // 2, load(rows, c))
    for tile in range(len(packed)):
        for i in range(first, last, 4):
            _tile(words, i * depth, depth, packed, tile * depth * 64, depth, pre, i * n + tile * 64, n)


@nb.njit(**JIT)
def pack_halves(E: np.ndarray, packed: np.ndarray) -> None:
    """Encoder rows (F padded, C W) into tiles (F / 64, C W / 2, 64) of words."""
    w, tiles, whole = E.reshape(-1), packed.reshape(-1), E.shape[1]
    for f in range(len(E)):
        pack_half(w, f * whole, whole, tiles, (f // 64) * whole * 32 + f % 64)
