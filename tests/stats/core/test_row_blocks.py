from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from sparsesc.stats.core import _row_blocks
from sparsesc.stats.core._row_blocks import RowBlocks


@pytest.fixture
def dense():
    rng = np.random.default_rng(0)
    return (rng.gamma(2, size=(60, 11)) * (rng.random((60, 11)) < 0.4)).astype(np.float32)


def as_dask(dense):
    array = pytest.importorskip("dask.array")
    return array.from_array(dense, chunks=(17, 5))


def as_sparse_dask(dense):
    return as_dask(dense).rechunk((17, -1)).map_blocks(sparse.csr_matrix)


MAKERS = {
    "csr": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc": sparse.csc_matrix,
    "dense": lambda x: x,
    "fortran": np.asfortranarray,
    "float64": lambda x: x.astype(np.float64),
    "dask": as_dask,
    "sparse dask": as_sparse_dask,
}


@pytest.mark.parametrize("cache", [0, 1e9])
@pytest.mark.parametrize("kind", MAKERS)
def test_blocks_and_totals_are_the_same_for_all_kinds(dense, kind, cache, monkeypatch):
    monkeypatch.setattr(_row_blocks, "_BLOCK_BYTES", 2000)  # several blocks of rows
    blocks = RowBlocks(MAKERS[kind](dense), cache_bytes=cache)
    for _ in range(2):
        parts = list(blocks)
        np.testing.assert_array_equal(np.vstack([block.toarray() for _, block in parts]), dense)
        starts = np.cumsum([0] + [block.shape[0] for _, block in parts[:-1]])
        assert [start for start, _ in parts] == starts.tolist()
    totals = blocks.totals
    np.testing.assert_allclose(totals.mean, dense.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(totals.variance, dense.astype(np.float64).var(0), rtol=1e-6)
    np.testing.assert_allclose(totals.skewness, stats.skew(dense.astype(np.float64)), rtol=1e-6)
    assert totals.minimum == 0
    assert totals.maximum == dense.max()
    assert not totals.whole_numbers


def test_what_does_not_fit_is_read_again(dense):
    assert not RowBlocks(dense, cache_bytes=100).in_memory
    assert RowBlocks(dense, cache_bytes=1e6).in_memory
    assert RowBlocks(sparse.csr_matrix(dense), cache_bytes=0).in_memory


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16])
def test_other_dtypes(dtype):
    values = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=dtype)
    totals = RowBlocks(
        sparse.csr_matrix(values.astype(np.float32)).astype(dtype) if dtype != np.float16 else values, cache_bytes=1e6
    ).totals
    assert totals.total.tolist() == [1, 1, 3]
    assert totals.whole_numbers
    assert totals.varies.tolist() == [True, True, False]


def test_repeated_entries_are_summed_without_touching_the_input():
    matrix = sparse.csr_matrix((np.array([1.0, 2.0]), np.array([1, 1]), np.array([0, 2, 2])), shape=(2, 3))
    assert RowBlocks(matrix, cache_bytes=0).totals.squares.tolist() == [0, 9, 0]
    assert matrix.nnz == 2


def test_constant_columns_do_not_vary_in_spite_of_rounding():
    values = np.full((1001, 2), 0.1)
    values[0, 1] = 0.2
    assert RowBlocks(values, cache_bytes=1e6).totals.varies.tolist() == [False, True]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(dense, bad):
    dense[5, 3] = bad
    with pytest.raises(ValueError, match=r"adata\.X holds 1 NaN or infinite values in columns \[3\]"):
        RowBlocks(dense, cache_bytes=0, name="adata.X")
