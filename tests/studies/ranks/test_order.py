from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from sparsesc.studies.ranks._order import order_rows, rank_rows


@pytest.fixture
def matrix():
    """Counts with many ties, and a row without any."""
    rng = np.random.default_rng(0)
    dense = rng.poisson(0.8, size=(60, 40)).astype(np.float64)
    dense[7] = 0
    return sparse.csr_matrix(dense)


@pytest.mark.parametrize("ties", ["average", "min", "first"])
def test_ranks_are_scipys(matrix, ties):
    ranks = rank_rows(matrix, order_rows(matrix), ties=ties)
    method = "ordinal" if ties == "first" else ties
    for i in range(matrix.shape[0]):
        row = slice(matrix.indptr[i], matrix.indptr[i + 1])
        np.testing.assert_array_equal(ranks[row], stats.rankdata(-matrix.data[row], method=method))


def test_random_order_keeps_larger_before_smaller_and_is_fair(matrix):
    order = order_rows(matrix, rng=np.random.default_rng(1))
    ranks = rank_rows(matrix, order, ties="random")
    again = order_rows(matrix, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(order, again)
    for i in range(matrix.shape[0]):
        row = slice(matrix.indptr[i], matrix.indptr[i + 1])
        assert (np.diff(matrix.data[order[row]]) <= 0).all()
        np.testing.assert_array_equal(np.sort(ranks[row]), np.arange(1, row.stop - row.start + 1))
    # four equal values: each is first in a quarter of the rows
    equal = sparse.csr_matrix(np.ones((8000, 4)))
    drawn = rank_rows(equal, order_rows(equal, rng=np.random.default_rng(2)), ties="random").reshape(-1, 4)
    observed = (drawn == 1).sum(0)
    assert stats.chisquare(observed).pvalue > 1e-3


def test_order_does_not_depend_on_blocks(matrix):
    whole = matrix.indices[order_rows(matrix, rng=np.random.default_rng(3))]
    rng = np.random.default_rng(3)
    halves = [matrix[:25], matrix[25:]]
    parts = np.concatenate([half.indices[order_rows(half, rng=rng)] for half in halves])
    np.testing.assert_array_equal(whole, parts)
