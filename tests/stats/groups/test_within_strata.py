from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats
from statsmodels.stats.contingency_tables import StratifiedTable

from sparsesc.stats import auroc, correlate, mann_whitney, pearson_one_hot
from sparsesc.stats.groups._within_strata import groups_within, numbers_within

N, F = 400, 24


@pytest.fixture(scope="module")
def cells():
    """Sparse features, three groups whose shares differ between six strata of 12 to 120 cells, and a number."""
    rng = np.random.default_rng(0)
    strata = np.repeat(np.arange(6), [120, 100, 80, 60, 28, 12])
    share = np.tile(np.linspace(0.03, 0.8, F), (N, 1))
    share[:, ::3] *= 0.2 + 0.2 * strata[:, None]  # features differ between strata, too
    X = rng.gamma(1, 1, (N, F)) * (rng.random((N, F)) < share)
    groups = np.where(rng.random(N) < 0.1 + 0.12 * strata, 0, 1 + (rng.random(N) < 0.15))
    number = rng.gamma(0.5, size=N) + strata
    return sparse.csr_matrix(X), groups, strata, number


def shuffled_within(values, strata, rng):
    out = values.copy()
    for s in np.unique(strata):
        rows = np.flatnonzero(strata == s)
        out[rows] = values[rng.permutation(rows)]
    return out


def partial_r(x, y, strata):
    indicators = (strata[:, None] == np.unique(strata)).astype(float)
    left = [v - indicators @ np.linalg.lstsq(indicators, v.astype(float), rcond=None)[0] for v in (x, y)]
    return np.corrcoef(*left)[0, 1]


# agreement with others


def test_one_stratum_is_the_test_without(cells):
    codes, groups, _, number = cells
    found = groups_within(codes, groups, np.zeros(N, int))
    np.testing.assert_allclose(found.log_p, mann_whitney(codes, groups, method="permutation")[1], atol=1e-8)
    np.testing.assert_allclose(found.auroc, auroc(codes, groups))
    np.testing.assert_allclose(found.pearson_r, pearson_one_hot(codes, groups), atol=1e-12)
    assert found.n_strata.tolist() == [1, 1, 1]
    for kind in ("pearson", "spearman"):
        one = numbers_within(codes, number, np.zeros(N, int), kind=kind)
        r, log_p = correlate(codes, number, kind=kind)
        np.testing.assert_allclose(one.r, r[:, 0], atol=1e-12)
        np.testing.assert_allclose(one.log_p, log_p[:, 0], atol=1e-8)
        np.testing.assert_allclose(
            one.log_p_asymptotic, correlate(codes, number, kind=kind, method="asymptotic")[1][:, 0], atol=1e-8
        )


def test_one_stratum_is_scipys_test(cells):
    codes, groups, _, _ = cells
    found = groups_within(codes, groups, np.zeros(N, int))
    for f in (3, 12, 23):
        x = codes[:, f].toarray().ravel()
        expected = stats.mannwhitneyu(x[groups == 0], x[groups != 0], use_continuity=False, method="asymptotic")
        assert np.exp(found.log_p_asymptotic[f, 0]) == pytest.approx(expected.pvalue, rel=1e-6)


def test_binary_features_are_cochran_mantel_haenszel():
    """In strata of one size, where the weights are equal."""
    rng = np.random.default_rng(1)
    strata = np.repeat(np.arange(5), 60)
    X = (rng.random((300, 8)) < 0.1 + 0.12 * strata[:, None]).astype(float)
    groups = (rng.random(300) < 0.6 - 0.1 * strata).astype(int)
    found = groups_within(sparse.csr_matrix(X), groups, strata)
    for f in range(8):
        tables = [
            np.array([[((X[:, f] == a) & (groups == b) & (strata == s)).sum() for b in (1, 0)] for a in (1, 0)])
            for s in range(5)
        ]
        expected = StratifiedTable(tables).test_null_odds(correction=False)
        assert np.exp(found.log_p_asymptotic[f, 1]) == pytest.approx(expected.pvalue, rel=1e-6)


def test_effects_are_those_of_plain_sums(cells):
    codes, groups, strata, number = cells
    found = groups_within(codes, groups, strata)
    for f in (0, 9, 20):
        x = codes[:, f].toarray().ravel()
        for g in range(3):
            above, pairs = 0.0, 0.0
            for s in range(6):
                inside, outside = (x[(strata == s) & mask] for mask in (groups == g, groups != g))
                weight = 1 / (len(inside) + len(outside) + 1)
                difference = inside[:, None] - outside
                above += weight * ((difference > 0).sum() + 0.5 * (difference == 0).sum())
                pairs += weight * difference.size
            assert found.auroc[f, g] == pytest.approx(above / pairs)
            varies = np.isin(strata, [s for s in range(6) if np.ptp((groups == g)[strata == s].astype(int))])
            expected = partial_r(x[varies], (groups == g)[varies], strata[varies])
            assert found.pearson_r[f, g] == pytest.approx(expected)
        assert numbers_within(codes, number, strata).r[f] == pytest.approx(partial_r(x, number, strata))


