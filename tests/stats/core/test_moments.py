from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sparsesc.stats import group_moments


@pytest.fixture
def values():
    rng = np.random.default_rng(0)
    return sparse.random(60, 9, density=0.3, random_state=rng, format="csr", dtype=np.float32), rng.integers(0, 4, 60)


def test_agree_with_dense(values):
    matrix, groups = values
    found = group_moments(matrix, groups, 5)  # nothing is in the last group
    dense = matrix.toarray().astype(float)
    for g in range(4):
        inside = groups == g
        assert found.n[g] == inside.sum()
        np.testing.assert_allclose(found.mean[:, g], dense[inside].mean(0))
        np.testing.assert_allclose(found.variance[:, g], dense[inside].var(0, ddof=1), atol=1e-15)
        np.testing.assert_allclose(found.mean_rest[:, g], dense[~inside].mean(0))
    np.testing.assert_allclose(found.total_mean, dense.mean(0))
    np.testing.assert_allclose(found.total_variance, dense.var(0))
    assert np.isnan(found.mean[:, 4]).all()


def test_a_constant_has_no_variance():
    matrix = sparse.csr_matrix(np.full((50, 1), 0.1, np.float32))
    found = group_moments(matrix, np.arange(50) % 2)
    assert (found.variance == 0).all()
    assert (found.total_variance == 0).all()


@pytest.mark.parametrize("groups", [np.zeros(5, int), np.full(60, -1), np.full(60, 7), np.full(60, 0.5)])
def test_groups_must_fit(values, groups):
    with pytest.raises(ValueError, match="groups must"):
        group_moments(values[0], groups, 4)
