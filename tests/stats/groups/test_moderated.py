from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special, stats

from sparsesc.stats import benjamini_hochberg
from sparsesc.stats.groups._moderated import fit_linear, prior_variance, t_tests


def simulate(seed, n_units, n_tests, *, prior_df, trend=0.0, scale=1.0):
    """Responses without any effect; variances from their prior, which may depend on the mean."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0, 4, n_tests)
    variance = (
        scale * np.exp(trend * mean) * (prior_df / rng.chisquare(prior_df, n_tests) if prior_df < np.inf else 1.0)
    )
    return mean + rng.normal(size=(n_units, n_tests)) * np.sqrt(variance), variance


def groups(n_units):
    return (np.arange(n_units) % 2 == 1).astype(float)[:, None]


def test_least_squares_agree_with_statsmodels():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(14, 20))
    columns = np.column_stack([np.arange(14) % 3 == 1, np.arange(14) % 3 == 2]).astype(float)
    others = np.column_stack([rng.normal(size=14), np.arange(14) % 2])
    fit = fit_linear(values, columns, others)
    found = t_tests(fit, moderate=False)
    for test in range(20):
        expected = sm.OLS(values[:, test], sm.add_constant(np.column_stack([columns, others]))).fit()
        np.testing.assert_allclose(fit.effect[:, test], expected.params[1:3], rtol=1e-6)
        np.testing.assert_allclose(found.se[:, test], expected.bse[1:3], rtol=1e-6)
        np.testing.assert_allclose(found.t[:, test], expected.tvalues[1:3], rtol=1e-6)
        np.testing.assert_allclose(np.exp(found.log_p[:, test]), expected.pvalues[1:3], rtol=1e-6)
    assert found.df == fit.df == expected.df_resid


def test_covariates_may_repeat_each_other():
    rng = np.random.default_rng(0)
    values, columns = rng.normal(size=(12, 5)), groups(12)
    plate = np.eye(3)[np.arange(12) // 4]  # indicators of all plates sum to the intercept
    fit = fit_linear(values, columns, np.column_stack([plate, plate[:, :1]]))
    expected = fit_linear(values, columns, plate[:, 1:])
    np.testing.assert_allclose(fit.effect, expected.effect)
    assert fit.df == expected.df == 12 - 4


def test_two_groups_of_pairs_are_a_paired_test():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 8)) + np.repeat(rng.normal(size=(6, 8)) * 3, 2, axis=0)
    found = t_tests(fit_linear(values, groups(12), np.eye(6)[np.arange(12) // 2]), moderate=False)
    expected = stats.ttest_rel(values[1::2], values[::2])
    np.testing.assert_allclose(found.t[0], expected.statistic, rtol=1e-6)
    np.testing.assert_allclose(np.exp(found.log_p[0]), expected.pvalue, rtol=1e-6)


@pytest.mark.parametrize("others", [groups(6), 5 - 2 * groups(6), np.eye(6)])
def test_what_cannot_be_told_apart_is_refused(others):
    with pytest.raises(ValueError, match="cannot be told apart"):
        fit_linear(np.zeros((6, 2)), groups(6), others)


def test_no_degrees_of_freedom():
    with pytest.raises(ValueError, match="4 units leave no degrees of freedom for 4 parameters"):
        fit_linear(np.zeros((4, 2)), groups(4), np.arange(8.0).reshape(4, 2) ** 2)


@pytest.mark.parametrize("prior_df", [2.0, 6.0, 30.0])
def test_prior_is_recovered(prior_df):
    values, _ = simulate(1, 8, 20_000, prior_df=prior_df)
    fit = fit_linear(values, groups(8), np.empty((8, 0)))
    prior, found = prior_variance(fit.variance, fit.df)
    assert found == pytest.approx(prior_df, rel=0.15)
    np.testing.assert_allclose(prior, 1.0, rtol=0.1)


def test_equal_variances_have_an_infinite_prior():
    variance = np.exp(special.digamma(3) - np.log(3)) * np.ones(50)  # less spread than estimates of one value have
    prior, found = prior_variance(variance, 6)
    assert np.isinf(found)
    np.testing.assert_allclose(prior, 1.0)


def test_prior_follows_the_mean():
    values, _ = simulate(2, 8, 20_000, prior_df=10.0, trend=1.5, scale=1e-4)
    fit = fit_linear(values, groups(8), np.empty((8, 0)))
    prior, found = prior_variance(fit.variance, fit.df, covariate=fit.mean)
    assert found == pytest.approx(10.0, rel=0.2)
    inside = (fit.mean > 0.5) & (fit.mean < 3.5)
    np.testing.assert_allclose(np.log(prior[inside] / 1e-4), 1.5 * fit.mean[inside], atol=0.2)
    assert prior_variance(fit.variance, fit.df)[1] < 5


@pytest.mark.parametrize(("trend", "prior_df"), [(0.0, 4.0), (0.0, np.inf), (0.6, 4.0)])
@pytest.mark.parametrize("n_units", [6, 16])
def test_null_is_uniform(n_units, trend, prior_df):
    pvalues = []
    for seed in range(3):
        values, _ = simulate(seed, n_units, 10_000, prior_df=prior_df, trend=trend)
        found = t_tests(fit_linear(values, groups(n_units), np.empty((n_units, 0))), trend=trend > 0)
        pvalues.append(np.exp(found.log_p[0]))
    pvalues = np.concatenate(pvalues)
    # few units do not rely on a common variance as much as they could
    cautious = n_units == 6 and prior_df == np.inf
    assert (0.03 if cautious else 0.04) < (pvalues < 0.05).mean() < (0.05 if cautious else 0.06)
    assert stats.kstest(pvalues, "uniform").statistic < (0.025 if cautious else 0.012)


@pytest.mark.parametrize("n_units", [4, 6, 10])
def test_responses_that_go_together_keep_the_level(n_units):
    """Half of their variance is of two things that differ between units."""
    pvalues, found = [], []
    for seed in range(200):
        rng = np.random.default_rng([n_units, seed])
        shared = rng.normal(size=(n_units, 2)) @ rng.normal(size=(2, 60)) / np.sqrt(2)
        values = shared + rng.normal(size=(n_units, 60))
        pvalues.append(np.exp(t_tests(fit_linear(values, groups(n_units), np.empty((n_units, 0)))).log_p[0]))
        found.append((benjamini_hochberg(pvalues[-1]) < 0.05).any())
    assert 0.02 < (np.ravel(pvalues) < 0.05).mean() < 0.06
    assert np.mean(found) < 0.09  # .05, and what 200 draws may make of it


def test_how_many_responses_are_independent():
    rng = np.random.default_rng(0)
    none = np.empty((12, 0))
    assert fit_linear(rng.normal(size=(12, 80)), groups(12), none).n_independent > 60
    alike = rng.normal(size=(12, 1)) + 1e-3 * rng.normal(size=(12, 80))
    assert fit_linear(alike, groups(12), none).n_independent == pytest.approx(1, abs=0.01)
    blocks = np.repeat(rng.normal(size=(60, 5)), 16, axis=1)
    assert fit_linear(blocks, groups(60), np.empty((60, 0))).n_independent == pytest.approx(5, abs=0.6)


def test_units_that_agree_by_chance_do_not_mislead():
    """Shares of rare features take few values: two units against two are often equal within groups."""
    rng = np.random.default_rng(0)
    cells, rare = 30, 0.04
    least = np.full(400, rare * (1 - rare) / cells)
    tiny = {True: [], False: []}
    for _ in range(20):
        shares = rng.binomial(cells, rare, size=(4, 400)) / cells
        fit = fit_linear(shares, groups(4), np.empty((4, 0)))
        tiny[True].append(np.exp(t_tests(fit, least=least).log_p[0]))
        tiny[False].append(np.exp(t_tests(fit, moderate=False).log_p[0]))
    share = {floor: np.mean(np.ravel(p) < 1e-4) for floor, p in tiny.items()}
    assert share[False] > 0.01
    assert share[True] == 0


def test_few_units_find_more_with_moderation():
    values, variance = simulate(5, 6, 5000, prior_df=20.0)
    values[1::2, :500] += 2.5 * np.sqrt(variance[:500])
    fit = fit_linear(values, groups(6), np.empty((6, 0)))
    power = {m: (np.exp(t_tests(fit, moderate=m).log_p[0, :500]) < 0.001).mean() for m in (True, False)}
    assert power[True] > 2 * power[False]


def test_constant_and_few_responses():
    values = np.zeros((6, 4))
    values[:, 0] = np.arange(6)
    found = t_tests(fit_linear(values, groups(6), np.empty((6, 0))))
    assert np.isfinite(found.log_p).all()
    np.testing.assert_array_equal(found.t[0, 1:], 0)
    np.testing.assert_array_equal(found.log_p[0, 1:], 0)
    expected = stats.ttest_ind(values[1::2, 0], values[::2, 0])
    assert found.t[0, 0] == pytest.approx(expected.statistic)  # nothing to learn a prior from
