"""Which way to the encoder product is the fastest on this processor.

Decided by what the processor is, never by a stopwatch: the same machine must give the same bits.
"""

from __future__ import annotations

from functools import cache

NARROW = 64  # dimensions up to which the product is part of the compiled code on every machine


@cache
def _has(feature: str) -> bool:
    from llvmlite import binding

    return bool(binding.get_host_cpu_features().get(feature))


@cache
def _is_amd() -> bool:
    from llvmlite import binding

    return binding.get_host_cpu_name().startswith("znver")


def own_product(d: int) -> bool:
    """Whether the float32 product of ``d`` dimensions is part of the compiled code.

    For wide embeddings torch's library is faster, except where it spares AVX-512: on AMD its product takes two to three
    times as long as ours.
    """
    return d <= NARROW or (_is_amd() and _has("avx512f"))


def own_half_product() -> bool:
    """Whether the half-precision product is part of the compiled code: there are no tile units, which torch can use."""
    return _has("avx512bf16") and not _has("amx-bf16")


def half_product(d: int) -> bool:
    """Whether half precision is the faster product of ``d`` dimensions: there are instructions for it."""
    return d > NARROW and (_has("amx-bf16") or _has("avx512bf16"))
