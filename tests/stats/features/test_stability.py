from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from sparsesc.stats import dictionary_stability


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_features_that_come_back_score_high_and_others_at_chance(rng):
    shared = rng.normal(size=(30, 50))
    fits = [np.concatenate([shared[rng.permutation(30)], rng.normal(size=(30, 50))]) for _ in range(4)]
    fits[0] = np.concatenate([shared, rng.normal(size=(30, 50))])
    found = dictionary_stability(fits, rng=rng)
    np.testing.assert_allclose(found.features[:30], 1, atol=1e-9)
    assert found.features[30:].mean() == pytest.approx(found.random[30:].mean(), abs=0.06)
    assert found.random.mean() < 0.45


def test_pairs_are_means_of_matched_features(rng):
    fits = [rng.normal(size=(n, 8)) for n in (12, 9, 12)]
    found = dictionary_stability(fits, rng=rng)
    for i in range(3):
        assert found.pairs[i, i] == 1
        for j in range(i):
            cosines = unit(fits[i]) @ unit(fits[j]).T
            assert (
                found.pairs[i, j] == found.pairs[j, i] == pytest.approx(cosines[linear_sum_assignment(-cosines)].mean())
            )
    # three features have no partner in the second dictionary, and count 0 there
    assert found.features.mean() == pytest.approx((found.pairs[0, 1] * 9 / 12 + found.pairs[0, 2]) / 2)


@pytest.mark.parametrize("d", [4, 40])
def test_random_baseline_is_what_random_dictionaries_have(rng, d):
    fits = [rng.normal(size=(80, d)) for _ in range(6)]
    found = dictionary_stability(fits, rng=rng)
    assert found.random.mean() == pytest.approx(found.features.mean(), abs=0.02)
    assert found.shaped.mean() == pytest.approx(found.features.mean(), abs=0.02)
    assert (found.random.mean() > 0.8) == (d == 4)  # in few dimensions chance looks stable


def test_shaped_baseline_knows_long_axes_and_a_common_direction(rng):
    axes = 1 / np.arange(1, 41) ** 1.5
    fits = [axes * (rng.normal(size=(80, 40)) + 0.5) for _ in range(6)]
    found = dictionary_stability(fits, rng=rng)
    assert found.shaped.mean() == pytest.approx(found.features.mean(), abs=0.08)
    assert found.random.mean() < found.features.mean() - 0.2


def test_opposite_sign(rng):
    rows = rng.normal(size=(10, 30))
    flipped = rows * np.where(np.arange(10) % 2, -1, 1)[:, None]
    assert dictionary_stability([rows, flipped], rng=rng).features.mean() < 0.8
    np.testing.assert_allclose(dictionary_stability([rows, flipped], rng=rng, absolute=True).features, 1)


def test_one_dictionary_is_not_enough(rng):
    with pytest.raises(ValueError, match="two dictionaries or more, found 1"):
        dictionary_stability([np.eye(3)], rng=rng)
    with pytest.raises(ValueError, match="dictionary 1 has 3 rows that are zero"):
        dictionary_stability([np.eye(3), np.zeros((3, 3))], rng=rng)
