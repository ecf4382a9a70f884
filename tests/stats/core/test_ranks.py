from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from sparsesc.stats import rank_columns


def columns() -> np.ndarray:
    rng = np.random.default_rng(0)
    n = 50
    sparse_column = np.where(rng.random(n) < 0.2, rng.random(n), 0)
    return np.column_stack(
        [
            sparse_column,
            np.round(3 * sparse_column),  # ties among what is active
            np.zeros(n),
            np.full(n, 2.0),
            rng.normal(size=n),  # no zeros, both signs
            np.round(rng.normal(size=n)),  # zeros in the middle
            np.r_[5.0, np.zeros(n - 1)],
        ]
    )


def test_ranks_agree_with_dense():
    X = columns()
    ranked = rank_columns(sparse.csr_matrix(X))
    expected = stats.rankdata(X, axis=0)
    found = ranked.with_data(ranked.deviation).toarray() + ranked.zero_rank
    np.testing.assert_array_equal(np.where(X != 0, found, ranked.zero_rank), expected)
    np.testing.assert_allclose(ranked.variance, expected.var(0), atol=1e-9)
    varies = expected.std(0) > 0
    np.testing.assert_allclose(ranked.skewness[varies], stats.skew(expected[:, varies], axis=0), atol=1e-9)
    assert (ranked.skewness[~varies] == 0).all()
    assert (ranked.variance[~varies] == 0).all()
    for f, column in enumerate(X.T):
        assert 1 - ranked.ties[f] / (50**3 - 50) == pytest.approx(stats.tiecorrect(expected[:, f]), abs=1e-12)
        entries = ranked.values[ranked.indptr[f] : ranked.indptr[f + 1]]
        np.testing.assert_array_equal(entries, np.sort(column[column != 0])[::-1])


def test_stored_zeros_and_repeats_are_no_entries():
    matrix = sparse.csr_matrix(([0.0, 1.0, 1.0, 3.0], ([0, 1, 1, 2], [0, 0, 0, 0])), shape=(4, 1))
    ranked = rank_columns(matrix)
    np.testing.assert_array_equal(ranked.values, [3.0, 2.0])
    assert matrix.nnz == 3  # the input stays as it is
    assert rank_columns(ranked) is ranked


def test_refuses_nan():
    with pytest.raises(ValueError, match="1 of 2 stored values are NaN"):
        rank_columns(sparse.csr_matrix([[np.nan, 1.0]]))
