from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from sparsesc.stats.groups._shares import compare_shares


def draw(rng, sizes, *, base, spread=0.02):
    """Active cells of samples whose shares vary around those of the tissue."""
    scale = base * (1 - base) / spread**2 - 1
    share = rng.beta(np.broadcast_to(base * scale, (len(sizes), len(base))), (1 - base) * scale)
    return rng.binomial(np.asarray(sizes)[:, None], share)


# cells of the samples of the reference, and of the query
DESIGNS = {
    "alike": ([150] * 8, [150] * 4),
    "small query": ([300] * 8, [30] * 4),
    "small reference": ([40] * 8, [400] * 4),
    "one sample": ([200] * 6, [60]),
    "mixed": ([20, 50, 100, 400, 900, 1500], [30, 300, 2000]),
}


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("spread", [0.02, 0.12])
def test_level(name, spread):
    ours, theirs = DESIGNS[name]
    sizes = np.array(ours + theirs)
    second = np.arange(len(sizes)) >= len(ours)
    p = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        base = rng.uniform(0.15, 0.7, 5200)
        p.append(np.exp(compare_shares(draw(rng, sizes, base=base, spread=spread), sizes, second).log_p))
    p = np.concatenate(p)
    p = p[np.isfinite(p)]
    assert len(p) >= 20_000
    # where samples vary hardly more than the draw of their cells, the test is conservative
    assert (0.03 if spread > 0.1 else 0.0) <= (p <= 0.05).mean() <= 0.06


def test_rare_features_do_not_break_the_level():
    sizes = np.array(DESIGNS["small query"][0] + DESIGNS["small query"][1])
    second = np.arange(len(sizes)) >= 8
    rng = np.random.default_rng(0)
    counts = draw(rng, sizes, base=rng.uniform(0.005, 0.1, 20_000), spread=0.004)
    p = np.exp(compare_shares(counts, sizes, second).log_p)
    p = p[np.isfinite(p)]
    assert 2_000 < len(p) < 20_000
    assert (p <= 0.05).mean() <= 0.06


def test_a_plain_t_test_does_not_hold_its_level_where_samples_have_few_cells():
    sizes = np.array(DESIGNS["small query"][0] + DESIGNS["small query"][1])
    rng = np.random.default_rng(0)
    share = draw(rng, sizes, base=rng.uniform(0.15, 0.7, 5200)) / sizes[:, None]
    share = share[:, np.ptp(share[8:], axis=0) > 0]
    plain = stats.ttest_ind(share[:8], share[8:]).pvalue
    assert (plain <= 0.05).mean() > 0.1


def test_what_differs_is_found():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.1, 0.3, 200)
    counts = np.concatenate([draw(rng, [150] * 8, base=base), draw(rng, [80] * 4, base=1.6 * base)])
    found = compare_shares(counts, np.array([150] * 8 + [80] * 4), np.arange(12) >= 8)
    assert (found.log_p < np.log(0.05)).mean() > 0.8
    assert np.median(found.effect) == pytest.approx(
        np.median(2 * np.arcsin(np.sqrt(1.6 * base)) - 2 * np.arcsin(np.sqrt(base))), rel=0.15
    )


def test_against_weighted_least_squares():
    rng = np.random.default_rng(1)
    sizes = np.array([20, 50, 100, 400, 900, 30, 300, 2000])
    second = np.arange(8) >= 5
    counts = draw(rng, sizes, base=rng.uniform(0.2, 0.6, 40), spread=0.15)
    found = compare_shares(counts, sizes, second)
    y = 2 * np.arcsin(np.sqrt((counts + 0.25) / (sizes[:, None] + 0.5)))
    design = sm.add_constant(second.astype(float))
    compared = 0
    for i in range(40):
        # the variance between samples at which the scale of the weighted residuals is 1
        def scale(between, i=i):
            return sm.WLS(y[:, i], design, weights=1 / (between + 1 / sizes)).fit().scale

        if scale(0.0) <= 1:
            continue
        low, high = 0.0, 10.0
        while high - low > 1e-12:
            middle = (low + high) / 2
            low, high = (middle, high) if scale(middle) > 1 else (low, middle)
        fit = sm.WLS(y[:, i], design, weights=1 / (low + 1 / sizes)).fit()
        assert found.effect[i] == pytest.approx(fit.params[1], rel=1e-6)
        assert found.se[i] == pytest.approx(fit.bse[1], rel=1e-6)
        assert np.exp(found.log_p[i]) == pytest.approx(2 * stats.t.sf(abs(fit.tvalues[1]), found.df[i]), rel=1e-6)
        assert 1 <= found.df[i] <= 6
        compared += 1
    assert compared > 30


def test_equal_samples_give_the_t_test():
    rng = np.random.default_rng(2)
    counts = draw(rng, [200] * 9, base=rng.uniform(0.2, 0.6, 50), spread=0.15)
    found = compare_shares(counts, np.full(9, 200), np.arange(9) >= 5)
    y = 2 * np.arcsin(np.sqrt((counts + 0.25) / 200.5))
    np.testing.assert_allclose(np.exp(found.log_p), stats.ttest_ind(y[:5], y[5:]).pvalue, rtol=1e-6)
    np.testing.assert_allclose(found.df, 7)


def test_rare_features_are_not_tested():
    n_active = np.array([[1, 50, 0, 100], [0, 40, 0, 100], [1, 60, 0, 99], [0, 45, 0, 100]])
    found = compare_shares(n_active, np.full(4, 100), np.array([False, False, True, True]))
    assert np.isfinite(found.log_p).tolist() == [False, True, False, False]
    assert np.isfinite(found.effect).tolist() == [False, True, False, False]


@pytest.mark.parametrize("second", [[False, False, False], [True, True], [False, True]])
def test_too_few_samples(second):
    with pytest.raises(ValueError, match="At least one sample in each group and three in all"):
        compare_shares(np.ones((len(second), 2)), np.full(len(second), 10), np.array(second))
