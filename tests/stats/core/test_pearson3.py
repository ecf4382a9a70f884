from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import special, stats

from sparsesc.stats.core._pearson3 import log_p_relabeled, log_p_skewed


def test_agrees_with_scipy_gamma():
    rng = np.random.default_rng(0)
    z = np.abs(rng.normal(size=20_000) * rng.choice([1, 5], 20_000))
    skewness = 10 ** rng.uniform(-1, 1.5, len(z))  # smaller ones are beyond scipy's incomplete gamma
    shape = 4 / skewness**2
    root = np.sqrt(shape)
    upper = special.gammaincc(shape, shape + z * root)
    lower = special.gammainc(shape, np.maximum(shape - z * root, 0))
    expected = upper + lower
    found = np.exp(log_p_skewed(z, skewness))
    np.testing.assert_allclose(found[expected > 1e-290], expected[expected > 1e-290], rtol=1e-6)


def test_without_skewness_it_is_normal():
    z = np.array([0.1, 1.0, 3.0, 8.0, 40.0])
    np.testing.assert_allclose(log_p_skewed(z, 0.0), np.log(2) + special.log_ndtr(-z), rtol=1e-6)


def test_is_monotone_and_ignores_signs():
    z = np.linspace(0, 60, 2000)
    for skewness in [1e-3, 0.05, 0.1414, 0.1415, 0.8, 2.0, 20.0]:
        log_p = log_p_skewed(z, skewness)
        assert log_p[0] == 0
        assert (np.diff(log_p) <= 1e-12).all()
        np.testing.assert_array_equal(log_p, log_p_skewed(-z, -skewness))


def test_third_moment_of_r_under_shuffling_is_exact():
    rng = np.random.default_rng(1)
    x, y = rng.gamma(0.5, size=7), rng.gamma(0.7, size=7)
    r = np.array([np.corrcoef(x, p)[0, 1] for p in permutations(y)])
    n = len(x)
    assert r.mean() == pytest.approx(0, abs=1e-12)
    assert r.var() == pytest.approx(1 / (n - 1))
    skewness = stats.skew(x) * stats.skew(y) * np.sqrt(n - 1) / (n - 2)
    assert stats.skew(r) == pytest.approx(skewness)


def test_is_near_the_permutation_distribution_of_a_sparse_gene():
    values = np.r_[np.zeros(14), 1.0, 1.5, 2.0, 3.0]
    n, n_in = len(values), 5
    label = np.r_[np.ones(n_in), np.zeros(n - n_in)]
    means = np.array([values[list(chosen)].mean() for chosen in combinations(range(n), n_in)])
    distance = np.abs(means - values.mean())
    skewness = stats.skew(values) * stats.skew(label)
    for mean in np.quantile(means, [0.9, 0.99, 0.999]):
        exact = (distance >= abs(mean - values.mean()) - 1e-12).mean()
        r = (mean - values.mean()) * np.sqrt(n_in / (n - n_in)) / values.std()
        assert 0.6 < np.exp(log_p_relabeled(r, skewness, n)) / exact < 2.5  # both tails are discrete
