"""Which features are active: exact selection of the largest pre-activations without a sort.

``topk`` first takes the maxima of groups of features, in registers. The k-th largest maximum is a lower bound of the
k-th largest value, so one pass that keeps all entries at or above a bound near it leaves few more than k. Bisection
finds the bounds by counting, which costs a few registers each time; there are no partial sorts. ``batchtopk`` needs one
pass a row, with a guess from the previous step, and one limit for the whole batch, by the same bisection.

Rows are padded to a multiple of sixteen features; the padding's bias is :data:`NEVER`. Active entries are positive.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from ._simd import LANES, broadcast, count_at_least, keep_at_least, load, maximum, store
from ._threads import JIT

NEVER = -1e30  # bias of features that do not exist
SMALLEST = 1e-37  # the smallest activation: anything below counts as not positive
_HEIGHT = 16  # members of a group at most
_GROUPS_PER_ACTIVE = 4
_HALVINGS = 100  # float64 needs about 60 to end at neighboring numbers


def padded(n_features: int) -> int:
    """Length of a row of this many features in memory: whole tiles of four registers."""
    return -(-n_features // (4 * LANES)) * 4 * LANES


@nb.njit(**JIT)
def group_height(n: int, k: int) -> int:
    """Members of a group in a padded row of ``n`` entries."""
    return max(1, min(_HEIGHT, n // (_GROUPS_PER_ACTIVE * max(k, 1))))


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
def _bound_of_groups(pre: np.ndarray, at: int, bias: np.ndarray, n: int, k: int, maxima: np.ndarray) -> float:
    """A bound with at least k entries of the row at or above it, and few more; the smallest positive one otherwise."""
    height = group_height(n, k)
    groups = 0
    highest = broadcast(pre.dtype.type(SMALLEST))
    for first in range(0, n, LANES * height):
        best = load(pre, at + first) + load(bias, first)
        for j in range(first + LANES, min(first + LANES * height, n), LANES):
            best = maximum(best, load(pre, at + j) + load(bias, j))
        store(maxima, groups, best)
        highest = maximum(highest, best)
        groups += LANES
    low = pre.dtype.type(SMALLEST)
    if count_at_least(maxima, groups, low) <= k:
        return low
    store(maxima, groups, highest)
    high = low
    for j in range(groups, groups + LANES):
        high = max(high, maxima[j])
    for _ in range(_HALVINGS):
        midpoint = (low + high) * pre.dtype.type(0.5)
        if midpoint <= low or midpoint >= high:
            break
        n_reached = count_at_least(maxima, groups, midpoint)
        if n_reached >= k:
            low = midpoint
            if n_reached <= k + k // 4:
                break
        else:
            high = midpoint
    return low


@nb.njit(**JIT)
def top_k_of_row(
    pre: np.ndarray,
    at: int,
    bias: np.ndarray,
    n: int,
    k: int,
    maxima: np.ndarray,
    index: np.ndarray,
    value: np.ndarray,
    out_at: int,
) -> int:
    """Write the k largest positive entries of ``pre[at : at + n] + bias`` to ``index[out_at:]``, ``value[out_at:]``.

    Ascending features; returns where the next entry goes. Among equal values at the limit the first features are kept.
    ``maxima`` is scratch of at least ``n + 16``; the outputs need room for ``n + 16`` entries.
    """
    bound = _bound_of_groups(pre, at, bias, n, k, maxima)
    end = keep_at_least(pre, at, bias, n, bound, index, value, out_at)
    n_candidates = end - out_at
    if n_candidates <= k:
        return end
    # The exact limit: k of the candidates are at or above it.
    width = -(-n_candidates // LANES) * LANES
    high = bound
    for j in range(n_candidates):
        maxima[j] = value[out_at + j]
        high = max(high, maxima[j])
    for j in range(n_candidates, width):
        maxima[j] = pre.dtype.type(NEVER)
    low, limit, exact = bound, bound, False
    for _ in range(_HALVINGS):
        limit = (low + high) * pre.dtype.type(0.5)
        if limit <= low or limit >= high:
            break
        n_reached = count_at_least(maxima, width, limit)
        if n_reached == k:
            exact = True
            break
        if n_reached > k:
            low = limit
        else:
            high = limit
    kept = out_at
    if exact:
        for j in range(out_at, end):
            v, f = value[j], index[j]
            value[kept] = v
            index[kept] = f
            kept += v >= limit
        return kept
    limit = kth_largest(maxima, n_candidates, k)
    ties = k
    for j in range(out_at, end):
        ties -= value[j] > limit
    for j in range(out_at, end):
        v = value[j]
        if v > limit or (v == limit and ties > 0):
            ties -= v == limit
            value[kept] = v
            index[kept] = index[j]
            kept += 1
    return kept


@nb.njit(**JIT)
def _count_in_segments(value: np.ndarray, start: np.ndarray, stop: np.ndarray, limit: float) -> int:
    count = 0
    for block in range(len(start)):
        count += count_at_least(value[start[block] :], stop[block] - start[block], limit)
    return count


@nb.njit(**JIT)
def batch_limit(value: np.ndarray, start: np.ndarray, stop: np.ndarray, bound: float, total: int) -> float:
    """The largest limit that ``total`` candidates reach; there are at least so many, none of them below ``bound``.

    Candidates lie in segments ``start`` to ``stop``, padded to whole registers with :data:`NEVER`. Entries equal to
    the limit are all kept, so more than ``total`` can reach it.
    """
    high = bound
    for block in range(len(start)):
        for j in range(start[block], stop[block]):
            high = max(high, value[j])
    low = bound
    for _ in range(_HALVINGS):
        midpoint = (low + high) * value.dtype.type(0.5)
        if midpoint <= low or midpoint >= high:
            break
        n_reached = _count_in_segments(value, start, stop, midpoint)
        if n_reached == total:
            return midpoint
        if n_reached > total:
            low = midpoint
        else:
            high = midpoint
    # The interval ends at neighboring numbers: only its upper end is left to check.
    return high if _count_in_segments(value, start, stop, high) >= total else low
