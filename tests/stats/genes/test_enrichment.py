from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from sparsesc.stats.genes._enrichment import Ora, RankSum, Ulm, leading_genes
from sparsesc.stats.genes._gsea import Gsea

N_GENES = 600


@pytest.fixture
def statistic():
    """Eight features: heavy tails, many ties in some."""
    rng = np.random.default_rng(0)
    values = rng.standard_t(4, size=(8, N_GENES))
    values[5] = np.round(values[5])
    values[6, :300] = 0
    return values


def random_sets(n_sets, rng, *, low=5, high=60, n_genes=N_GENES, weighted=False):
    size = rng.integers(low, high, n_sets)
    genes = np.argsort(rng.random((n_sets, n_genes)), axis=1)
    rows = np.repeat(np.arange(n_sets), size)
    columns = np.concatenate([genes[i, : size[i]] for i in range(n_sets)])
    weights = rng.choice([-1.0, 0.5, 2.0], len(rows)) if weighted else np.ones(len(rows))
    sets = sparse.csr_matrix((weights, (rows, columns)), shape=(n_sets, n_genes))
    sets.sort_indices()
    return sets


@pytest.fixture
def sets():
    return random_sets(30, np.random.default_rng(1))


def members(sets, t):
    return sets.indices[sets.indptr[t] : sets.indptr[t + 1]]


