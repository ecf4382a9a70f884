"""How are more p-values adjusted than fit in memory as float64? Benjamini-Hochberg over integer keys."""

from __future__ import annotations

import math
from threading import Lock

import numpy as np

from sparsesc._compiled import compiled

# A key is -log p in steps of 2e-7, so that 32 bits reach from p = 1 to the smallest double. Kept keys therefore give
# adjusted p-values to 2e-7 (relative), and bins of 2^s keys to 2^s times that, always on the conservative side.
_STEP = 746.0 / 2**32
_TOP = 2**32 - 1


@compiled
def _keys(log_p: np.ndarray, shift: int, out: np.ndarray) -> None:
    for i in range(len(log_p)):
        out[i] = np.uint32(min(-log_p[i] / _STEP, _TOP)) >> np.uint32(shift)


@compiled
def _count(keys: np.ndarray, counts: np.ndarray) -> None:
    for key in keys:
        counts[key] += 1


@compiled
def _walk_keys(pool: np.ndarray, wanted: np.ndarray, log_q: np.ndarray) -> None:
    """From the largest p (smallest key) to the smallest, with the running minimum of p * n / rank."""
    n = len(pool)
    best = 0.0
    i = 0
    for j in range(len(wanted)):
        while i < n and pool[i] <= wanted[j]:
            if i == 0 or pool[i] != pool[i - 1]:  # n - i tests have this p or a smaller one
                best = min(best, -_STEP * pool[i] - math.log((n - i) / n))
            i += 1
        log_q[j] = best


@compiled
def _walk_bins(counts: np.ndarray, shift: int, n: int, wanted: np.ndarray, log_q: np.ndarray) -> None:
    best = 0.0
    seen = 0
    i = 0
    for j in range(len(wanted)):
        while i < len(counts) and i <= wanted[j]:
            if counts[i] > 0:  # the largest p of a bin stands for all of it
                best = min(best, -_STEP * (i * 2.0**shift) - math.log((n - seen) / n))
                seen += counts[i]
            i += 1
        log_q[j] = best


class PValuePool:
    """Takes p-values block by block; afterwards adjusts any of them for all of them.

    Parameters
    ----------
    n_tests
        How many p-values will be added.
    max_bytes
        Memory to use. Four bytes a test are enough for adjusted p-values that are exact to 2e-7 (relative); with
        less, p-values are counted in bins, and adjusted p-values are too large by at most the width of a bin (see
        `resolution`).
    """

    def __init__(self, n_tests: int, *, max_bytes: float = math.inf) -> None:
        self.n_tests = n_tests
        self._lock = Lock()
        self._filled = 0
        self._shift = 0
        self._binned = 4 * n_tests > max_bytes
        if self._binned:
            while 2 ** (32 - self._shift) * 8 > max(max_bytes, 8 * 2**16):
                self._shift += 1
            self._counts = np.zeros(2 ** (32 - self._shift), np.int64)
        else:
            self._pool = np.empty(n_tests, np.uint32)

    @property
    def resolution(self) -> float:
        """Largest relative error of an adjusted p-value."""
        return math.expm1(_STEP * 2**self._shift)

    def add(self, log_p: np.ndarray) -> None:
        """Take natural logarithms of p-values; may be called from several threads."""
        log_p = np.ravel(log_p)
        keys = np.empty(len(log_p), np.uint32)
        _keys(log_p, self._shift, keys)
        with self._lock:
            start, self._filled = self._filled, self._filled + len(keys)
            if self._binned:
                _count(keys, self._counts)
        if not self._binned:
            self._pool[start : start + len(keys)] = keys

    def adjust(self, log_p: np.ndarray) -> np.ndarray:
        """Adjusted p-values of some of the tests that were added.

        Raises
        ------
        ValueError
            If fewer or more p-values were added than announced.
        """
        if self._filled != self.n_tests:
            msg = f"{self.n_tests} tests were announced, but {self._filled} p-values were added."
            raise ValueError(msg)
        if self.n_tests == 0:
            return np.ones(log_p.shape)
        wanted = np.empty(log_p.size, np.uint32)
        _keys(np.ravel(log_p), self._shift, wanted)
        order = np.argsort(wanted)
        log_q = np.empty(len(wanted))
        if self._binned:
            _walk_bins(self._counts, self._shift, self.n_tests, wanted[order], log_q)
        else:
            self._pool.sort()
            _walk_keys(self._pool, wanted[order], log_q)
        out = np.empty(len(wanted))
        out[order] = np.exp(log_q)
        return out.reshape(log_p.shape)
