from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from sparsesc.stats.genes._enrichment import RankSum, Ulm
from sparsesc.stats.genes._like_expressed import AmongLike, ExpressionBins

N_GENES = 300


@pytest.fixture
def expression():
    return np.random.default_rng(0).lognormal(0, 2, N_GENES)


@pytest.fixture
def statistic(expression):
    """Larger, and in one direction, for highly expressed genes; heavy tails."""
    rng = np.random.default_rng(1)
    level = np.argsort(np.argsort(expression)) / N_GENES
    return (1 + 4 * level) * rng.standard_t(5, size=(4, N_GENES)) + 6 * level


def random_sets(expression, rng, n_sets=8, *, weighted=False):
    """More often of highly expressed genes."""
    rows = np.zeros((n_sets, N_GENES))
    for row in rows:
        at = rng.choice(N_GENES, 25, replace=False, p=np.sqrt(expression) / np.sqrt(expression).sum())
        row[at] = rng.normal(size=25) if weighted else 1
    return sparse.csr_matrix(rows)


def test_bins_are_of_equal_size_and_in_order(expression):
    bins = ExpressionBins(expression)
    assert bins.n_genes.tolist() == [50] * 6
    means = [expression[bins.of_gene == b] for b in range(6)]
    assert all(low.max() <= high.min() for low, high in pairwise(means))
    assert ExpressionBins(expression[:20]).n_genes.tolist() == [20]
    nearly = ExpressionBins(expression * (1 + 1e-12 * np.arange(N_GENES)))
    np.testing.assert_array_equal(nearly.of_gene, bins.of_gene)


def test_statistics_have_the_same_mean_and_spread_in_every_bin(expression, statistic):
    bins = ExpressionBins(expression)
    statistic[2, bins.of_gene == 3] = 7.0
    z = bins.standardize(statistic)
    for b in range(6):
        inside = z[:, bins.of_gene == b]
        np.testing.assert_allclose(inside.mean(1), 0, atol=1e-12)
        np.testing.assert_allclose(inside.std(1, ddof=1), [1, 1, float(b != 3), 1], rtol=1e-9)


def test_sums_of_weights_within_bins(expression):
    bins = ExpressionBins(expression)
    sets = random_sets(expression, np.random.default_rng(2), weighted=True)
    squares, cubes = bins.weight_sums(sets)
    for b in range(6):
        weights = sets[:, np.flatnonzero(bins.of_gene == b)].toarray()
        centered = weights - weights.mean(1, keepdims=True)
        np.testing.assert_allclose(squares[:, b], (centered**2).sum(1), atol=1e-12)
        np.testing.assert_allclose(cubes[:, b], (centered**3).sum(1), atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_p_is_that_of_genes_shuffled_within_bins(expression, statistic, weighted):
    rng = np.random.default_rng(3)
    sets = random_sets(expression, rng, weighted=weighted)
    bins = ExpressionBins(expression)
    test = Ulm(sets, bins=bins)
    score, log_p, z = test(statistic)
    larger = np.zeros_like(score)
    for _ in range(4000):
        shuffled = z.copy()
        for b in range(6):
            inside = bins.of_gene == b
            shuffled[:, inside] = rng.permuted(shuffled[:, inside], axis=1)
        larger += np.abs(test(shuffled)[0]) >= np.abs(score)
    np.testing.assert_allclose(np.exp(log_p), larger / 4000, rtol=0.25, atol=0.02)


def test_score_is_the_t_of_a_regression_with_a_mean_for_each_bin(expression, statistic):
    import statsmodels.api as sm

    sets = random_sets(expression, np.random.default_rng(4), weighted=True)
    bins = ExpressionBins(expression)
    score, log_p, z = Ulm(sets, relabel=False, bins=bins)(statistic)
    design = np.column_stack([sets[3].toarray().ravel(), np.eye(6)[bins.of_gene]])
    fit = sm.OLS(z[1], design).fit()
    assert score[1, 3] == pytest.approx(fit.tvalues[0], rel=1e-9)
    assert np.exp(log_p[1, 3]) == pytest.approx(fit.pvalues[0], rel=1e-6)


def test_a_set_of_whole_bins_is_no_finding(expression, statistic):
    bins = ExpressionBins(expression)
    sets = sparse.csr_matrix((bins.of_gene == 5)[None].astype(float))
    score, log_p, _ = Ulm(sets, bins=bins)(statistic)
    np.testing.assert_array_equal(score, 0)
    np.testing.assert_array_equal(log_p, 0)


@pytest.mark.parametrize("make", [Ulm, RankSum])
def test_random_sets_of_highly_expressed_genes(expression, make):
    rng = np.random.default_rng(5)
    level = np.argsort(np.argsort(expression)) / N_GENES
    statistic = (1 + 4 * level) * rng.standard_t(5, size=(400, N_GENES)) + 6 * level
    sets = random_sets(expression, rng, 20)
    bins = ExpressionBins(expression)
    among_like = Ulm(sets, bins=bins) if make is Ulm else AmongLike(make(sets), bins)
    assert (make(sets)(statistic)[1] <= np.log(0.05)).mean() > 0.4
    assert 0.03 < (among_like(statistic)[1] <= np.log(0.05)).mean() < 0.06
