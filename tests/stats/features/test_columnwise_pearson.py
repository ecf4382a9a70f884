from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sparsesc.stats.features._columnwise_pearson import columnwise_pearson


@pytest.fixture
def skewed():
    rng = np.random.default_rng(0)
    return rng.gamma(0.3, size=(60, 40)), rng.gamma(0.5, size=(60, 40))


def test_r_is_pearsons(skewed):
    a, b = skewed
    r, _ = columnwise_pearson(a, b)
    np.testing.assert_allclose(r, [stats.pearsonr(x, y).statistic for x, y in zip(a.T, b.T, strict=True)], atol=1e-12)


def test_p_is_that_of_shuffled_cells(skewed):
    a, b = skewed
    _, log_p = columnwise_pearson(a, b)
    rng = np.random.default_rng(1)
    orders = np.argsort(rng.random((20_000, 60)), axis=1)
    for i in range(10):
        za, zb = stats.zscore(a[:, i]), stats.zscore(b[:, i])
        drawn = np.abs(zb[orders] @ za) >= np.abs(za @ zb) * (1 - 1e-12)
        assert np.exp(log_p[i]) == pytest.approx((1 + drawn.sum()) / 20_001, abs=0.05)


@pytest.mark.parametrize("shape", [0.2, 1.0, 20.0])
def test_level(shape):
    rng = np.random.default_rng(2)
    p = [np.exp(columnwise_pearson(*rng.gamma(shape, size=(2, 80, 5000)))[1]) for _ in range(4)]
    assert 0.03 <= (np.concatenate(p) <= 0.05).mean() <= 0.06


def test_constants_say_nothing():
    r, log_p = columnwise_pearson(np.ones((10, 2)), np.arange(20.0).reshape(10, 2))
    assert r.tolist() == log_p.tolist() == [0, 0]
    r, log_p = columnwise_pearson(np.arange(4.0).reshape(2, 2), np.arange(4.0).reshape(2, 2))
    assert log_p.tolist() == [0, 0]


def test_shapes():
    with pytest.raises(ValueError, match=r"of the same shape, found \(3, 2\) and \(3, 1\)"):
        columnwise_pearson(np.ones((3, 2)), np.ones((3, 1)))
