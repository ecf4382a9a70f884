from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sparsesc.stats.features._on import columnwise_r, on_cells, on_thresholds


@pytest.fixture(scope="module")
def codes():
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((300, 6)) < 0.3, rng.gamma(2.0, 1.0, (300, 6)), 0.0)
    dense[:, 5] = 0
    return sparse.csr_matrix(dense.astype(np.float32))


def test_threshold_is_half_of_the_mean_weighted_by_activation(codes):
    dense = codes.toarray().astype(float)
    expected = [0.5 * np.average(a, weights=a) if a.any() else 0.0 for a in dense.T]
    np.testing.assert_allclose(on_thresholds(codes), expected, rtol=1e-6)


def test_cells_of_equal_activation_are_all_on():
    codes = sparse.csr_matrix(np.repeat([[0.0], [3.0]], [10, 7], axis=0))
    assert on_cells(codes, on_thresholds(codes)).nnz == 7


def test_a_trace_in_many_cells_does_not_count_as_on():
    strong, trace = np.full(30, 5.0), np.full(300, 0.1)
    codes = sparse.csr_matrix(np.r_[strong, trace, np.zeros(100)][:, None])
    assert on_cells(codes, on_thresholds(codes)).nnz == 30


def test_the_codes_are_left_as_they_were(codes):
    before = codes.copy()
    on_cells(codes, on_thresholds(codes))
    assert (codes != before).nnz == 0
    assert codes.nnz == before.nnz


def test_units_and_the_order_of_cells_do_not_matter(codes):
    order = np.random.default_rng(1).permutation(codes.shape[0])
    np.testing.assert_allclose(on_thresholds(codes[order] * 7), 7 * on_thresholds(codes), rtol=1e-6)


def test_correlation_is_that_of_numpy_and_nan_where_there_is_none(codes):
    values = np.random.default_rng(2).normal(size=300) + codes.toarray()[:, 0]
    values[:20] = np.nan
    r = columnwise_r(codes, values)
    dense = codes.toarray().astype(float)[20:]
    np.testing.assert_allclose(r[:5], [np.corrcoef(dense[:, j], values[20:])[0, 1] for j in range(5)], atol=1e-10)
    assert np.isnan(r[5])
    assert np.isnan(columnwise_r(codes, np.ones(300))).all()
