from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from sparsesc.stats.core._pvalue_pool import PValuePool


def mixture(n, seed=0):
    rng = np.random.default_rng(seed)
    p = np.where(rng.random(n) < 0.8, rng.random(n), 10 ** rng.uniform(-250, 0, n))
    p[rng.random(n) < 0.1] = p[0]  # ties
    p[rng.random(n) < 0.1] = 1
    return p


@pytest.mark.parametrize("n", [1, 2, 50, 20_000])
def test_agrees_with_scipy(n):
    p = mixture(n)
    pool = PValuePool(n)
    for part in np.array_split(np.log(p), 3):
        pool.add(part)
    chosen = np.random.default_rng(1).permutation(n)[: max(n // 2, 1)]
    np.testing.assert_allclose(pool.adjust(np.log(p[chosen])), false_discovery_control(p)[chosen], rtol=1e-6)


def test_with_little_memory_it_errs_upward_and_says_by_how_much():
    p = mixture(50_000)
    pool = PValuePool(len(p), max_bytes=1000)
    pool.add(np.log(p))
    ratio = pool.adjust(np.log(p)) / false_discovery_control(p)
    assert ratio.min() >= 1 - 1e-12
    assert ratio.max() <= 1 + pool.resolution + 1e-9
    assert PValuePool(10**6).resolution < 1e-6 < pool.resolution < 0.02


def test_p_of_zero_survives():
    pool = PValuePool(3)
    pool.add(np.array([-np.inf, -1e4, 0.0]))
    adjusted = pool.adjust(np.array([-np.inf, 0.0]))
    assert adjusted[0] < 1e-300
    assert adjusted[1] == 1


def test_forgotten_tests_are_noticed():
    pool = PValuePool(3)
    pool.add(np.zeros(2))
    with pytest.raises(ValueError, match=r"3 tests were announced, but 2"):
        pool.adjust(np.zeros(1))
