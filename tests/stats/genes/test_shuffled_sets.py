from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from sparsesc.stats.genes._enrichment import Ora, RankSum, Ulm
from sparsesc.stats.genes._shuffled_sets import ShuffledSets, null_sums

N_GENES = 400


def gene_statistics(n, rng, *, together):
    """Normal statistics; blocks of 20 genes share a part of what they are."""
    shared = np.repeat(rng.normal(size=(n, N_GENES // 20)), 20, axis=1)
    return np.sqrt(together) * shared + np.sqrt(1 - together) * rng.normal(size=(n, N_GENES))


@pytest.fixture(scope="module")
def sets():
    """Ten coherent sets, 16 genes of one block each, and ten of 16 genes of all blocks."""
    rng = np.random.default_rng(0)
    rows = np.zeros((20, N_GENES))
    for i in range(10):
        rows[i, 20 * i : 20 * i + 16] = 1
        rows[10 + i, rng.choice(N_GENES, 16, replace=False)] = 1
    return sparse.csr_matrix(rows)


def against(test, together, n_copies, seed=1):
    copies = gene_statistics(n_copies, np.random.default_rng(seed), together=together)
    return ShuffledSets(test, null_sums(test, copies) / n_copies)


def test_independent_normal_genes_give_the_t_test(sets):
    """The beta distribution is then exact, and its moments are what the copies estimate."""
    test = Ulm(sets, relabel=False)
    shuffled = against(test, 0.0, 20_000)
    np.testing.assert_allclose(shuffled.spread, 1.0, atol=0.03)
    statistic = 5 * gene_statistics(300, np.random.default_rng(2), together=0.0)
    t, log_p, _ = test(statistic)
    score, larger, evidence = shuffled(statistic)
    np.testing.assert_array_equal(score, t)
    np.testing.assert_array_equal(evidence, statistic)
    assert (larger >= log_p).all()
    np.testing.assert_allclose(np.exp(larger), np.exp(log_p), atol=0.015)
    extreme = np.full((1, N_GENES), 0.0) + np.random.default_rng(0).normal(size=N_GENES)
    extreme[0, :16] += 3
    assert shuffled(extreme)[1][0, 0] == pytest.approx(test(extreme)[1][0, 0], rel=0.1)


def test_genes_that_stand_out_are_left_to_the_test_itself(sets):
    """Sets hold some of twenty extreme genes by chance: copies, which have none, do not know how often that happens."""
    rng = np.random.default_rng(5)
    names = np.zeros((400, N_GENES))
    for i in range(400):
        names[i, rng.choice(N_GENES, 16, replace=False)] = 1
    at_random = sparse.csr_matrix(names)
    statistic = rng.permuted(rng.normal(size=(50, N_GENES)) + 6 * (np.arange(N_GENES) < 20), axis=1)
    own, by_t = (Ulm(at_random, relabel=relabel) for relabel in (True, False))
    moments = null_sums(by_t, gene_statistics(1000, rng, together=0.0)) / 1000
    with_own, with_t = (np.exp(ShuffledSets(test, moments)(statistic)[1]) for test in (own, by_t))
    assert (with_own <= 0.001).mean() < 0.0016 < (with_t <= 0.001).mean()
    assert 0.03 < (with_own <= 0.05).mean() < 0.06


@pytest.mark.parametrize("make", [lambda s: Ulm(s, relabel=False), RankSum])
def test_genes_that_vary_together(sets, make):
    test = make(sets)
    shuffled = against(test, 0.5, 1000)
    assert (shuffled.spread[:10] > 2).all()
    assert (shuffled.spread[10:] < 1.5).all()
    score, log_p, _ = test(gene_statistics(4000, np.random.default_rng(3), together=0.5))
    _, by_copies, _ = shuffled(gene_statistics(4000, np.random.default_rng(3), together=0.5))
    p = np.exp(by_copies)
    assert (np.exp(log_p)[:, :10] < 0.05).mean() > 0.3
    for part in (p[:, :10], p[:, 10:]):
        assert 0.04 <= (part <= 0.05).mean() <= 0.055
        assert 0.0003 <= (part <= 0.001).mean() <= 0.0015
    assert abs(stats.spearmanr(-np.abs(score[:, 0]), p[:, 0]).statistic - 1) < 1e-9


def test_overlaps_of_genes_that_vary_together(sets):
    """P-values of whole numbers: at most their level, and not far below."""
    test = Ora(sets, n_up=40)
    shuffled = against(test, 0.5, 1000)
    statistic = gene_statistics(4000, np.random.default_rng(3), together=0.5)
    score, log_p, _ = test(statistic)
    p = np.exp(shuffled(statistic)[1])
    overlap = np.rint(2.0**score * (16 * 40 / N_GENES + 0.5) - 0.5)
    np.testing.assert_allclose(test.share(score), overlap / 16, atol=1e-12)
    assert (np.exp(log_p)[:, :10] < 0.05).mean() > 0.1
    for part in (p[:, :10], p[:, 10:]):
        assert 0.01 <= (part <= 0.05).mean() <= 0.055
        assert (part <= 0.001).mean() <= 0.0018


def test_a_set_that_no_copy_moves_is_no_finding(sets):
    nothing = sparse.vstack([sets, sparse.csr_matrix((1, N_GENES))]).tocsr()
    shuffled = against(Ulm(nothing, relabel=False), 0.0, 200)
    _, log_p, _ = shuffled(gene_statistics(50, np.random.default_rng(4), together=0.0))
    assert (log_p[:, -1] == 0).all()
    assert np.isfinite(log_p).all()
    _, log_p, _ = shuffled(np.zeros((2, N_GENES)))
    assert (log_p == 0).all()
