"""Medians of nested and single sets, and p-values of values among draws."""

from __future__ import annotations

import numpy as np
import pytest

from sparsesc.studies.saliency._medians import Ladders, summed_medians, upper_tail


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    values = np.abs(rng.standard_t(3, size=(6, 200))).astype(np.float32)
    values[:, :30] = 0  # ties
    return values


def by_hand(values, sets, group, n_groups):
    out = np.zeros((n_groups, len(sets)))
    for row, g in zip(values.astype(float), group, strict=True):
        if g >= 0:
            out[g] += [np.median(row[s]) for s in sets]
    return out


def test_nested_sets_have_numpys_medians(values):
    rng = np.random.default_rng(1)
    orders = np.stack([rng.permutation(200)[:90] for _ in range(15)])
    sizes = np.array([1, 2, 3, 4, 17, 18, 64, 65, 90])
    group = np.array([0, 1, -1, 1, 0, 0])
    sets = [order[:size] for order in orders for size in sizes]
    found = summed_medians(values, Ladders.nested(orders, sizes), group, 2)
    np.testing.assert_allclose(found, by_hand(values, sets, group, 2), atol=1e-12)


def test_single_sets_have_numpys_medians(values):
    rng = np.random.default_rng(2)
    sets = [rng.permutation(200)[:size] for size in (1, 2, 3, 63, 64, 65, 199, 200)]
    rows = np.arange(len(values))
    found = summed_medians(values, Ladders.of_sets(sets), rows, len(rows))
    np.testing.assert_allclose(found, by_hand(values, sets, rows, len(rows)), atol=1e-12)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, size: rng.standard_normal(size),
        lambda rng, size: rng.gamma(2.0, size=size),
        lambda rng, size: np.exp(0.5 * rng.standard_normal(size)),
        lambda rng, size: rng.standard_t(8, size=size),
    ],
    ids=["normal", "gamma", "log-normal", "heavy"],
)
def test_p_among_draws_holds_its_level_and_its_tail(draw):
    rng = np.random.default_rng(0)
    p = np.concatenate([upper_tail(draw(rng, 10_000), draw(rng, (10_000, 500))) for _ in range(5)])
    assert 0.045 < np.mean(p < 0.05) < 0.055
    assert np.mean(p < 0.001) < 0.002
    assert np.mean(p < 1e-4) < 5e-4  # beyond the draws: the fitted tail


def test_few_draws_keep_the_level_as_far_as_they_reach():
    rng = np.random.default_rng(1)
    p = np.concatenate([upper_tail(rng.gamma(2.0, size=20_000), rng.gamma(2.0, size=(20_000, 100))) for _ in range(5)])
    assert 0.047 < np.mean(p < 0.05) < 0.052
    assert 0.009 < np.mean(p < 0.01) < 0.011


def test_p_never_vanishes_and_falls_with_the_value():
    null = np.tile(np.random.default_rng(0).standard_normal(1000), (5, 1))
    p = upper_tail(np.array([0.0, 3.0, 6.0, 30.0, 1e6]), null)
    assert (np.diff(p) < 0).all()
    assert (p > 0).all()
    np.testing.assert_allclose(p[0], 0.5, atol=0.06)


def test_draws_without_spread_give_no_evidence_beyond_their_number():
    assert upper_tail(np.array([1.0]), np.zeros((1, 999)))[0] == pytest.approx(1e-3)
    assert upper_tail(np.array([0.0]), np.zeros((1, 999)))[0] == 1.0
