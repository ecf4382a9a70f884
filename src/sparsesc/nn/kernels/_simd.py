"""Vector registers as a numba type: operations on sixteen numbers at once, in compiled code.

Sparse codes need loops over short rows most, and compilers vectorize these worst: a compiler cannot know that two
arrays do not overlap, so it checks, on every row. Here the operations are explicit: ``load`` takes sixteen adjacent
numbers of a flat array, arithmetic works on all of them, ``store`` writes them back. Arrays must be C-contiguous and
long enough; nothing is checked. Machines with narrower registers run the same code in several instructions.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types
from numba.core.datamodel import PrimitiveModel
from numba.extending import lower_builtin, register_model, type_callable

LANES = 16  # numbers in one vector

intrinsic: Any = extending.intrinsic  # typed as Any: the generated code takes other arguments than its generator

_I32 = ir.IntType(32)
_FAST = ("nnan", "nsz", "contract")


class Vector(types.Type):
    """Sixteen float32 or float64."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype})")


@register_model(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        element = ir.FloatType() if fe_type.dtype == types.float32 else ir.DoubleType()
        super().__init__(dmm, fe_type, ir.VectorType(element, LANES))


class _ArrayData:
    """The elements of an array inside generated code."""

    def __init__(self, context: Any, builder: Any, typ: types.Array, value: Any) -> None:
        self.builder = builder
        self.start = cgutils.create_struct_proxy(typ)(context, builder, value).data
        self.element = context.get_data_type(typ.dtype)
        self.align = context.get_abi_sizeof(self.element)
        self.vector = ir.VectorType(self.element, LANES)

    def pointer(self, index: Any) -> Any:
        return self.builder.gep(self.start, [index])

    def _vector_pointer(self, index: Any) -> Any:
        return self.builder.bitcast(self.pointer(index), self.vector.as_pointer())

    def load(self, index: Any) -> Any:
        value = self.builder.load(self._vector_pointer(index))
        value.align = self.align
        return value

    def store(self, value: Any, index: Any) -> None:
        self.builder.store(value, self._vector_pointer(index)).align = self.align


def _broadcast(builder: Any, value: Any) -> Any:
    vector = ir.VectorType(value.type, LANES)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _horizontal_sum(builder: Any, value: Any, add: Any) -> Any:
    """Sum of a vector, pairwise from half to half: always in the same order."""
    width = LANES
    while width > 1:
        half = width // 2
        low, high = (ir.Constant(ir.VectorType(_I32, half), list(range(s, s + half))) for s in (0, half))
        value = add(builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high))
        width = half
    return builder.extract_element(value, _I32(0))


@intrinsic
def load(typingctx: Any, array: Any, at: Any) -> Any:
    """Elements ``at`` to ``at + 15`` of a flat or C-contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _ArrayData(context, builder, signature.args[0], args[0]).load(args[1])

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def store(typingctx: Any, array: Any, at: Any, vector: Any) -> Any:
    """Write elements ``at`` to ``at + 15``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _ArrayData(context, builder, signature.args[0], args[0]).store(args[2], args[1])
        return context.get_dummy_value()

    return types.void(array, types.intp, Vector(array.dtype)), generate


@intrinsic
def broadcast(typingctx: Any, value: Any) -> Any:
    """A vector of the same number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _broadcast(builder, args[0])

    return Vector(value)(value), generate


@intrinsic
def horizontal_sum(typingctx: Any, vector: Any) -> Any:
    """Sum of the sixteen numbers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _horizontal_sum(builder, args[0], lambda a, b: builder.fadd(a, b, flags=_FAST))

    return vector.dtype(vector), generate


@intrinsic
def square_root(typingctx: Any, vector: Any) -> Any:
    """Square root of each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector_type = args[0].type
        name = f"llvm.sqrt.v{LANES}{'f32' if vector.dtype == types.float32 else 'f64'}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector_type, [vector_type]), name)
        return builder.call(function, [args[0]])

    return vector(vector), generate


@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger number in each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1], flags=_FAST), args[0], args[1])

    return a(a, b), generate


def _arithmetic(symbol: Any, method: str) -> None:
    @type_callable(symbol)
    def type_it(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            return a if isinstance(a, Vector) and a == b else None

        return typer

    @lower_builtin(symbol, Vector, Vector)
    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, method)(args[0], args[1], flags=_FAST)


for _symbol, _method in (
    (operator.add, "fadd"), (operator.iadd, "fadd"), (operator.sub, "fsub"), (operator.isub, "fsub"),
    (operator.mul, "fmul"), (operator.imul, "fmul"), (operator.truediv, "fdiv"), (operator.itruediv, "fdiv"),
):  # fmt: skip
    _arithmetic(_symbol, _method)


@intrinsic
def count_at_least(typingctx: Any, values: Any, n: Any, bound: Any) -> Any:
    """How many of ``values[:n]`` are at least ``bound``; ``n`` a multiple of sixteen."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data, n, intp = _ArrayData(context, builder, signature.args[0], args[0]), args[1], args[1].type
        counts = ir.VectorType(_I32, LANES)
        count = cgutils.alloca_once_value(builder, ir.Constant(counts, [0] * LANES))
        limit = _broadcast(builder, args[2])
        with cgutils.for_range_slice(builder, intp(0), n, intp(LANES), intp) as (at, _):
            hit = builder.fcmp_ordered(">=", data.load(at), limit)
            builder.store(builder.sub(builder.load(count), builder.sext(hit, counts)), count)
        return builder.zext(_horizontal_sum(builder, builder.load(count), builder.add), intp)

    return types.intp(values, types.intp, values.dtype), generate


