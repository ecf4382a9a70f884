"""Compiled code on all threads, or on one: the same bits either way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FunctionType
from typing import Any

import numba as nb

JIT: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "fastmath": {"nnan", "nsz", "contract"},  # no "reassoc": every sum keeps the order of the source
    "error_model": "numpy",
}
MAX_PARTS = 64

_one_thread: ContextVar[bool] = ContextVar("one_thread", default=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep compiled code on the calling thread, for many trainings in parallel with one thread each."""
    before = _one_thread.set(True)
    try:
        yield
    finally:
        _one_thread.reset(before)


def n_parts() -> int:
    """Number of parts that work is split into: a power of two, at least one for each thread."""
    return 1 if _one_thread.get() else min(MAX_PARTS, 1 << (nb.get_num_threads() - 1).bit_length())


def on_threads(function: Any) -> Callable[..., Any]:
    """Compile a function with parallel loops twice: for all threads, and for one (see :func:`one_thread`)."""
    # Compiled code is cached on disk by name, so the second version needs a different name.
    name = f"{function.__name__}_serial"
    copy = FunctionType(function.__code__, function.__globals__, name)
    copy.__qualname__, copy.__module__ = name, function.__module__
    parallel, serial = nb.njit(parallel=True, **JIT)(function), nb.njit(**JIT)(copy)

    def call(*args: Any) -> Any:
        return (serial if _one_thread.get() else parallel)(*args)

    return call
