from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats
from scipy.spatial.distance import cdist

from sparsesc.studies.ranks import _distances as distances
from sparsesc.studies.ranks._order import order_rows, rank_rows


def ranked(counts: sparse.csr_matrix, ties: str = "average") -> sparse.csr_matrix:
    ranks = rank_rows(counts, order_rows(counts), ties=ties)
    return sparse.csr_matrix((ranks, counts.indices, counts.indptr), shape=counts.shape)


def spearman(counts: sparse.csr_matrix) -> distances.RowCorrelation:
    n_ranked = np.diff(counts.indptr)
    return distances.RowCorrelation(ranked(counts), fill=n_ranked + 0.5 * (counts.shape[1] - n_ranked + 1))


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    return sparse.csr_matrix(rng.poisson(rng.gamma(0.5, 1.0, size=80), size=(60, 80)).astype(np.float64))


EVERY = slice(0, 60)


@pytest.mark.parametrize("dense_bytes", [0, 10**9])
def test_spearman_is_scipys(counts, dense_bytes, monkeypatch):
    monkeypatch.setattr(distances, "_DENSE_BYTES", dense_bytes)
    expected = 1 - stats.spearmanr(counts.toarray(), axis=1).statistic
    measure = spearman(counts)
    np.testing.assert_allclose(measure.between(EVERY, EVERY), expected, atol=2e-6)
    np.testing.assert_allclose(measure.between(slice(5, 9), slice(20, 60)), expected[5:9, 20:], atol=2e-6)


def test_euclidean_is_scipys():
    points = np.random.default_rng(0).normal(100.0, 1.0, size=(60, 3))
    np.testing.assert_allclose(distances.Euclidean(points).between(EVERY, EVERY), cdist(points, points), atol=1e-6)


def test_zeros_in_order(counts):
    n_ranked = np.diff(counts.indptr)
    ranks = ranked(counts, "first")
    measure = distances.RowCorrelation(ranks, fill=n_ranked + 1.0, zero_rule=distances.COLUMN_ORDER)
    whole = stats.rankdata(-counts.toarray(), method="ordinal", axis=1)
    np.testing.assert_allclose(measure.between(EVERY, EVERY), 1 - np.corrcoef(whole), atol=2e-6)


def test_zeros_at_random_are_a_permutation_that_blocks_do_not_change(counts, monkeypatch):
    n_ranked = np.diff(counts.indptr)
    options = {"fill": n_ranked + 1.0, "zero_rule": distances.RANDOM_ORDER}
    ranks = ranked(counts, "first")
    measure = distances.RowCorrelation(ranks, seeds=np.arange(60), **options)
    order = stats.rankdata(measure.standard_rows(), axis=1)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(1.0, 81), (60, 1)))
    dense = counts.toarray()
    for cell in range(60):
        assert set(order[cell][dense[cell] == 0]) == set(range(n_ranked[cell] + 1, 81))
    monkeypatch.setattr(distances, "_DENSE_BYTES", 0)
    again = distances.RowCorrelation(ranks, seeds=np.arange(60), **options)
    np.testing.assert_array_equal(again.between(slice(7, 9), EVERY), measure.between(slice(7, 9), EVERY))
    other = distances.RowCorrelation(ranks, seeds=np.arange(60) + 100, **options)
    assert (other.standard_rows() != measure.standard_rows()).any(1).all()


def test_random_zeros_are_uniform():
    # the place of one gene among 20 zeros, over many cells
    empty = sparse.csr_matrix((20_000, 20))
    measure = distances.RowCorrelation(
        empty,
        fill=np.ones(20_000),
        zero_rule=distances.RANDOM_ORDER,
        seeds=np.random.default_rng(1).integers(2**63, size=20_000),
    )
    places = stats.rankdata(measure.standard_rows(), axis=1)
    for gene in (0, 7, 19):
        assert stats.chisquare(np.bincount(places[:, gene].astype(int), minlength=21)[1:]).pvalue > 1e-3


def test_shared_genes_only(counts):
    ranks = ranked(counts)
    found = distances.SharedCorrelation(ranks).between(slice(0, 20), slice(20, 60))
    dense = ranks.toarray()
    n_checked = 0
    for i in range(20):
        for j in range(20, 60):
            both = (dense[i] > 0) & (dense[j] > 0)
            a, b = dense[i][both], dense[j][both]
            if both.sum() < 5 or np.ptp(a) == 0 or np.ptp(b) == 0:
                assert np.isnan(found[i, j - 20])
            else:
                assert found[i, j - 20] == pytest.approx(1 - np.corrcoef(a, b)[0, 1], abs=1e-4)
                n_checked += 1
    assert n_checked > 500


def test_constant_rows_have_no_correlation():
    rows = sparse.csr_matrix([[0.0, 0, 0], [1, 2, 0], [2, 1, 0]])
    found = distances.RowCorrelation(rows).between(slice(0, 3), slice(0, 3))
    assert np.isnan(found[0]).all() and np.isnan(found[:, 0]).all()
    assert np.isfinite(found[1:, 1:]).all()


@pytest.mark.parametrize("block_bytes", [80 * 4 * 7, 2**20])
def test_medians_of_groups(counts, block_bytes, monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK_BYTES", block_bytes)
    sizes = np.array([10, 1, 25, 24])
    group = np.repeat(np.arange(4), sizes)
    full = 1 - stats.spearmanr(counts.toarray(), axis=1).statistic
    median, n_pairs = distances.group_medians(spearman(counts), sizes)
    for a in range(4):
        for b in range(4):
            block = full[np.ix_(group == a, group == b)]
            values = block[np.triu_indices(len(block), 1)] if a == b else block.ravel()
            assert n_pairs[a, b] == len(values)
            if len(values):
                assert median[a, b] == pytest.approx(np.median(values), abs=1e-5)
    assert np.isnan(median[1, 1])  # one cell has no pair


@pytest.mark.parametrize("block_bytes", [80 * 4 * 7, 2**20])
def test_nearest(counts, block_bytes, monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK_BYTES", block_bytes)
    points = np.random.default_rng(0).normal(size=(60, 3))
    queries = np.array([0, 1, 2, 3, 10, 11, 40])
    found = distances.nearest(distances.Euclidean(points), queries, 5)
    full = cdist(points, points)
    np.fill_diagonal(full, np.inf)
    for query, row in zip(queries, found, strict=True):
        assert set(row) == set(np.argsort(full[query])[:5])


def test_rows_without_distance_have_no_neighbors():
    rows = sparse.csr_matrix([[0.0, 0, 0], [1, 2, 0], [2, 1, 0]])
    found = distances.nearest(distances.RowCorrelation(rows), np.arange(3), 2)
    assert (found[0] == -1).all()
    assert sorted(found[1]) == [-1, 2]
