from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.metrics.pairwise import cosine_similarity

from sparsesc.stats.features._coactivation import CoActivation
from sparsesc.stats.features._neighbors import CosineOfRows, PearsonOfColumns, leaders, neighbors


@pytest.mark.parametrize("max_bytes", [1e9, 48 * 64 * 10])
def test_neighbors_agree_with_all_pairs(pbmc68k_code, max_bytes):
    codes = pbmc68k_code.obsm["X_sae"]
    dense = codes.toarray().astype(float)
    r = np.corrcoef(dense, rowvar=False)
    np.fill_diagonal(r, -2)
    found = neighbors(CoActivation(codes), None, n_top=3, threshold=0.6, max_bytes=max_bytes)
    assert (found.feature != found.neighbor).all()
    for feature in range(64):
        rows = found.feature == feature
        order = [j for j in np.argsort(-r[feature], kind="stable")[:3] if r[feature, j] > 0]
        assert found.neighbor[rows].tolist() == order
        np.testing.assert_allclose(found.score[rows], r[feature, order])
        assert found.rank[rows].tolist() == list(range(1, len(order) + 1))
    one, two = np.triu_indices(64, 1)
    both, n = ((dense > 0).T.astype(int) @ (dense > 0))[one, two], (dense > 0).sum(0)
    law = stats.hypergeom(len(dense), n[one], n[two])
    p = np.minimum(2 * np.minimum(law.sf(both - 1), law.cdf(both)), 1)
    adjusted = np.zeros((64, 64))
    adjusted[one, two] = adjusted[two, one] = stats.false_discovery_control(p)
    exact = max_bytes > 1e6  # with less memory, adjusted p-values are rounded up
    np.testing.assert_allclose(found.padj, adjusted[found.feature, found.neighbor], rtol=1e-6 if exact else 0.02)
    assert found.n_tests == 64 * 63 / 2


def test_other_similarities_agree_with_others(pbmc68k_code):
    rng = np.random.default_rng(0)
    directions = np.vstack([rng.normal(size=(30, 12)), np.zeros(12)]).astype(np.float32)
    np.testing.assert_allclose(CosineOfRows(directions)(4, 31), cosine_similarity(directions)[4:31], atol=1e-6)
    genes = rng.normal(0.5, 1, size=(200, 31)).astype(np.float32)
    genes[:, 7] = 0
    expected = np.corrcoef(np.delete(genes, 7, axis=1), rowvar=False)
    padded = np.vstack([genes, np.zeros((50, 31), np.float32)])  # genes that were not tested
    found = PearsonOfColumns(padded)(0, 31)
    assert (found[7] == 0).all()
    np.testing.assert_allclose(np.delete(np.delete(found, 7, 0), 7, 1), expected, atol=1e-5)
    activity = CoActivation(pbmc68k_code.obsm["X_sae"][:, :31])
    near = neighbors(activity, PearsonOfColumns(padded), n_top=2, threshold=0.9, max_bytes=1e6)
    assert 7 not in near.feature
    assert near.leader[7] == 7


def test_groups_are_what_graph_theory_says(pbmc68k_code):
    dense = pbmc68k_code.obsm["X_sae"].toarray().astype(float)
    r = np.corrcoef(dense, rowvar=False)
    np.fill_diagonal(r, 0)
    adjacency = r > 0.3
    graph = nx.from_numpy_array(adjacency)
    leader = leaders(sparse.csr_matrix(adjacency), (dense > 0).sum(0))
    heads = set(leader.tolist())
    assert 5 < len(heads) < 60
    assert nx.is_dominating_set(graph, heads)
    assert not graph.subgraph(heads).edges
    assert all(node == head or graph.has_edge(node, head) for node, head in enumerate(leader))


def test_a_chain_is_not_one_group():
    chain = np.eye(7, k=1) + np.eye(7, k=-1)
    leader = leaders(sparse.csr_matrix(chain), np.ones(7))
    assert len(set(leader)) > 1
    assert np.bincount(leader).max() == 3


def test_copies_are_found_and_silent_features_are_left_out(pbmc68k_code):
    codes = pbmc68k_code.obsm["X_sae"].toarray()
    rng = np.random.default_rng(0)
    codes[:, 10] = codes[:, 3] * rng.uniform(0.9, 1.1, len(codes))
    codes[:, 20] = 0
    codes[:, 30], codes[:, 31] = 0, 0
    codes[5:10, 30] = codes[100:104, 31] = 0.01
    codes[5, 30] = codes[5, 31] = 9  # one cell in common is no evidence, although r is nearly 1
    found = neighbors(CoActivation(sparse.csr_matrix(codes)), None, n_top=5, threshold=0.9, max_bytes=1e6)
    assert found.leader[3] == found.leader[10]
    assert found.leader[20] == -1
    assert 20 not in found.feature
    assert 20 not in found.neighbor
    assert (found.leader[30], found.leader[31]) == (30, 31)
    assert len(set(found.leader)) == 63


def test_no_groups_among_independent_features():
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((400, 300)) < 10 ** rng.uniform(-2.6, -0.3, 300), rng.exponential(size=(400, 300)), 0)
    found = neighbors(CoActivation(sparse.csr_matrix(dense)), None, n_top=5, threshold=0.3, max_bytes=1e7)
    alive = found.leader >= 0
    assert (found.leader[alive] == np.flatnonzero(alive)).all()
    assert (found.score > 0.3).any()  # rare features share a cell by chance
