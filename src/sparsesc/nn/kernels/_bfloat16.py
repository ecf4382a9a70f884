"""The encoder product in bfloat16, for processors with bfloat16 instructions on their vector registers.

Two neighboring dimensions share a 32-bit word; one instruction multiplies sixteen such pairs and adds both products to
sixteen float32 sums. On other processors this code is never called, and generates no instructions.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ._processor import compiled_bfloat16_product
from ._simd import _I32, LANES, PRODUCT_ROWS, PRODUCT_VECTORS, _ArrayData, _broadcast, intrinsic, load
from ._threads import JIT


class _BFloat16Type(ir.Type):
    """The LLVM type ``bfloat``, which llvmlite does not define."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat16Type)

    def __hash__(self) -> int:
        return hash(_BFloat16Type)


_BF16 = _BFloat16Type()
_BF16_VECTOR, _BF16_PAIRS = ir.VectorType(_BF16, LANES), ir.VectorType(_BF16, 2 * LANES)
_FLOAT_VECTOR = ir.VectorType(ir.FloatType(), LANES)


@intrinsic
def _pack_pair(typingctx: Any, first: Any, second: Any) -> Any:
    """Two float32 as bfloat16 in one word, the first one in its lower half."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not compiled_bfloat16_product() or signature.args[0] != types.float32:
            return _I32(0)
        low, high = (builder.zext(builder.bitcast(builder.fptrunc(x, _BF16), ir.IntType(16)), _I32) for x in args)
        return builder.or_(low, builder.shl(high, _I32(16)))

    return types.uint32(first, second), generate


@intrinsic
def _store_bfloat16(typingctx: Any, words: Any, at: Any, vector: Any) -> Any:
    """Write sixteen float32 as bfloat16 into eight words."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if compiled_bfloat16_product() and args[2].type == _FLOAT_VECTOR:
            pointer = _ArrayData(context, builder, signature.args[0], args[0]).pointer(args[1])
            builder.store(
                builder.fptrunc(args[2], _BF16_VECTOR), builder.bitcast(pointer, _BF16_VECTOR.as_pointer())
            ).align = 4
        return context.get_dummy_value()

    return types.void(words, types.intp, vector), generate


@intrinsic
def _bfloat16_tile(
    typingctx: Any, x: Any, x_at: Any, x_stride: Any, w: Any, w_at: Any, depth: Any, out: Any, out_at: Any, stride: Any
) -> Any:
    """``out`` (4 rows, 64 columns) = ``x`` (4 rows, depth words) @ ``w`` (depth words, 64)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        t = signature.args
        left, right = _ArrayData(context, builder, t[0], args[0]), _ArrayData(context, builder, t[3], args[3])
        result = _ArrayData(context, builder, t[6], args[6])
        if not compiled_bfloat16_product() or result.vector != _FLOAT_VECTOR:
            return context.get_dummy_value()
        x_at, x_stride, w_at, depth, out_at, stride = args[1], args[2], args[4], args[5], args[7], args[8]
        intp, add, mul = depth.type, builder.add, builder.mul
        product = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_FLOAT_VECTOR, [_FLOAT_VECTOR, _BF16_PAIRS, _BF16_PAIRS]),
            "llvm.x86.avx512bf16.dpbf16ps.512",
        )
        zero = ir.Constant(_FLOAT_VECTOR, [0.0] * LANES)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(PRODUCT_VECTORS)] for _ in range(PRODUCT_ROWS)]
        rows = [add(x_at, mul(x_stride, intp(i))) for i in range(PRODUCT_ROWS)]
        with cgutils.for_range_slice(builder, intp(0), depth, intp(1), intp) as (c, _):
            first = add(w_at, mul(c, intp(PRODUCT_VECTORS * LANES)))
            weights = [
                builder.bitcast(right.load(add(first, intp(LANES * v))), _BF16_PAIRS) for v in range(PRODUCT_VECTORS)
            ]
            for i, row in enumerate(rows):
                factor = builder.bitcast(_broadcast(builder, builder.load(left.pointer(add(row, c)))), _BF16_PAIRS)
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
def pack_row(w: np.ndarray, at: int, row_size: int, tiles: np.ndarray, column: int) -> None:
    """Copy one encoder row ``w[at : at + row_size]`` into its column of a tile (row_size / 2 words, 64)."""
    for c in range(row_size // 2):
        tiles[column + c * 64] = _pack_pair(w[at + 2 * c], w[at + 2 * c + 1])


@nb.njit(**JIT)
def multiply_bfloat16(
    first: int, last: int, seen_rows: np.ndarray, rounded: np.ndarray, packed: np.ndarray, pre: np.ndarray
) -> None:
    """Encoder product of a block of rows; ``packed`` is (F / 64, C W / 2, 64) words, ``rounded`` scratch memory."""
    row_size, n, depth = seen_rows.shape[1], pre.shape[1], packed.shape[1]
    rows, words = seen_rows.reshape(-1), rounded.reshape(-1)
    for c in range(first * row_size, last * row_size, LANES):
        _store_bfloat16(words, c // 2, load(rows, c))
    for tile in range(len(packed)):
        for i in range(first, last, 4):
            _bfloat16_tile(words, i * depth, depth, packed, tile * depth * 64, depth, pre, i * n + tile * 64, n)


@nb.njit(**JIT)
def pack_encoder(E: np.ndarray, packed: np.ndarray) -> None:
    """Copy encoder rows (F padded, C W) into tiles (F / 64, C W / 2, 64) of words."""
    w, tiles, row_size = E.reshape(-1), packed.reshape(-1), E.shape[1]
    for f in range(len(E)):
        pack_row(w, f * row_size, row_size, tiles, (f // 64) * row_size * 32 + f % 64)
