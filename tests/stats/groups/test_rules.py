from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sparsesc.stats.groups._rules import best_rules


def f1(called, y):
    return 2 * (called & y).sum() / max(called.sum() + y.sum(), 1)


@pytest.mark.parametrize("kind", ["sparse", "signed", "dense"])
def test_no_threshold_is_better(kind):
    rng = np.random.default_rng(1)
    Z = {
        "sparse": sparse.random(60, 6, density=0.3, rng=rng).toarray().round(1),
        "signed": rng.integers(-2, 3, (60, 6)).astype(float),
        "dense": rng.normal(size=(60, 6)) + 3,
    }[kind]
    groups = rng.integers(0, 4, 60)
    found = best_rules(sparse.csr_matrix(Z), groups, 4)
    for c in range(4):
        y = groups == c
        every = [
            f1(sign * Z[:, f] > sign * t, y)
            for f in range(6)
            for sign in (1, -1)
            for t in np.unique(Z[:, f])  # thresholds that call some cells, but not all
        ]
        assert found.f1[c] == pytest.approx(max(every))
    np.testing.assert_allclose(found.apply(sparse.csr_matrix(Z), groups), found.f1)


def test_silence_can_be_the_sign():
    groups = np.array([0] * 10 + [1] * 30)
    Z = sparse.csr_matrix((groups == 1).astype(float)[:, None] * np.linspace(1, 2, 40)[:, None])
    found = best_rules(Z, groups)
    np.testing.assert_array_equal(found.sign, [-1, 1])
    np.testing.assert_allclose(found.f1, 1)


def test_a_constant_detects_nothing():
    found = best_rules(sparse.csr_matrix(np.ones((20, 2))), np.arange(20) % 2)
    np.testing.assert_array_equal(found.f1, 0)