def test_the_t_of_numbers_is_that_of_a_linear_model(cells):
    import statsmodels.api as sm

    codes, _, strata, number = cells
    found = numbers_within(codes, number, strata)
    for f in (2, 15):
        design = np.column_stack([number, strata[:, None] == np.arange(6)]).astype(float)
        expected = sm.OLS(codes[:, f].toarray().ravel(), design).fit()
        assert np.exp(found.log_p_asymptotic[f]) == pytest.approx(expected.pvalues[0], rel=1e-6)


# the distribution under shuffling within strata


def test_p_is_what_shuffling_within_strata_gives(cells):
    codes, groups, strata, number = cells
    rng = np.random.default_rng(2)
    ranks = np.zeros((N, F))
    of_number = np.zeros(N)
    for s in range(6):
        rows = strata == s
        ranks[rows] = stats.rankdata(codes.toarray()[rows], axis=0) / (rows.sum() + 1) - 0.5
        of_number[rows] = stats.rankdata(number[rows]) / (rows.sum() + 1) - 0.5
    chosen = groups == 0
    draws = [
        (shuffled_within(chosen, strata, rng).astype(float), shuffled_within(of_number, strata, rng))
        for _ in range(8000)
    ]
    found = groups_within(codes, groups, strata).log_p[:, 0]
    center = np.array([ranks[strata == s].mean(0) * chosen[strata == s].sum() for s in range(6)]).sum(0)
    for values, observed, log_p, middle in (
        (np.array([d[0] for d in draws]), chosen.astype(float), found, center),
        (np.array([d[1] for d in draws]), of_number, numbers_within(codes, number, strata, kind="spearman").log_p, 0.0),
    ):
        shuffled, here = np.abs(values @ ranks - middle), np.abs(observed @ ranks - middle)
        low, high = (shuffled > here + 1e-9).mean(0), (shuffled >= here - 1e-9).mean(0)
        frequent = np.diff(codes.tocsc().indptr) > 40
        p = np.exp(log_p)
        assert (p >= 0.7 * low - 0.004).all()
        assert (p <= 1.3 * high + 0.004).all()
        np.testing.assert_allclose(p[frequent], ((low + high) / 2)[frequent], rtol=0.1, atol=0.02)


def test_shuffled_labels_are_null_although_strata_differ(cells):
    """Without strata the same labels are not."""
    codes, groups, strata, number = cells
    p, plain, of_numbers = [], [], []
    for seed in range(60):
        rng = np.random.default_rng([3, seed])
        labels = shuffled_within(groups, strata, rng)
        p.append(np.exp(groups_within(codes, labels, strata).log_p))
        plain.append(np.exp(mann_whitney(codes, labels)[1]))
        of_numbers.append(np.exp(numbers_within(codes, shuffled_within(number, strata, rng), strata).log_p))
    for values in (np.ravel(p), np.ravel(of_numbers)):
        assert 0.03 < (values <= 0.05).mean() < 0.06
        assert (values <= 0.001).mean() < 0.003
    assert (np.array(plain)[:, ::3] <= 0.05).mean() > 0.1


@pytest.mark.parametrize("active", [1, 3, 6])
def test_few_active_cells_are_not_rarer_than_they_are(active):
    """One active cell in a rare group is as likely as it is: p must not be less."""
    rng = np.random.default_rng(4)
    strata = np.repeat(np.arange(4), 100)
    groups = (np.arange(400) % 100 < 5).astype(int)
    p = []
    for _ in range(40):
        X = np.zeros((400, 50))
        for f in range(50):
            X[rng.choice(400, active, replace=False), f] = rng.random(active) + 1
        p.append(np.exp(groups_within(sparse.csr_matrix(X), groups, strata).log_p[:, 1]))
    p = np.ravel(p)
    assert (p <= 0.01).mean() < 0.016
    assert (p <= 0.001).mean() < 0.003


# nothing to compare


def test_groups_alone_in_their_strata(cells):
    codes, _, strata, _ = cells
    groups = np.where(strata < 3, strata, 3)
    found = groups_within(codes, groups, strata)
    assert found.n_strata.tolist() == [0, 0, 0, 0]
    assert np.isnan(found.log_p).all()
    assert np.isnan(found.auroc).all()
    mixed = groups.copy()
    mixed[:30] = 1
    found = groups_within(codes, mixed, strata)
    assert found.n_strata.tolist() == [1, 1, 0, 0]
    assert found.n_compared.tolist() == [90, 30, 0, 0]
    only = groups_within(codes[:120], mixed[:120], strata[:120], 4)
    np.testing.assert_allclose(found.log_p[:, 0], only.log_p[:, 0])
    constant = numbers_within(codes, strata.astype(float), strata)
    assert constant.n_strata == 0
    assert np.isnan(constant.log_p).all()


def test_silent_features(cells):
    _, groups, strata, number = cells
    silent = sparse.csr_matrix((N, 2))
    found = groups_within(silent, groups, strata)
    np.testing.assert_array_equal(found.auroc, 0.5)
    np.testing.assert_array_equal(found.log_p, 0)
    np.testing.assert_array_equal(found.pearson_r, 0)
    np.testing.assert_array_equal(numbers_within(silent, number, strata).log_p, 0)
