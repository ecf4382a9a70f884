from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from sparsesc.stats import benjamini_hochberg
from sparsesc.stats.core._multiple import log_choose, log_p_normal


@pytest.mark.parametrize("n", [1, 2, 999])
def test_agrees_with_scipy_and_statsmodels(n):
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(0).random(n) ** 3
    p[n // 2 :] = np.round(p[n // 2 :], 2)  # ties, zeros and ones
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p), rtol=1e-12)
    np.testing.assert_allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], rtol=1e-12)


def test_is_one_family_whatever_the_shape():
    p = np.random.default_rng(1).random((7, 11))
    np.testing.assert_array_equal(benjamini_hochberg(p).ravel(), benjamini_hochberg(p.ravel()))


def test_tests_that_were_not_made_do_not_count():
    p = np.array([0.01, np.nan, 0.04, np.nan])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.02, np.nan, 0.04, np.nan])
    assert benjamini_hochberg(np.array([])).shape == (0,)
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.inf])
def test_refuses_what_is_no_probability(bad):
    with pytest.raises(ValueError, match="between 0 and 1"):
        benjamini_hochberg(np.array([0.5, bad]))


def test_tiny_p_values_do_not_underflow():
    z = np.array([0.0, 1.0, -3.0, 37.0, 1000.0])
    log_p = log_p_normal(z)
    np.testing.assert_allclose(np.exp(log_p[:3]), 2 * stats.norm.sf(np.abs(z[:3])), rtol=1e-14)
    assert np.exp(log_p[3]) > 1e-300
    assert log_p[4] == pytest.approx(np.log(2) + stats.norm.logsf(1000.0))
    assert (log_p <= 0).all()


def test_log_choose():
    n, k = np.array([5.0, 40.0]), np.array([2.0, 40.0])
    np.testing.assert_allclose(log_choose(n, k), np.log(special.comb(n, k)), atol=1e-12)
