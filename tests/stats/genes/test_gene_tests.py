"""Statistics of features against genes: agreement with scipy, and calibration where nothing is to be found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from sparsesc.stats.core._row_blocks import RowBlocks
from sparsesc.stats.genes._gene_tests import map_gene_blocks
from sparsesc.stats.genes._pearson import PearsonTest
from sparsesc.stats.genes._strong_cells import OTHER, STRONG, strong_and_silent
from sparsesc.stats.genes._welch import WelchTest


def compute(statistic, blocks, **kwargs):
    """Scores and log p of all features x genes, and what is described of every pair."""

    def reduce(block):
        features, genes = np.indices(block.score.shape)
        described = block.describe(features.ravel(), genes.ravel())
        return block.score, block.log_p, {k: v.reshape(block.score.shape) for k, v in described.items()}

    parts = list(map_gene_blocks(statistic, blocks, reduce, max_bytes=1e9, **kwargs))
    described = {k: np.vstack([part[2][k] for part in parts]) for k in parts[0][2]}
    return np.vstack([part[0] for part in parts]), np.vstack([part[1] for part in parts]), described


def contrast(codes, X, *, quantile=0.5, min_cells=10, skew_guard=0.0, relabel=False, n_silent=None, seed=0, **kwargs):
    blocks = RowBlocks(X, cache_bytes=1e9)
    members = strong_and_silent(codes, quantile=quantile, min_cells=min_cells, n_silent=n_silent, rng=seed)
    statistic = WelchTest(members, blocks.totals, min_cells=min_cells, skew_guard=skew_guard, relabel=relabel)
    return members, statistic, compute(statistic, blocks, **kwargs)


def rows_of(members, feature, group):
    entries = slice(members.indptr[feature], members.indptr[feature + 1])
    return members.rows[entries][members.group[entries] == group]


@pytest.fixture
def expression(pbmc68k):
    return sparse.csr_matrix(pbmc68k.raw.X)


@pytest.fixture
def codes(pbmc68k_code):
    return sparse.csr_matrix(pbmc68k_code.obsm["X_sae"])


def random_codes(n_cells, n_features, n_active, seed):
    """Every feature active in random cells: no gene can have to do with it."""
    rng = np.random.default_rng(seed)
    rows = np.argsort(rng.random((n_features, n_cells)), axis=1)[:, :n_active].ravel()
    data = rng.gamma(2, size=len(rows)).astype(np.float32) + np.float32(0.1)
    indptr = np.arange(n_features + 1) * n_active
    return sparse.csc_matrix((data, rows, indptr), shape=(n_cells, n_features)).tocsr()


# -- which cells ------------------------------------------------------------------------------------------------------


def test_strong_cells_are_the_quantile_but_never_too_few():
    codes = np.zeros((100, 4), np.float32)
    codes[:40, 0] = np.arange(1, 41)
    codes[:12, 1] = np.arange(1, 13)
    codes[:5, 2] = 1
    members = strong_and_silent(sparse.csr_matrix(codes), quantile=0.75, min_cells=10)
    assert rows_of(members, 0, STRONG).tolist() == list(range(30, 40))
    assert rows_of(members, 1, STRONG).tolist() == list(range(2, 12))  # a quarter of 12 would be 3
    assert members.n_strong.tolist() == [10, 10, 5, 0]
    assert members.n_silent.tolist() == [60, 88, 95, 100]
    assert members.tested(10).tolist() == [True, True, False, False]


def test_ties_are_all_strong_so_that_the_order_of_cells_cannot_matter():
    codes = np.zeros((60, 1), np.float32)
    codes[:30, 0] = 1
    codes[0, 0] = 2
    assert strong_and_silent(sparse.csr_matrix(codes), quantile=0.9, min_cells=5).n_strong.tolist() == [30]


def test_sampled_silent_cells_are_silent_drawn_at_random_and_reproducible(codes):
    members = strong_and_silent(codes, quantile=0.5, min_cells=10, n_silent=40, rng=3)
    again = strong_and_silent(codes, quantile=0.5, min_cells=10, n_silent=40, rng=3)
    other = strong_and_silent(codes, quantile=0.5, min_cells=10, n_silent=40, rng=4)
    np.testing.assert_array_equal(members.rows, again.rows)
    drawn = np.concatenate([rows_of(members, f, OTHER) for f in range(codes.shape[1])])
    assert not np.array_equal(drawn, np.concatenate([rows_of(other, f, OTHER) for f in range(codes.shape[1])]))
    for f in range(codes.shape[1]):
        silent = rows_of(members, f, OTHER)
        assert len(np.unique(silent)) == 40
        assert codes[silent][:, [f]].nnz == 0
    # not the first rows of the file: spread over all of it
    assert stats.kstest(drawn / codes.shape[0], "uniform").statistic < 0.05


# -- agreement --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_silent", [None, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_welch_agrees_with_scipy(expression, codes, dtype, n_silent):
    X = expression.astype(dtype)
    members, statistic, (t, log_p, described) = contrast(codes, X, n_silent=n_silent)
    dense, code = X.toarray().astype(np.float64), codes.toarray()
    assert statistic.tested.all()
    for f in range(codes.shape[1]):
        silent = np.flatnonzero(code[:, f] == 0) if n_silent is None else rows_of(members, f, OTHER)
        inside, outside = dense[rows_of(members, f, STRONG)], dense[silent]
        varies = (inside.var(0) > 0) | (outside.var(0) > 0)
        expected = stats.ttest_ind(inside[:, varies], outside[:, varies], equal_var=False)
        np.testing.assert_allclose(t[f, varies], expected.statistic, rtol=1e-6, atol=1e-9)
        representable = expected.pvalue > 1e-290
        p = np.exp(log_p[f, varies])
        np.testing.assert_allclose(p[representable], expected.pvalue[representable], rtol=1e-6)
        np.testing.assert_allclose(described["mean_in"][f], inside.mean(0), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(described["mean_out"][f], outside.mean(0), rtol=1e-6, atol=1e-9)
        spread = np.sqrt((inside.var(0, ddof=1) + outside.var(0, ddof=1)) / 2)
        effect = (inside.mean(0) - outside.mean(0))[varies] / spread[varies]
        np.testing.assert_allclose(described["effect_size"][f, varies], effect, rtol=1e-6, atol=1e-9)
        assert (t[f, ~varies] == 0).all()
        assert (log_p[f, ~varies] == 0).all()


@pytest.mark.parametrize("relabel", [False, True])
def test_correlation_agrees_with_scipy(expression, codes, relabel):
    blocks = RowBlocks(expression, cache_bytes=1e9)
    r, log_p, described = compute(PearsonTest(codes, blocks.totals, min_cells=10, relabel=relabel), blocks)
    dense, code = expression.toarray().astype(np.float64), codes.toarray().astype(np.float64)
    for f in range(0, codes.shape[1], 4):
        expected = stats.pearsonr(dense, code[:, [f]], axis=0)
        np.testing.assert_allclose(r[f], expected.statistic, rtol=1e-6, atol=1e-9)
        p = described["pval_parametric"][f] if relabel else np.exp(log_p[f])
        np.testing.assert_allclose(p, expected.pvalue, rtol=1e-6)
        active = code[:, f] > 0
        np.testing.assert_allclose(described["mean_in"][f], dense[active].mean(0), rtol=1e-6)
        np.testing.assert_allclose(described["mean_out"][f], dense[~active].mean(0), rtol=1e-6, atol=1e-9)


def test_relabeled_p_agrees_with_drawn_permutations(expression):
    n_cells = expression.shape[0]
    codes = random_codes(n_cells, 1, 40, seed=5)
    _, _, (_, log_p, described) = contrast(codes, expression, quantile=0, relabel=True)
    dense = expression.toarray().astype(np.float64)
    rng = np.random.default_rng(0)
    n_draws = 4000
    chosen = np.argsort(rng.random((n_draws, n_cells)), axis=1)[:, :40]
    label = np.zeros((n_draws, n_cells))
    np.put_along_axis(label, chosen, 1.0, axis=1)
    total = label @ dense
    difference = total / 40 - (dense.sum(0) - total) / (n_cells - 40)
    observed = described["mean_in"][0] - described["mean_out"][0]
    drawn = (np.abs(difference) >= np.abs(observed) - 1e-12).mean(0)
    detected = (dense > 0).mean(0) * 40 > 5
    error = np.abs(np.exp(log_p[0]) - drawn)[detected]
    assert error.max() < 0.06
    assert error.mean() < 0.015


def test_what_silent_cells_lack_is_exactly_absent():
    rng = np.random.default_rng(0)
    codes = np.zeros((500, 1), np.float32)
    codes[:60, 0] = rng.random(60) + 1
    X = rng.gamma(2, size=(500, 3))
    X[60:, 0] = 0  # only active cells, the difference of two sums of many numbers
    X[:60, 1] = 0  # only silent cells
    _, _, (t, log_p, described) = contrast(sparse.csr_matrix(codes), X, quantile=0.5)
    assert described["mean_out"][0, 0] == 0
    assert described["mean_in"][0, 1] == 0
    assert np.isfinite(t).all()
    assert np.isfinite(log_p).all()


def test_two_constants_give_a_bounded_score():
    codes = np.zeros((50, 1), np.float32)
    codes[:20] = 1
    X = np.c_[codes[:, 0] * 3.0, np.full(50, 0.7), 1 - codes[:, 0]]
    _, _, (t, log_p, _) = contrast(sparse.csr_matrix(codes), X, skew_guard=25.0)
    np.testing.assert_allclose(t, [[1e4, 0, -1e4]], rtol=1e-6)
    assert log_p[0, 1] == 0


def test_results_do_not_depend_on_threads_blocks_or_the_order_of_cells(expression, codes):
    _, _, (t, log_p, _) = contrast(codes, expression, relabel=True, skew_guard=25, threads=1)
    _, _, (t2, log_p2, _) = contrast(codes, expression, relabel=True, skew_guard=25, threads=3)
    np.testing.assert_array_equal(t, t2)
    np.testing.assert_array_equal(log_p, log_p2)
    order = np.random.default_rng(0).permutation(expression.shape[0])
    _, _, (shuffled, _, _) = contrast(codes[order], expression[order], relabel=True, skew_guard=25)
    np.testing.assert_allclose(shuffled, t, rtol=1e-9, atol=1e-9)


def test_variance_guard_leaves_scores_alone_where_groups_are_large_enough(expression, codes):
    _, plain_statistic, (plain, _, _) = contrast(codes, expression, skew_guard=0)
    members, statistic, (guarded, _, _) = contrast(codes, expression, skew_guard=25)
    trusted = members.n_strong[:, None] >= statistic.trusted_n[None, :]
    np.testing.assert_array_equal(plain[trusted], guarded[trusted])
    assert (np.abs(guarded) <= np.abs(plain) + 1e-9).all()
    absent = (plain < -4) & ~trusted  # rare genes that a few cells miss
    assert absent.sum() > 100
    assert np.median(guarded[absent] / plain[absent]) < 0.6
    assert plain_statistic.trusted_n.max() == 0


# -- calibration ------------------------------------------------------------------------------------------------------


def independent_p(expression, *, n_active, n_features, seed, method):
    """p-values of random features, each against one gene that is detected often enough, so that all are independent."""
    codes = random_codes(expression.shape[0], n_features, n_active, seed)
    common = np.flatnonzero(np.asarray((expression > 0).mean(0)).ravel() * n_active >= 20)[:40]
    X = expression[:, common]
    if method == "contrast":
        _, _, (_, log_p, _) = contrast(codes, X, quantile=0.0, relabel=True)
    else:
        blocks = RowBlocks(X, cache_bytes=1e9)
        _, log_p, _ = compute(PearsonTest(codes, blocks.totals, min_cells=10, relabel=True), blocks)
    return np.exp(log_p)[np.arange(n_features), np.arange(n_features) % len(common)]


@pytest.mark.parametrize("method", ["contrast", "correlation"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_p_values_of_random_features_are_uniform(expression, method, seed):
    p = independent_p(expression, n_active=80, n_features=20_000, seed=seed, method=method)
    assert stats.kstest(p, "uniform").pvalue > 0.001
    for alpha in [0.05, 0.01, 0.001]:
        expected = alpha * len(p)
        assert abs((p <= alpha).sum() - expected) < 4 * np.sqrt(expected)


@pytest.mark.parametrize("quantile", [0.0, 0.75])
def test_p_values_are_conservative_over_all_genes_however_rare(expression, quantile):
    codes = random_codes(expression.shape[0], 1000, 60, seed=7)
    _, _, (_, log_p, described) = contrast(codes, expression, quantile=quantile, relabel=True)
    p = np.exp(log_p)
    for alpha in [0.05, 0.01, 1e-3, 1e-4]:
        assert (p <= alpha).mean() < 1.1 * alpha + 3 * np.sqrt(alpha / p.size)
    # why Welch's own p-values are not the default
    assert (described["pval_parametric"] <= 1e-4).mean() > 10e-4 or quantile == 0


def test_no_discoveries_among_random_features(expression):
    codes = random_codes(expression.shape[0], 2000, 50, seed=11)
    _, _, (_, log_p, _) = contrast(codes, expression, relabel=True)
    p = np.exp(log_p).reshape(100, -1)  # 100 data sets of 20 features
    discoveries = (stats.false_discovery_control(p, axis=1) <= 0.05).any(1)
    assert discoveries.sum() <= 12


def test_discoveries_among_planted_genes_are_mostly_true():
    false, found, true = 0, 0, 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        n_cells, n_genes, n_features = 1200, 300, 20
        codes = random_codes(n_cells, n_features, 100, seed)
        rate = np.exp(rng.normal(-1.5, 1.2, n_genes)) * rng.gamma(4, 0.25, size=(n_cells, 1))
        planted = np.zeros((n_features, n_genes), bool)
        for f in range(n_features):
            genes = rng.choice(n_genes, 15, replace=False)
            planted[f, genes] = True
            rate[np.ix_(codes[:, [f]].nonzero()[0], genes)] *= 4
        X = np.log1p(rng.poisson(rate))
        _, _, (_, log_p, _) = contrast(codes, X, quantile=0.0, relabel=True)
        discovered = stats.false_discovery_control(np.exp(log_p).ravel()).reshape(planted.shape) <= 0.05
        false += (discovered & ~planted).sum()
        found += discovered.sum()
        true += planted.sum()
    assert false / found < 0.06
    assert (found - false) / true > 0.4
