"""How is any expression matrix read? As CSR blocks of rows, with the sums over all rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled

_BLOCK_BYTES = 64 * 2**20
_SKETCH = 2**20


@dataclass(frozen=True)
class ColumnTotals:
    """Sums over all rows, one value a column, float64; columns without spread are marked."""

    n: int
    total: np.ndarray
    squares: np.ndarray
    cubes: np.ndarray
    minimum: float
    maximum: float
    whole_numbers: bool

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean of every column."""
        return self.total / self.n

    @cached_property
    def variance(self) -> np.ndarray:
        """Population variance of every column, exactly 0 where all that is left is rounding."""
        second = self.squares / self.n
        variance = second - self.mean**2
        return np.where(variance > 1e-12 * second, variance, 0.0)

    @property
    def varies(self) -> np.ndarray:
        """Columns with more than one value."""
        return self.variance > 0

    @cached_property
    def skewness(self) -> np.ndarray:
        """Population skewness of every column (0 for constant columns)."""
        return skewness_of_sums(self.n, self.mean, self.squares, self.cubes)

    @property
    def inverse_sd(self) -> np.ndarray:
        """One over the standard deviation of every column (0 for constant columns)."""
        sd = np.sqrt(self.variance)
        return np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)


@compiled
def _add_totals(indices: np.ndarray, data: np.ndarray, sums: np.ndarray) -> None:
    for i in range(len(data)):
        v = np.float64(data[i])
        s = sums[indices[i]]
        s[0] += v
        s[1] += v * v
        s[2] += v * v * v


def skewness_of_sums(n: int, mean: np.ndarray, squares: np.ndarray, cubes: np.ndarray) -> np.ndarray:
    """Population skewness from the mean and the sums of squares and cubes; 0 without variance."""
    variance = squares / n - mean**2
    third = cubes / n - 3 * mean * squares / n + 2 * mean**3
    positive = variance > 1e-12 * np.maximum(squares / n, 1e-300)
    return np.divide(third, np.abs(variance) ** 1.5, out=np.zeros_like(mean), where=positive)


def column_totals(matrix: sparse.spmatrix) -> ColumnTotals:
    """Totals of a sparse matrix in memory."""
    return RowBlocks(matrix, cache_bytes=0).totals


class RowBlocks:
    """Row blocks of a matrix: CSR, CSC, dense, backed (h5py or zarr) or dask.

    A matrix that is not a CSR in memory is converted block by block; the blocks are kept for further passes when they
    fit in `cache_bytes`, otherwise each pass reads the matrix again.

    Parameters
    ----------
    matrix
        Rows x columns.
    cache_bytes
        Memory that converted blocks may take.
    name
        What errors call the matrix.
    """

    def __init__(self, matrix: Any, *, cache_bytes: float, name: str = "the matrix") -> None:
        if getattr(matrix, "format", None) == "csc":
            matrix = matrix if sparse.issparse(matrix) else matrix.to_memory()
        self._name = name
        self.shape: tuple[int, int] = tuple(matrix.shape)
        self._cache: list[tuple[int, sparse.csr_matrix]] | None = None
        if sparse.issparse(matrix):
            self._cache = [(0, _as_csr(matrix))]
        self._matrix = matrix
        self.totals = self._read_totals(cache_bytes)

    @property
    def in_memory(self) -> bool:
        """Whether a pass costs no reading."""
        return self._cache is not None

    def __iter__(self) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Pairs of the first row and the block."""
        if self._cache is not None:
            yield from self._cache
            return
        for start, stop in self._bounds():
            block = self._matrix[start:stop]
            yield start, _as_csr(block.compute() if hasattr(block, "compute") else block)

    def _bounds(self) -> Iterator[tuple[int, int]]:
        n_rows, n_columns = self.shape
        if hasattr(self._matrix, "dask"):  # whole chunks, so that nothing upstream is computed twice
            stops = np.cumsum(self._matrix.chunks[0])
            yield from zip(np.r_[0, stops[:-1]].tolist(), stops.tolist(), strict=True)
            return
        step = max(1, _BLOCK_BYTES // max(8 * n_columns, 1))
        for start in range(0, n_rows, step):
            yield start, min(start + step, n_rows)

    def _read_totals(self, cache_bytes: float) -> ColumnTotals:
        n_rows, n_columns = self.shape
        sums = np.zeros((n_columns, 3))
        low, high = np.inf, -np.inf
        n_stored = 0
        whole = True
        kept: list[tuple[int, sparse.csr_matrix]] | None = []
        for start, block in self:
            if not np.isfinite(block.data).all():
                bad = ~np.isfinite(block.data)
                columns = np.unique(block.indices[bad])
                msg = (
                    f"{self._name} holds {int(bad.sum())} NaN or infinite values in columns {columns[:5].tolist()} ... "
                    f"of the rows from {start} on. Remove or impute them first."
                )
                raise ValueError(msg)
            _add_totals(block.indices, block.data, sums)
            if block.nnz:
                low, high = min(low, float(block.data.min())), max(high, float(block.data.max()))
                sketch = block.data[: max(_SKETCH - n_stored, 0)]
                whole = whole and bool((sketch == np.floor(sketch)).all())
                n_stored += block.nnz
            if kept is not None and not self.in_memory:
                kept.append((start, block))
                cache_bytes -= block.data.nbytes + block.indices.nbytes + block.indptr.nbytes
                kept = kept if cache_bytes >= 0 else None
        if not self.in_memory:
            self._cache = kept
        if n_stored < n_rows * n_columns:  # there are zeros that are not stored
            low, high = min(low, 0.0), max(high, 0.0)
        total, squares, cubes = sums.T.copy()
        return ColumnTotals(n_rows, total, squares, cubes, low, high, whole)


def _as_csr(block: Any) -> sparse.csr_matrix:
    """CSR in float32 or float64 with int32 column indices and no repeated entries; nothing is copied without need."""
    if not sparse.issparse(block):
        block = np.asarray(block)
        if block.dtype == np.float16:  # unknown to scipy's sparse matrices
            block = block.astype(np.float32)
    csr = sparse.csr_matrix(block)
    dtype = csr.dtype if csr.dtype in (np.float32, np.float64) else np.float32 if csr.dtype.itemsize < 4 else np.float64
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    out = sparse.csr_matrix(csr.shape, dtype=dtype)
    out.data = csr.data.astype(dtype, copy=False)
    out.indices = csr.indices.astype(np.int32, copy=False)
    out.indptr = csr.indptr.astype(np.int64, copy=False)
    return out
