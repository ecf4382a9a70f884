"""Distances between cells, block by block: the whole matrix of pairs is never held."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled

from ._order import with_data

_BLOCK_BYTES = 96 * 2**20
_DENSE_BYTES = 768 * 2**20
_FEWEST_SHARED = 5

CONSTANT, COLUMN_ORDER, RANDOM_ORDER = 0, 1, 2


class Distances(Protocol):
    """Distances between rows, for blocks of rows."""

    n_rows: int
    row_bytes: int
    """Bytes that a row takes while a block is computed."""

    def between(self, rows: slice, others: slice) -> np.ndarray:
        """Distances of a block, rows x others; NaN where there is no distance."""


class Euclidean:
    """Euclidean distances between dense rows (a map, principal components, an embedding)."""

    def __init__(self, coordinates: np.ndarray) -> None:
        points = np.asarray(coordinates, dtype=np.float64)
        self._points = points - points.mean(0)  # near the origin little is lost to cancellation
        self._squares = np.einsum("ij,ij->i", self._points, self._points)
        self.n_rows = len(points)
        self.row_bytes = points.itemsize * points.shape[1]

    def between(self, rows: slice, others: slice) -> np.ndarray:
        """Distances of a block."""
        squared = self._points[rows] @ self._points[others].T
        squared *= -2.0
        squared += self._squares[rows, None]
        squared += self._squares[None, others]
        return np.sqrt(np.maximum(squared, 0.0, out=squared), out=squared)


class RowCorrelation:
    """One minus Pearson's correlation of sparse rows; entries that are not stored need not be 0.

    With ranks in `values`, this is one minus Spearman's rho.

    Parameters
    ----------
    rows
        CSR, one value for each stored entry.
    fill
        Value of the first entry that is not stored, by row; ``None``: 0.
    zero_rule
        Values of the other entries of a row that are not stored: all `fill` (``CONSTANT``), or `fill` and the numbers
        after it, in the order of columns (``COLUMN_ORDER``) or in an order that depends on `seeds` (``RANDOM_ORDER``).
    seeds
        One number per row; only for ``RANDOM_ORDER``.
    """

    def __init__(
        self,
        rows: sparse.csr_matrix,
        *,
        fill: np.ndarray | None = None,
        zero_rule: int = CONSTANT,
        seeds: np.ndarray | None = None,
    ) -> None:
        self._rows = rows
        self.n_rows = rows.shape[0]
        self.row_bytes = 4 * rows.shape[1]
        self._fill = np.zeros(rows.shape[0]) if fill is None else np.asarray(fill, dtype=np.float64)
        self._rule = zero_rule
        self._seeds = np.zeros(rows.shape[0], np.uint64) if seeds is None else seeds.astype(np.uint64)
        whole = self.row_bytes * self.n_rows <= _DENSE_BYTES
        self._dense = self._fill_in(slice(0, self.n_rows)) if whole else None

    def standard_rows(self) -> np.ndarray:
        """All rows with mean 0 and length 1, dense float32."""
        return self._fill_in(slice(0, self.n_rows)) if self._dense is None else self._dense

    def _fill_in(self, rows: slice) -> np.ndarray:
        """Rows with mean 0 and length 1, float32; NaN where all values are equal."""
        start, stop, _ = rows.indices(self.n_rows)
        m = self._rows
        out = np.empty((stop - start, m.shape[1]), np.float32)
        _standard_rows(m.indptr, m.indices, m.data, self._fill, self._rule, self._seeds, start, out)
        return out

    def between(self, rows: slice, others: slice) -> np.ndarray:
        """Distances of a block."""
        left, right = (self._fill_in(part) if self._dense is None else self._dense[part] for part in (rows, others))
        r = left @ right.T
        return np.subtract(1.0, r, out=r)


class SharedCorrelation:
    """One minus Pearson's correlation over the entries that both rows store.

    Pairs that share fewer than five entries, or whose shared entries are constant in one of the rows, have no distance.
    """

    def __init__(self, rows: sparse.csr_matrix) -> None:
        self.n_rows, n_columns = rows.shape
        self.row_bytes = 3 * 4 * n_columns  # values, their squares and the mask
        self._values = with_data(rows, (rows.data / n_columns).astype(np.float32))

    def _dense(self, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values = self._values[rows].toarray()
        return values, values**2, (values > 0).astype(np.float32)  # ranks start at 1

    def between(self, rows: slice, others: slice) -> np.ndarray:
        """Distances of a block."""
        x, xx, here = self._dense(rows)
        y, yy, there = self._dense(others)
        n = (here @ there.T).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_x, mean_y = (x @ there.T) / n, (here @ y.T) / n
            variance_x = (xx @ there.T) / n - mean_x**2
            variance_y = (here @ yy.T) / n - mean_y**2
            r = ((x @ y.T) / n - mean_x * mean_y) / np.sqrt(variance_x * variance_y)
        enough = (n >= _FEWEST_SHARED) & (variance_x > 1e-9) & (variance_y > 1e-9)
        return np.where(enough, 1.0 - np.clip(r, -1.0, 1.0), np.nan)


@compiled
def _standard_rows(
    indptr: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    fill: np.ndarray,
    rule: int,
    seeds: np.ndarray,
    first: int,
    out: np.ndarray,
) -> None:
    n_columns = out.shape[1]
    row = np.empty(n_columns)
    for i in range(out.shape[0]):
        start, stop = indptr[first + i], indptr[first + i + 1]
        row[:] = np.nan if rule else fill[first + i]
        for j in range(start, stop):
            row[indices[j]] = values[j]
        if rule:
            n_zeros = n_columns - (stop - start)
            order = np.arange(n_zeros)
            if rule == 2:
                state = seeds[first + i]
                for j in range(n_zeros - 1, 0, -1):
                    state, drawn = _splitmix64(state)
                    other = np.int64(drawn % np.uint64(j + 1))
                    order[j], order[other] = order[other], order[j]
            at = 0
            for column in range(n_columns):
                if np.isnan(row[column]):
                    row[column] = fill[first + i] + order[at]
                    at += 1
        mean = row.mean()
        length = 0.0
        for column in range(n_columns):
            row[column] -= mean
            length += row[column] * row[column]
        length = np.sqrt(length) if length > 1e-12 * mean * mean * n_columns else np.nan
        for column in range(n_columns):
            out[i, column] = row[column] / length


@compiled
def _splitmix64(state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The next state and number of Steele's splitmix64: each row has its own stream, so blocks do not matter."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, z ^ (z >> np.uint64(31))


def _chunks(starts: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Runs of groups (first, last + 1): at least one group each, and at most `most` rows if there are several."""
    first = 0
    while first < len(starts) - 1:
        last = first + 1
        while last < len(starts) - 1 and starts[last + 1] - starts[first] <= most:
            last += 1
        yield first, last
        first = last


