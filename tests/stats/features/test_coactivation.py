from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from sparsesc.stats import benjamini_hochberg, overlap_test
from sparsesc.stats.features._coactivation import CoActivation


def independent_sets(rng, n_cells, n_features):
    density = 10 ** rng.uniform(-2.5, -0.2, n_features)
    values = rng.exponential(size=(n_cells, n_features)) + 0.1
    return sparse.csr_matrix(np.where(rng.random((n_cells, n_features)) < density, values, 0.0))


def test_overlap_agrees_with_scipy_on_real_cells(pbmc68k_code):
    activity = CoActivation(pbmc68k_code.obsm["X_sae"])
    both, n, sizes = activity.overlap(0, 64), activity.n, activity.sizes
    one, two = np.triu_indices(64, 1)
    found = np.exp(overlap_test(n, sizes[one], sizes[two], both[one, two]))
    law = stats.hypergeom(n, sizes[one], sizes[two])
    expected = np.minimum(2 * np.minimum(law.sf(both[one, two] - 1), law.cdf(both[one, two])), 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (found < 1e-20).any()
    assert (found == 1).any()
    np.testing.assert_array_equal(np.exp(np.concatenate([activity.log_p_later(0, both)])), found)


def test_one_tail_agrees_with_fisher():
    table = [[8, 2], [5, 30]]
    p = stats.fisher_exact(table, alternative="greater").pvalue
    assert np.exp(overlap_test(45, 10, 13, 8))[0] == pytest.approx(2 * p)


def test_tiny_p_do_not_underflow():
    log_p = overlap_test(10**6, 1000, 1000, 1000)
    assert log_p[0] == pytest.approx(np.log(2) + stats.hypergeom.logpmf(1000, 10**6, 1000, 1000), rel=1e-9)
    assert overlap_test(100, 100, 30, 30)[0] == 0  # active everywhere: nothing to test
    assert overlap_test(100, 0, 30, 0)[0] == 0


def test_correlation_agrees_with_numpy(pbmc68k_code):
    codes = pbmc68k_code.obsm["X_sae"].tolil()
    codes[:, 5] = 0
    activity = CoActivation(codes.tocsr())
    dense = codes.toarray().astype(float)
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(np.corrcoef(dense, rowvar=False))
    np.testing.assert_allclose(activity.pearson(0, 64), expected, atol=1e-10)
    np.testing.assert_allclose(activity.pearson(10, 13), expected[10:13], atol=1e-10)
    np.testing.assert_array_equal(activity.overlap(3, 9), ((dense > 0).T.astype(int) @ (dense > 0))[3:9])
    assert activity.n_pairs == 63 * 62 // 2


def test_independent_features_rarely_reject():
    rng = np.random.default_rng(0)
    p, discoveries = [], 0
    for _ in range(12):
        activity = CoActivation(independent_sets(rng, 600, 80))
        p.append(np.exp(activity.log_p_later(0, activity.overlap(0, 80))))
        discoveries += (benjamini_hochberg(p[-1]) < 0.05).any()
    pooled = np.concatenate(p)
    assert len(pooled) > 30_000
    assert 0.015 < (pooled < 0.05).mean() < 0.05  # discrete, so below the level
    assert (pooled < 0.01).mean() < 0.01
    assert discoveries <= 2
