from __future__ import annotations

import numpy as np
import pytest

from sparsesc.door._depth import log_depth


def test_depth_is_read_where_it_stands(counts):
    totals = np.asarray(counts.X.sum(1)).ravel()
    expected = np.log(totals, out=np.full(len(totals), np.nan), where=totals > 0)
    np.testing.assert_allclose(log_depth(counts), expected)
    normalized = counts.copy()
    normalized.X = counts.X.log1p()
    assert log_depth(normalized) is None
    normalized.layers["counts"] = counts.X.copy()
    np.testing.assert_allclose(log_depth(normalized), expected)
    del normalized.layers["counts"]
    normalized.raw = counts
    np.testing.assert_allclose(log_depth(normalized), expected)


@pytest.mark.parametrize("name", ["total_counts", "nCount_RNA"])
def test_a_column_of_totals_comes_first(counts, name):
    counts.obs[name] = np.arange(counts.n_obs)
    found = log_depth(counts)
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], np.log(np.arange(1, counts.n_obs)))


def test_equal_totals_tell_nothing(counts):
    counts.obs["n_counts"] = 1000.0
    assert log_depth(counts) is None