@pytest.mark.parametrize("weighted", [False, True])
def test_ulm_agrees_with_decoupler(statistic, weighted):
    import decoupler

    sets = random_sets(30, np.random.default_rng(1), weighted=weighted)
    genes = [f"g{i:03}" for i in range(N_GENES)]
    coo = sets.tocoo()
    net = pd.DataFrame(
        {"source": [f"s{i:02}" for i in coo.row], "target": [genes[j] for j in coo.col], "weight": coo.data}
    )
    expected, _ = decoupler.mt.ulm(pd.DataFrame(statistic, columns=genes), net, tmin=1)
    score, log_p, _ = Ulm(sets, relabel=False)(statistic)
    np.testing.assert_allclose(score, expected[sorted(expected.columns)].to_numpy(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(np.exp(log_p), 2 * stats.t.sf(np.abs(score), N_GENES - 2), rtol=1e-6)
    slope = stats.linregress(sets[3].toarray().ravel(), statistic[2])
    assert np.exp(log_p[2, 3]) == pytest.approx(slope.pvalue, rel=1e-6)


def test_ulm_permutation_p_is_that_of_shuffled_genes(statistic):
    """Also where ten genes of 600 are extreme, which t takes for evidence."""
    rng = np.random.default_rng(0)
    values = statistic[:3].copy()
    values[0, :10] += 15
    sets = random_sets(6, rng, low=15, high=40)
    sets = sparse.csr_matrix(np.vstack([sets.toarray(), (np.arange(N_GENES) % 75 < 3)[None]]))  # holds 3 of these
    score, log_p, _ = Ulm(sets)(values)
    _, by_t, _ = Ulm(sets, relabel=False)(values)
    shuffled = [Ulm(sets)(rng.permuted(values, axis=1))[0] for _ in range(4000)]
    share = (np.abs(shuffled) >= np.abs(score)).mean(0)
    np.testing.assert_allclose(np.exp(log_p), share, rtol=0.35, atol=0.02)
    assert np.exp(by_t[0, -1]) < 0.5 * share[0, -1] < 0.01


def test_ranksum_agrees_with_scipy(statistic, sets):
    score, log_p, _ = RankSum(sets)(statistic)
    for f in range(len(statistic)):
        for t in range(sets.shape[0]):
            inside = np.isin(np.arange(N_GENES), members(sets, t))
            expected = stats.mannwhitneyu(statistic[f, inside], statistic[f, ~inside], method="asymptotic")
            assert np.exp(log_p[f, t]) == pytest.approx(expected.pvalue, rel=1e-6)
            center = inside.sum() * (~inside).sum() / 2
            assert np.sign(score[f, t]) in {np.sign(expected.statistic - center), 0}


def test_ora_agrees_with_scipy(statistic, sets):
    score, log_p, top = Ora(sets, n_up=50)(statistic)
    for f in range(len(statistic)):
        chosen = np.flatnonzero(top[f])
        assert len(chosen) <= 50
        assert (statistic[f, chosen] > 0).all()
        for t in range(sets.shape[0]):
            size = len(members(sets, t))
            overlap = len(np.intersect1d(members(sets, t), chosen))
            expected = stats.hypergeom.sf(overlap - 1, N_GENES, size, len(chosen))
            assert np.exp(log_p[f, t]) == pytest.approx(expected, rel=1e-6)
            assert (overlap > size * len(chosen) / N_GENES) == (score[f, t] > 0)


def test_ora_with_fewer_positive_genes_than_asked_for():
    statistic = -np.ones((1, 20))
    statistic[0, :3] = [3.0, 2.0, 1.0]
    sets = sparse.csr_matrix(np.r_[np.ones(5), np.zeros(15)][None])
    _, log_p, top = Ora(sets, n_up=10)(statistic)
    assert np.flatnonzero(top).tolist() == [0, 1, 2]
    assert np.exp(log_p[0, 0]) == pytest.approx(stats.hypergeom.sf(2, 20, 5, 3))


def test_gsea_finds_a_planted_set_and_is_reproducible(statistic, sets):
    planted = statistic[:2].copy()
    planted[0, members(sets, 4)] += 3
    score, log_p, _ = Gsea(sets, seed=1)(planted)
    again, _, _ = Gsea(sets, seed=1)(planted)
    np.testing.assert_array_equal(score, again)
    assert score[0].argmax() == log_p[0].argmin() == 4
    assert np.exp(log_p[0, 4]) < 1e-6
    assert score[0, 4] > 1.5


def test_a_set_of_all_genes_says_nothing(statistic):
    everything = sparse.csr_matrix(np.ones((1, N_GENES)))
    for test in [Ulm(everything), RankSum(everything), Ora(everything, n_up=30)]:
        score, log_p, _ = test(statistic)
        assert np.isfinite(score).all()
        np.testing.assert_allclose(np.exp(log_p), 1)


def test_constant_statistics_say_nothing(sets):
    for test in [Ulm(sets), RankSum(sets)]:
        score, log_p, _ = test(np.zeros((2, N_GENES)))
        assert (score == 0).all()
        assert (log_p == 0).all()


def test_leading_genes_carry_the_score():
    evidence = np.array([[5.0, -2.0, 3.0, 1.0, 0.0, -7.0]])
    sets = sparse.csr_matrix(np.array([[1.0, 1, 1, 1, 1, 1], [1, -1, 0, 0, 0, -1]]))
    out = np.empty((3, 3), np.int32)
    rows, terms = np.zeros(3, np.int64), np.array([0, 0, 1])
    leading_genes(evidence, rows, terms, np.array([1.0, -1.0, 1.0]), sets.indptr, sets.indices, sets.data, out)
    assert out.tolist() == [[0, 2, 3], [5, 1, -1], [5, 0, 1]]


@pytest.fixture(scope="module")
def real_scores():
    """Welch's t of random features and real genes, as feature_genes makes it."""
    import scanpy as sc

    from sparsesc.stats.core._row_blocks import RowBlocks
    from sparsesc.stats.genes._gene_tests import map_gene_blocks
    from sparsesc.stats.genes._strong_cells import strong_and_silent
    from sparsesc.stats.genes._welch import WelchTest

    adata = sc.datasets.pbmc68k_reduced()
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(50, 40))
    pre = np.maximum(adata.obsm["X_pca"] @ directions, 0)
    pre[pre < np.quantile(pre, 0.9, axis=0)] = 0
    blocks = RowBlocks(adata.raw.X, cache_bytes=1e9)
    members = strong_and_silent(sparse.csr_matrix(pre.astype(np.float32)), quantile=0.5, min_cells=10)
    statistic = WelchTest(members, blocks.totals, min_cells=10, skew_guard=25, relabel=True)
    return np.vstack(list(map_gene_blocks(statistic, blocks, lambda block: block.score, max_bytes=1e9)))


@pytest.mark.parametrize("method", [Ulm, RankSum])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_p_values_of_random_gene_sets_are_uniform(real_scores, method, seed):
    rng = np.random.default_rng(seed)
    n_features, n_genes = real_scores.shape
    n_tests = 20_000  # each with a set of its own
    sets = random_sets(n_tests, rng, low=20, high=60, n_genes=n_genes)
    log_p = np.concatenate([method(sets[f::n_features])(real_scores[[f]])[1].ravel() for f in range(n_features)])
    p = np.exp(log_p)
    assert len(p) == n_tests
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert abs((p <= 0.01).sum() - 200) < 4 * np.sqrt(200)


def test_over_representation_of_random_sets_is_conservative(real_scores):
    rng = np.random.default_rng(0)
    sets = random_sets(1000, rng, n_genes=real_scores.shape[1])
    p = np.exp(Ora(sets, n_up=38)(real_scores)[1])
    assert p.size >= 20_000
    for alpha in [0.05, 0.01, 0.001]:
        assert (p <= alpha).mean() <= alpha * 1.05


@pytest.mark.parametrize("method", ["ulm", "ranksum", "ora"])
def test_no_discoveries_among_random_sets(real_scores, method):
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(60):
        sets = random_sets(25, rng, low=10, n_genes=real_scores.shape[1])
        test = {"ulm": Ulm, "ranksum": RankSum, "ora": lambda s: Ora(s, n_up=38)}[method](sets)
        p = np.exp(test(real_scores)[1]).ravel()
        found += (stats.false_discovery_control(p) <= 0.05).any()
    assert found <= 9  # 3 expected at most
