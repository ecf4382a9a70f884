from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import kneighbors_graph

from sparsesc.stats.groups._label_fields import N_NEIGHBORS, CellGraph, label_fields, smoothness


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(500, 3))


@pytest.fixture(scope="module")
def graph(X):
    return CellGraph.of(X)


def test_graph_is_that_of_sklearn(X, graph):
    links = kneighbors_graph(X, N_NEIGHBORS + 1, include_self=True).toarray() > 0
    links = (links | links.T) & ~np.eye(len(X), dtype=bool)
    dense = np.zeros_like(links)
    dense[graph.pairs] = True
    assert (dense == links).all()
    np.testing.assert_allclose(np.asarray(graph.walk.sum(axis=1)).ravel(), 1, rtol=1e-5)


def test_agreement_is_the_share_of_neighbors_with_one_label(graph):
    assert graph.agreement(np.zeros(500, int)) == 1
    assert graph.agreement(np.arange(500)) == 0
    shuffled = np.random.default_rng(1).permutation(np.arange(500) % 4)
    assert graph.agreement(shuffled) == pytest.approx(0.25, abs=0.03)


def test_random_labels_have_about_the_sizes_asked_for(graph):
    sizes = np.array([250, 0, 150, 90, 10])
    drawn = np.array(
        [np.bincount(labels, minlength=5) for labels in label_fields(graph, sizes, 4, 40, np.random.default_rng(0))]
    )
    assert (drawn.sum(axis=1) == 500).all()
    assert (drawn[:, 1] == 0).all()
    ratio = np.maximum(drawn, sizes)[:, [0, 2, 3]] / np.minimum(drawn, sizes).clip(1)[:, [0, 2, 3]]
    # at most a third off, but for the label that comes last and gets the rest
    assert (ratio.round(2) <= 1.36).mean() > 0.75
    np.testing.assert_allclose(drawn.mean(axis=0)[[0, 2]], sizes[[0, 2]], rtol=0.25)


def test_random_labels_end_between_clusters():
    """Two islands of 240 and 260 cells, and two labels of 250: random labels of one island each are the island."""
    islands = np.repeat([0, 1], [240, 260])
    X = np.random.default_rng(0).normal(size=(500, 2)) + 50 * islands[:, None]
    graph = CellGraph.of(X)
    sizes = np.array([250, 250])
    parted = [1 - graph.agreement(labels) for labels in label_fields(graph, sizes, 60, 20, np.random.default_rng(0))]
    exact = []
    rng = np.random.default_rng(1)
    for _ in range(20):
        field = rng.normal(size=500)
        for _ in range(60):
            field = graph.walk @ field
        exact.append(1 - graph.agreement((field > np.median(field)).astype(int)))
    assert np.mean(parted) < 0.7 * np.mean(exact)


@pytest.mark.parametrize("steps", [3, 12])
def test_random_labels_are_as_smooth_as_given_ones(graph, steps):
    sizes = np.array([200, 150, 100, 50])
    given = list(label_fields(graph, sizes, steps, 10, np.random.default_rng(3)))
    found = [smoothness(graph, labels, 4, np.random.default_rng(4)) for labels in given]
    wanted = np.mean([graph.agreement(labels) for labels in given])
    drawn = [
        graph.agreement(drawn)
        for labels, n in zip(given, found, strict=True)
        for drawn in label_fields(graph, np.bincount(labels, minlength=4), n, 5, np.random.default_rng(5))
    ]
    assert np.mean(drawn) == pytest.approx(wanted, abs=0.03)


def test_same_rng_same_labels(graph):
    one, two = (next(label_fields(graph, np.array([300, 200]), 5, 1, np.random.default_rng(7))) for _ in range(2))
    assert (one == two).all()
