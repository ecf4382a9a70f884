from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.metrics import roc_auc_score

from sparsesc.stats.groups._over_samples import (
    groups_over_samples,
    numbers_over_samples,
    smallest_p,
    varies_within,
)
from sparsesc.stats.groups._within_strata import groups_within

F = 20


def cells(seed=0, n_samples=8, n=60, *, effect=0.0, spread=0.6):
    """Features whose relation to group 1 varies from sample to sample, and is nothing (or `effect`) on average."""
    rng = np.random.default_rng(seed)
    samples = np.repeat(np.arange(n_samples), n)
    groups = (rng.random(len(samples)) < 0.4).astype(int)
    slope = rng.normal(scale=spread, size=(n_samples, F)) + effect
    base = rng.normal(scale=0.5, size=(n_samples, F))
    logit = base[samples] - 0.5 + slope[samples] * (groups[:, None] - 0.4)
    active = rng.random((len(samples), F)) < 1 / (1 + np.exp(-logit))
    return sparse.csr_matrix(active * rng.gamma(2, 0.5, active.shape)), groups, samples


def test_is_the_t_test_of_areas():
    codes, groups, samples = cells(effect=0.5)
    found = groups_over_samples(codes, groups, samples)
    dense = codes.toarray()
    areas = np.array(
        [[roc_auc_score(groups[samples == s], x[samples == s]) for x in dense.T] for s in np.unique(samples)]
    )
    np.testing.assert_allclose(found.auroc[:, 1], areas.mean(0))
    expected = stats.ttest_1samp(areas, 0.5)
    np.testing.assert_allclose(np.exp(found.log_p[:, 1]), expected.pvalue, rtol=1e-6)
    np.testing.assert_allclose(found.auroc[:, 0], 1 - found.auroc[:, 1])
    assert found.n_samples.tolist() == [8, 8]


def test_samples_of_one_group_are_compared_by_their_means():
    codes, _, samples = cells()
    groups = samples % 2
    assert not varies_within(groups, samples)
    found = groups_over_samples(codes, groups, samples)
    means = np.array([codes[samples == s].toarray().mean(0) for s in range(8)])
    expected = stats.ttest_ind(means[1::2], means[::2])
    np.testing.assert_allclose(np.exp(found.log_p[:, 1]), expected.pvalue, rtol=1e-6)
    area = [roc_auc_score(np.arange(8) % 2, m) for m in means.T]
    np.testing.assert_allclose(found.auroc[:, 1], area)
    assert found.n_samples.tolist() == [4, 4]


def test_numbers():
    codes, _, samples = cells()
    rng = np.random.default_rng(1)
    number = rng.normal(size=len(samples))
    dense = codes.toarray()
    found = numbers_over_samples(codes, number, samples, kind="spearman")
    r = [[stats.spearmanr(x[samples == s], number[samples == s]).statistic for x in dense.T] for s in range(8)]
    np.testing.assert_allclose(found.r, np.mean(r, axis=0))
    np.testing.assert_allclose(np.exp(found.log_p), stats.ttest_1samp(r, 0).pvalue, rtol=1e-6)
    of_samples = rng.normal(size=8)[samples]
    found = numbers_over_samples(codes, of_samples, samples)
    means = np.array([dense[samples == s].mean(0) for s in range(8)])
    expected = [stats.pearsonr(m, of_samples[::60]).statistic for m in means.T]
    np.testing.assert_allclose(found.r, expected)


@pytest.mark.parametrize("n_samples", [4, 8])
def test_relations_that_vary_between_samples_are_null(n_samples):
    """Cells as replicates find them everywhere."""
    p, of_numbers, of_cells = [], [], []
    for seed in range(60):
        codes, groups, samples = cells(seed, n_samples)
        p.append(np.exp(groups_over_samples(codes, groups, samples).log_p[:, 1]))
        rng = np.random.default_rng([1, seed])
        slope = rng.normal(size=n_samples)[samples]
        number = slope * codes[:, 0].toarray().ravel() + rng.normal(size=len(samples))
        of_numbers.append(np.exp(numbers_over_samples(codes, number, samples).log_p[0]))
        one = np.zeros(len(samples), int)
        of_cells.append(np.exp(groups_within(codes, groups, one).log_p[:, 1]))
    p = np.ravel(p)
    assert 0.03 < (p <= 0.05).mean() < 0.065
    assert (p <= 0.001).mean() <= 0.004
    assert np.mean(np.array(of_numbers) <= 0.05) < 0.15
    assert (np.ravel(of_cells) <= 0.05).mean() > 0.15


def test_rare_features_do_not_mislead():
    rng = np.random.default_rng(2)
    samples = np.repeat(np.arange(6), 80)
    groups = (np.arange(480) % 80 < 6).astype(int)
    p = []
    for _ in range(30):
        X = sparse.random(480, 60, density=0.02, random_state=rng, format="csr")
        p.append(np.exp(groups_over_samples(X, groups, samples).log_p[:, 1]))
    p = np.ravel(p)
    assert (p <= 0.05).mean() < 0.06
    assert (p <= 0.001).mean() < 0.003


def test_what_holds_in_all_samples_is_found():
    codes, groups, samples = cells(effect=2.0)
    assert (np.exp(groups_over_samples(codes, groups, samples).log_p[:, 1]) < 0.01).mean() > 0.8


def test_strata_within_samples():
    codes, groups, samples = cells(effect=0.0, spread=0.0)
    strata = groups.copy()
    strata[::3] = 1 - strata[::3]  # mostly the group, and a feature that follows it
    X = codes.tolil()
    X[:, 0] = (strata * 2.0 + np.random.default_rng(7).random(len(samples)))[:, None]
    plain = groups_over_samples(X.tocsr(), groups, samples)
    within = groups_over_samples(X.tocsr(), groups, samples, strata=strata)
    assert np.exp(plain.log_p[0, 1]) < 1e-4
    assert np.exp(within.log_p[0, 1]) > 0.01
    assert abs(within.auroc[0, 1] - 0.5) < 0.1


def test_too_few_samples():
    codes, groups, samples = cells(n_samples=2)
    found = groups_over_samples(codes, groups, samples)
    assert np.isnan(found.log_p).all()
    assert np.isfinite(found.auroc).all()
    codes, _, samples = cells(n_samples=4)
    found = groups_over_samples(codes, np.minimum(samples, 1), samples)
    assert found.n_samples.tolist() == [1, 3]
    assert np.isnan(found.log_p).all()
    assert np.isnan(numbers_over_samples(codes[:120], np.arange(120.0), samples[:120]).log_p).all()


def test_smallest_p():
    assert smallest_p(5) == 0.0625
    assert smallest_p(6) == 0.03125
    assert smallest_p(3, 3) == pytest.approx(0.1)
    assert smallest_p(2, 2) == pytest.approx(1 / 3)
    assert smallest_p(4, 4) == pytest.approx(2 / 70)
    assert smallest_p(2, 6) == pytest.approx(1 / 28)
