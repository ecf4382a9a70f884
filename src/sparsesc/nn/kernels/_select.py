"""Which features are active: exact selection of the largest pre-activations without a sort.

``topk`` first takes the maxima of groups of features, in registers. The k-th largest maximum is a lower bound of the
k-th largest value, so one pass that keeps what reaches a bound near it leaves little more than k entries. Bounds are
found by halving an interval and counting, which costs a few registers a time, not by partial sorts. ``batchtopk`` needs
one pass a row with a guess from the step before, and one limit for the whole batch, found the same way.

Rows are padded to a multiple of sixteen features; the padding's bias is :data:`NEVER`. Active entries are positive.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from ._simd import LANES, count_from, keep_from, larger, load, spread, store
from ._threads import JIT

NEVER = -1e30  # bias of features that do not exist
SMALLEST = 1e-37  # the smallest activation: anything below counts as not positive
_HEIGHT = 16  # members of a group at most: long enough that few groups matter
_GROUPS_PER_ACTIVE = 4
_HALVINGS = 100  # float64 needs about 60 to end at neighbours


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
    """A value that at least k entries of the row reach, and few more; the smallest positive one if there are fewer."""
    height = group_height(n, k)
    groups = 0
    highest = spread(pre.dtype.type(SMALLEST))
    for first in range(0, n, LANES * height):
        best = load(pre, at + first) + load(bias, first)
        for j in range(first + LANES, min(first + LANES * height, n), LANES):
            best = larger(best, load(pre, at + j) + load(bias, j))
        store(maxima, groups, best)
        highest = larger(highest, best)
        groups += LANES
    low = pre.dtype.type(SMALLEST)
    if count_from(maxima, groups, low) <= k:
        return low
    store(maxima, groups, highest)
    high = low
    for j in range(groups, groups + LANES):
        high = max(high, maxima[j])
    for _ in range(_HALVINGS):
        middle = (low + high) * pre.dtype.type(0.5)
        if middle <= low or middle >= high:
            break
        found = count_from(maxima, groups, middle)
        if found >= k:
            low = middle
            if found <= k + k // 4:
                break
        else:
            high = middle
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
    to: int,
) -> int:
    """Write the k largest positive entries of ``pre[at : at + n] + bias`` to ``index[to:]``, ``value[to:]``.

    Ascending features; returns where the next entry goes. Among equal values at the limit the first features are kept.
    ``maxima`` is scratch of at least ``n + 16``; the outputs need room for ``n + 16`` entries.
    """
    bound = _bound_of_groups(pre, at, bias, n, k, maxima)
    end = keep_from(pre, at, bias, n, bound, index, value, to)
    found = end - to
    if found <= k:
        return end
    # The exact limit: what k of the candidates reach.
    width = -(-found // LANES) * LANES
    high = bound
    for j in range(found):
        maxima[j] = value[to + j]
        high = max(high, maxima[j])
    for j in range(found, width):
        maxima[j] = pre.dtype.type(NEVER)
    low, limit, exact = bound, bound, False
    for _ in range(_HALVINGS):
        limit = (low + high) * pre.dtype.type(0.5)
        if limit <= low or limit >= high:
            break
        reached = count_from(maxima, width, limit)
        if reached == k:
            exact = True
            break
        if reached > k:
            low = limit
        else:
            high = limit
    kept = to
    if exact:
        for j in range(to, end):
            v, f = value[j], index[j]
            value[kept] = v
            index[kept] = f
            kept += v >= limit
        return kept
    limit = kth_largest(maxima, found, k)
    ties = k
    for j in range(to, end):
        ties -= value[j] > limit
    for j in range(to, end):
        v = value[j]
        if v > limit or (v == limit and ties > 0):
            ties -= v == limit
            value[kept] = v
            index[kept] = index[j]
            kept += 1
    return kept


@nb.njit(**JIT)
def _reached(value: np.ndarray, start: np.ndarray, stop: np.ndarray, limit: float) -> int:
    found = 0
    for block in range(len(start)):
        found += count_from(value[start[block] :], stop[block] - start[block], limit)
    return found


@nb.njit(**JIT)
def batch_limit(value: np.ndarray, start: np.ndarray, stop: np.ndarray, bound: float, total: int) -> float:
    """The largest limit that ``total`` candidates reach; all of them are at least ``bound`` and there are enough.

    Candidates lie in stretches ``start`` to ``stop``, padded to whole registers with :data:`NEVER`. Entries equal to
    the limit are all kept, so that more than ``total`` can reach it.
    """
    high = bound
    for block in range(len(start)):
        for j in range(start[block], stop[block]):
            high = max(high, value[j])
    low = bound
    for _ in range(_HALVINGS):
        middle = (low + high) * value.dtype.type(0.5)
        if middle <= low or middle >= high:
            break
        found = _reached(value, start, stop, middle)
        if found == total:
            return middle
        if found > total:
            low = middle
        else:
            high = middle
    # Neighbouring numbers: only the upper end is left to decide.
    return high if _reached(value, start, stop, high) >= total else low
