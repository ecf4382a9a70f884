from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from sparsesc.stats import match_features


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("absolute", [False, True])
def test_no_permutation_is_better(rng, absolute):
    A, B = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    cosines = (A / np.linalg.norm(A, axis=1)[:, None]) @ (B / np.linalg.norm(B, axis=1)[:, None]).T
    cosines = np.abs(cosines) if absolute else cosines
    best = max(sum(cosines[i, j] for i, j in enumerate(order)) for order in permutations(range(6)))
    partner, cosine = match_features(A, B, absolute=absolute)
    assert sorted(partner) == list(range(6))
    np.testing.assert_allclose(cosine, cosines[np.arange(6), partner], atol=1e-12)
    assert cosine.sum() == pytest.approx(best)


def test_opposite_directions_are_two_features(rng):
    rows = rng.normal(size=(5, 20))
    partner, cosine = match_features(rows, -rows, absolute=True)
    np.testing.assert_array_equal(partner, np.arange(5))
    np.testing.assert_allclose(cosine, 1)
    assert match_features(rows, -rows)[1].max() < 0.9


def test_features_without_a_partner(rng):
    rows = rng.normal(size=(5, 20))
    partner, cosine = match_features(rows, rows[[3, 1]])
    np.testing.assert_array_equal(partner, [-1, 1, -1, 0, -1])
    np.testing.assert_allclose(cosine, [0, 1, 0, 1, 0], atol=1e-12)
    partner, cosine = match_features(rows[[3, 1]], rows)
    np.testing.assert_array_equal(partner, [3, 1])


def test_thousands_of_features(rng):
    rows = rng.normal(size=(1500, 64)).astype(np.float32)
    order = rng.permutation(1500)
    partner, cosine = match_features(rows, rows[order] + 0.3 * rng.normal(size=rows.shape))
    assert (order[partner] == np.arange(1500)).mean() > 0.99
    assert cosine.mean() > 0.9


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (np.ones((3, 5)), "share their dimensions, found 4 and 5"),
        (np.zeros((2, 4)), "second has 2 rows that are zero"),
        (np.full((1, 4), np.nan), "second has 1 rows that are zero or not finite"),
        (np.ones(4), r"features x dimensions .* found shape \(4,\)"),
        (np.ones((0, 4)), "at least one feature"),
    ],
)
def test_bad_input(second, message):
    with pytest.raises(ValueError, match=message):
        match_features(np.ones((3, 4)), second)