def group_medians(distances: Distances, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median distance within each group and between any two of them.

    Parameters
    ----------
    distances
        Of rows that are sorted by group.
    sizes
        Rows of each group.

    Returns
    -------
    Medians and numbers of pairs, groups x groups and symmetric. A row is never paired with itself; NaN where there is
    no pair.
    """
    starts = np.r_[0, np.cumsum(sizes)]
    n_groups = len(sizes)
    median = np.full((n_groups, n_groups), np.nan)
    n_pairs = np.zeros((n_groups, n_groups), np.int64)
    most = max(1, min(_BLOCK_BYTES // max(distances.row_bytes, 1), int(np.sqrt(_BLOCK_BYTES / 8))))
    chunks = list(_chunks(starts, most))
    for position, (a0, a1) in enumerate(chunks):
        for b0, b1 in chunks[position:]:
            block = distances.between(slice(starts[a0], starts[a1]), slice(starts[b0], starts[b1]))
            for a in range(a0, a1):
                rows = slice(starts[a] - starts[a0], starts[a + 1] - starts[a0])
                for b in range(max(a, b0), b1):
                    part = block[rows, starts[b] - starts[b0] : starts[b + 1] - starts[b0]]
                    values = part[np.triu_indices(len(part), 1)] if a == b else part.ravel()
                    values = values[np.isfinite(values)]
                    n_pairs[a, b] = n_pairs[b, a] = len(values)
                    if len(values):
                        median[a, b] = median[b, a] = np.median(values)
    return median, n_pairs


def nearest(distances: Distances, queries: np.ndarray, n_neighbors: int) -> np.ndarray:
    """The nearest other rows of some rows.

    Parameters
    ----------
    distances
        Of all rows.
    queries
        Positions of the rows to find neighbors of, ascending.
    n_neighbors
        How many.

    Returns
    -------
    Positions, queries x neighbors, in no particular order within a row; -1 where there is no distance.
    """
    out = np.empty((len(queries), n_neighbors), np.int64)
    n = distances.n_rows
    step = max(1, _BLOCK_BYTES // (8 * n))
    # whole runs of rows: blocks are slices
    breaks = np.r_[0, np.flatnonzero(np.diff(queries) != 1) + 1, len(queries)]
    for run_start, run_stop in pairwise(breaks.tolist()):
        for start in range(run_start, run_stop, step):
            stop = min(start + step, run_stop)
            rows = queries[start:stop]
            block = _against_all(distances, slice(int(rows[0]), int(rows[-1]) + 1))
            block[np.arange(len(rows)), rows] = np.inf
            np.nan_to_num(block, copy=False, nan=np.inf, posinf=np.inf)
            closest = np.argpartition(block, n_neighbors - 1, axis=1)[:, :n_neighbors]
            usable = np.isfinite(np.take_along_axis(block, closest, axis=1))
            out[start:stop] = np.where(usable, closest, -1)
    return out


def _against_all(distances: Distances, rows: slice) -> np.ndarray:
    n = distances.n_rows
    step = max(1, _BLOCK_BYTES // max(distances.row_bytes, 1))
    return np.concatenate(
        [distances.between(rows, slice(start, min(start + step, n))) for start in range(0, n, step)], axis=1
    )
