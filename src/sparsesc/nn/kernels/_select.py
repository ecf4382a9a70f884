"""Which features are active: exact selection of the largest pre-activations without a sort.

Both rules start from one vectorised pass over a row that keeps, for groups of features a fixed stride apart, the
largest value of each group. Only groups whose maximum can matter are looked into. For ``topk`` the k-th largest group
maximum is a lower bound of the k-th largest value, so the bound is exact; for ``batchtopk`` the bound is a guess from
the step before, which the caller lowers when too little came out.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

JIT: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "fastmath": {"nnan", "nsz", "contract", "reassoc"},
    "error_model": "numpy",
}
PARALLEL: dict[str, Any] = {**JIT, "parallel": True}

_STRIDES = 16  # members of a group: long enough that few groups matter, short enough to look into one by one
_GROUPS_PER_ACTIVE = 4


@nb.njit(**JIT)
def kth_largest(values: np.ndarray, n: int, k: int) -> float:
    """The k-th largest of ``values[:n]`` (reorders them); quickselect with median-of-three pivots."""
    low, high, target = 0, n - 1, k - 1
    while low < high:
        a, b, c = values[low], values[(low + high) // 2], values[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return values[target]


@nb.njit(**JIT)
def n_groups(n_features: int, k: int) -> int:
    """How many group maxima a row of this width gets."""
    strides = max(1, min(_STRIDES, n_features // (_GROUPS_PER_ACTIVE * max(k, 1))))
    return -(-n_features // strides)


@nb.njit(**JIT)
def _group_maxima(row: np.ndarray, bias: np.ndarray, maxima: np.ndarray) -> None:
    n_features, groups = len(row), len(maxima)
    for c in range(groups):
        maxima[c] = row[c] + bias[c]
    start = groups
    while start < n_features:
        stop = min(groups, n_features - start)
        part, shift = row[start : start + stop], bias[start : start + stop]
        for c in range(stop):
            value = part[c] + shift[c]
            maxima[c] = value if value > maxima[c] else maxima[c]
        start += groups


@nb.njit(**JIT)
def _collect(
    row: np.ndarray, bias: np.ndarray, maxima: np.ndarray, bound: float, index: np.ndarray, value: np.ndarray
) -> int:
    """Positive entries of at least ``bound``, from the groups that hold any; returns their number."""
    n_features, groups, n = len(row), len(maxima), 0
    for c in range(groups):
        if maxima[c] >= bound and maxima[c] > 0:
            for j in range(c, n_features, groups):
                v = row[j] + bias[j]
                if v >= bound and v > 0:
                    index[n] = j
                    value[n] = v
                    n += 1
    return n


@nb.njit(**JIT)
def sort_by_index(index: np.ndarray, value: np.ndarray, n: int) -> None:
    """Bring the first ``n`` entries into ascending feature order (insertion: they are few)."""
    for i in range(1, n):
        j, v = index[i], value[i]
        at = i - 1
        while at >= 0 and index[at] > j:
            index[at + 1] = index[at]
            value[at + 1] = value[at]
            at -= 1
        index[at + 1] = j
        value[at + 1] = v


@nb.njit(**JIT)
def top_k_row(
    row: np.ndarray,
    bias: np.ndarray,
    k: int,
    index: np.ndarray,
    value: np.ndarray,
    maxima: np.ndarray,
    work: np.ndarray,
) -> int:
    """The k largest positive entries of ``row + bias`` in ascending feature order; returns how many there are.

    ``index``, ``value`` and ``work`` hold one entry a feature, ``maxima`` :func:`n_groups`. Among equal values at the
    limit the ones with the smallest feature numbers are kept.
    """
    groups = len(maxima)
    _group_maxima(row, bias, maxima)
    bound = row.dtype.type(0)
    if groups > k:
        for c in range(groups):
            work[c] = maxima[c]
        bound = kth_largest(work, groups, k)
    n = _collect(row, bias, maxima, bound, index, value)
    sort_by_index(index, value, n)
    if n > k:
        for c in range(n):
            work[c] = value[c]
        limit = kth_largest(work, n, k)
        above = 0
        for c in range(n):
            above += value[c] > limit
        ties, kept = k - above, 0
        for c in range(n):
            if value[c] > limit or (value[c] == limit and ties > 0):
                ties -= value[c] == limit
                index[kept] = index[c]
                value[kept] = value[c]
                kept += 1
        n = kept
    return n


@nb.njit(**PARALLEL)
def select_top_k(
    pre: np.ndarray,
    bias: np.ndarray,
    k: int,
    index: np.ndarray,
    value: np.ndarray,
    count: np.ndarray,
    maxima: np.ndarray,
    work: np.ndarray,
) -> None:
    """:func:`top_k_row` for every row of ``pre``; ``maxima`` and ``work`` have one row per block of rows."""
    n_rows, n_blocks = len(pre), len(maxima)
    for block in nb.prange(n_blocks):
        for i in range(block * n_rows // n_blocks, (block + 1) * n_rows // n_blocks):
            count[i] = top_k_row(pre[i], bias, k, index[i], value[i], maxima[block], work[block])


@nb.njit(**PARALLEL)
def _candidates(
    pre: np.ndarray,
    bias: np.ndarray,
    bound: float,
    index: np.ndarray,
    value: np.ndarray,
    count: np.ndarray,
    maxima: np.ndarray,
) -> None:
    n_rows, n_blocks = len(pre), len(maxima)
    for block in nb.prange(n_blocks):
        for i in range(block * n_rows // n_blocks, (block + 1) * n_rows // n_blocks):
            _group_maxima(pre[i], bias, maxima[block])
            count[i] = _collect(pre[i], bias, maxima[block], bound, index[i], value[i])


@nb.njit(**PARALLEL)
def _keep_from(limit: float, index: np.ndarray, value: np.ndarray, count: np.ndarray, n_blocks: int) -> None:
    n_rows = len(count)
    for block in nb.prange(n_blocks):
        for i in range(block * n_rows // n_blocks, (block + 1) * n_rows // n_blocks):
            kept = 0
            for c in range(count[i]):
                if value[i, c] >= limit:
                    index[i, kept] = index[i, c]
                    value[i, kept] = value[i, c]
                    kept += 1
            sort_by_index(index[i], value[i], kept)
            count[i] = kept


@nb.njit(**JIT)
def kth_largest_of_rows(value: np.ndarray, count: np.ndarray, bound: float, k: int) -> float:
    """The k-th largest over all rows' first ``count`` entries, all at least ``bound``: histogram, then one bin."""
    bins = 4096
    top = bound
    for i in range(len(count)):
        for c in range(count[i]):
            top = max(top, value[i, c])
    if top <= bound:
        return bound
    scale = bins / (top - bound)
    histogram = np.zeros(bins + 1, np.int64)
    for i in range(len(count)):
        for c in range(count[i]):
            histogram[min(bins - 1, int((value[i, c] - bound) * scale))] += 1
    seen, at = 0, bins - 1
    while seen + histogram[at] < k:
        seen += histogram[at]
        at -= 1
    inside = np.empty(histogram[at], value.dtype)
    n = 0
    for i in range(len(count)):
        for c in range(count[i]):
            if min(bins - 1, int((value[i, c] - bound) * scale)) == at:
                inside[n] = value[i, c]
                n += 1
    return kth_largest(inside, n, k - seen)


@nb.njit(**JIT)
def select_batch_top_k(
    pre: np.ndarray,
    bias: np.ndarray,
    total: int,
    guess: float,
    index: np.ndarray,
    value: np.ndarray,
    count: np.ndarray,
    maxima: np.ndarray,
) -> float:
    """The ``total`` largest positive entries of the whole batch; returns the smallest value that was kept.

    ``guess`` is a value that is probably below the limit (the last step's limit, lowered): a poor guess costs a second
    pass and never changes the result. Entries equal to the limit are all kept.
    """
    bound = max(guess, pre.dtype.type(0))
    _candidates(pre, bias, bound, index, value, count, maxima)
    found = count.sum()
    while found < total and bound > 0:
        bound = bound * pre.dtype.type(0.5) if bound > 1e-3 else pre.dtype.type(0)
        _candidates(pre, bias, bound, index, value, count, maxima)
        found = count.sum()
    limit = bound
    if found > total:
        limit = kth_largest_of_rows(value, count, bound, total)
    _keep_from(limit, index, value, count, len(maxima))
    return limit