def _make_keep(*, by_feature: bool) -> Any:
    """Build the loop that keeps entries at or above a limit: one for all features, or one for each."""

    def typed(
        typingctx: Any, row: Any, at: Any, bias: Any, n: Any, limit: Any, index: Any, value: Any, out_at: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            t, intp = signature.args, args[3].type
            data, shift = _ArrayData(context, builder, t[0], args[0]), _ArrayData(context, builder, t[2], args[2])
            indices, values = _ArrayData(context, builder, t[5], args[5]), _ArrayData(context, builder, t[6], args[6])
            limits = _ArrayData(context, builder, t[4], args[4]) if by_feature else None
            one_limit = None if by_feature else _broadcast(builder, args[4])
            position = cgutils.alloca_once_value(builder, args[7])
            mask = ir.VectorType(ir.IntType(1), LANES)

            def compress_store(target: _ArrayData, suffix: str) -> Any:
                kind = ir.FunctionType(ir.VoidType(), [target.vector, target.element.as_pointer(), mask])
                name = f"llvm.masked.compressstore.v{LANES}{suffix}"
                return cgutils.get_or_insert_function(builder.module, kind, name)

            keep_value = compress_store(values, "f32" if isinstance(values.element, ir.FloatType) else "f64")
            keep_index = compress_store(indices, "i32")
            steps = ir.Constant(ir.VectorType(_I32, LANES), list(range(LANES)))
            with cgutils.for_range_slice(builder, intp(0), args[3], intp(LANES), intp) as (j, _):
                v = builder.fadd(data.load(builder.add(args[1], j)), shift.load(j), flags=_FAST)
                hit = builder.fcmp_ordered(">=", v, one_limit if limits is None else limits.load(j))
                bits = builder.bitcast(hit, ir.IntType(LANES))
                with builder.if_then(builder.icmp_unsigned("!=", bits, bits.type(0)), likely=False):
                    offset = builder.load(position)
                    builder.call(keep_value, [v, values.pointer(offset), hit])
                    features = builder.add(_broadcast(builder, builder.trunc(j, _I32)), steps)
                    builder.call(keep_index, [features, indices.pointer(offset), hit])
                    builder.store(builder.add(offset, builder.zext(builder.ctpop(bits), intp)), position)
            return builder.load(position)

        one = types.intp
        return one(row, one, bias, one, limit if by_feature else row.dtype, index, value, one), generate

    typed.__doc__ = """Keep entries j < ``n`` with ``row[at + j] + bias[j]`` at or above the limit, in ascending order.

    Written to ``index[out_at:]`` (int32) and ``value[out_at:]``; returns where the next entry goes.
    """
    return intrinsic(typed)


keep_at_least = _make_keep(by_feature=False)
keep_at_least_each = _make_keep(by_feature=True)

PRODUCT_ROWS, PRODUCT_VECTORS = 4, 4  # of a tile held in registers: 16 sums, 4 weights, room for the factors


@intrinsic
def product_tile(
    typingctx: Any, x: Any, x_at: Any, x_stride: Any, w: Any, w_at: Any, depth: Any, out: Any, out_at: Any, stride: Any
) -> Any:
    """``out`` (4 rows, 64 columns) = ``x`` (4 rows, depth) @ ``w`` (depth, 64); w contiguous, rows strided."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        t = signature.args
        left, right = _ArrayData(context, builder, t[0], args[0]), _ArrayData(context, builder, t[3], args[3])
        result = _ArrayData(context, builder, t[6], args[6])
        x_at, x_stride, w_at, depth, out_at, stride = args[1], args[2], args[4], args[5], args[7], args[8]
        intp, add, mul = depth.type, builder.add, builder.mul
        zero = ir.Constant(right.vector, [0.0] * LANES)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(PRODUCT_VECTORS)] for _ in range(PRODUCT_ROWS)]
        rows = [add(x_at, mul(x_stride, intp(i))) for i in range(PRODUCT_ROWS)]
        with cgutils.for_range_slice(builder, intp(0), depth, intp(1), intp) as (c, _):
            first = add(w_at, mul(c, intp(PRODUCT_VECTORS * LANES)))
            weights = [right.load(add(first, intp(LANES * v))) for v in range(PRODUCT_VECTORS)]
            for i, row in enumerate(rows):
                factor = _broadcast(builder, builder.load(left.pointer(add(row, c))))
                for v, weight in enumerate(weights):
                    term = builder.fmul(factor, weight, flags=_FAST)
                    builder.store(builder.fadd(builder.load(sums[i][v]), term, flags=_FAST), sums[i][v])
        for i in range(PRODUCT_ROWS):
            for v in range(PRODUCT_VECTORS):
                at = add(add(out_at, mul(stride, intp(i))), intp(LANES * v))
                result.store(builder.load(sums[i][v]), at)
        return context.get_dummy_value()

    one = types.intp
    return types.void(x, one, one, w, one, one, out, one, one), generate
