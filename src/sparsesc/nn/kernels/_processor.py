"""The fastest way to compute the encoder product on this processor.

The choice depends on the processor, never on a measured time: the same machine must give the same bits.
"""

from __future__ import annotations

from functools import cache

from llvmlite import binding

NARROW = 64  # dimensions up to which the product is part of the compiled code on every machine


@cache
def _has(feature: str) -> bool:
    return bool(binding.get_host_cpu_features().get(feature))


@cache
def _is_amd() -> bool:
    return binding.get_host_cpu_name().startswith("znver")


def compiled_product(d: int) -> bool:
    """Whether the float32 product of ``d`` dimensions is part of the compiled code.

    For wide embeddings torch's library is faster, except where it does not use AVX-512: on AMD its product takes two to
    three times as long as the compiled one.
    """
    return d <= NARROW or (_is_amd() and _has("avx512f"))


def compiled_bfloat16_product() -> bool:
    """Whether the bfloat16 product is part of the compiled code: processors with tile units (AMX) leave it to torch."""
    return _has("avx512bf16") and not _has("amx-bf16")


def bfloat16_is_faster(d: int) -> bool:
    """Whether bfloat16 is the faster precision for ``d`` dimensions: the processor has instructions for it."""
    return d > NARROW and (_has("amx-bf16") or _has("avx512bf16"))
