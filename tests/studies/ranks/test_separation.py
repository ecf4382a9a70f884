from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sparsesc.studies.ranks._separation import group_weights, interval, outlier_scores, separation


def medians(n: int, shift: float, seed: int = 0) -> np.ndarray:
    """Distances of pairs of groups, and groups whose own distances are smaller by `shift`."""
    rng = np.random.default_rng(seed)
    out = rng.normal(10.0, 1.0, size=(n, n))
    out = np.triu(out) + np.triu(out, 1).T
    out[np.diag_indices(n)] -= shift
    return out


@pytest.mark.parametrize("shift", [0.0, 1.0, 50.0])
def test_effects_are_the_usual_ones(shift):
    median = np.round(medians(12, shift), 1)  # with ties
    result = separation(median, group_weights(12, 20, np.random.default_rng(0)))
    within, between = np.diag(median), median[np.triu_indices(12, 1)]
    u = stats.mannwhitneyu(between, within).statistic / (len(within) * len(between))
    assert result.effects["auroc"].value == pytest.approx(u)
    pooled = np.sqrt((within.var() * 12 + between.var() * 66) / 76)
    assert result.effects["cohen_d"].value == pytest.approx((between.mean() - within.mean()) / pooled)
    assert result.effects["ratio"].value == pytest.approx(np.median(within) / np.median(between))
    assert (result.n_within, result.n_between) == (12, 66)


def test_weights_are_repeated_groups():
    median = medians(5, 1.0)
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 3, 1]])
    result = separation(median, weights)
    within, between = [], []
    drawn = np.repeat(np.arange(5), weights[1])
    for i, a in enumerate(drawn):
        within.append(median[a, a])
        between += [median[a, b] for b in drawn[i + 1 :] if a != b]
    u = stats.mannwhitneyu(between, within).statistic / (len(within) * len(between))
    assert result.draws["auroc"][1] == pytest.approx(u)
    assert result.draws["ratio"][1] == pytest.approx(np.median(within) / np.median(between))


def test_intervals_cover_the_truth():
    # groups are the unit: the interval over groups must hold the effect of all groups most of the time
    truth = stats.norm.cdf(1.0 / np.sqrt(2))
    held = 0
    for seed in range(60):
        result = separation(medians(20, 1.0, seed), group_weights(20, 120, np.random.default_rng(seed)))
        at = result.effects["auroc"]
        held += at.low <= truth <= at.high
    assert held >= 50


def test_missing_pairs_are_left_out():
    median = medians(6, 1.0)
    median[0, 0] = median[1, 2] = median[2, 1] = np.nan
    result = separation(median, group_weights(6, 10, np.random.default_rng(0)))
    assert (result.n_within, result.n_between) == (5, 14)
    assert np.isfinite(result.effects["auroc"].value)
    nothing = separation(np.full((4, 4), np.nan), group_weights(4, 5, np.random.default_rng(0)))
    assert np.isnan(nothing.effects["ratio"].value)


def test_outliers_are_planted_ones():
    median = medians(15, 3.0)
    median[3, 8] = median[8, 3] = 2.0
    median[5, 5] = 30.0
    alike, loose = outlier_scores(median)
    assert np.unravel_index(np.nanargmax(alike), alike.shape) == (3, 8)
    assert np.argmax(loose) == 5
    assert alike[3, 8] > 5 and loose[5] > 5
    assert np.isnan(np.diag(alike)).all()


def test_interval_is_of_the_draws():
    draws = np.r_[3.0, np.arange(101.0)]
    at = interval(draws)
    assert (at.value, at.low, at.high) == pytest.approx((3.0, 2.5, 97.5))
