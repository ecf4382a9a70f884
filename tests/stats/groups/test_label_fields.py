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


def test_random_labels_have_the_sizes_asked_for(graph):
    sizes = np.array([250, 0, 150, 90, 10])
    drawn = list(label_fields(graph, sizes, 4, 5, np.random.default_rng(0)))
    assert len(drawn) == 5
    for labels in drawn:
        assert np.bincount(labels, minlength=5).tolist() == sizes.tolist()
    assert len({labels.tobytes() for labels in drawn}) == 5


@pytest.mark.parametrize("steps", [0, 3, 12])
def test_random_labels_are_as_smooth_as_given_ones(graph, steps):
    sizes = np.array([200, 150, 100, 50])
    given = list(label_fields(graph, sizes, steps, 10, np.random.default_rng(3)))
    found = [smoothness(graph, labels, 4, np.random.default_rng(4)) for labels in given]
    wanted = np.mean([graph.agreement(labels) for labels in given])
    drawn = [
        graph.agreement(labels) for n in found for labels in label_fields(graph, sizes, n, 5, np.random.default_rng(5))
    ]
    assert np.mean(drawn) == pytest.approx(wanted, abs=0.04)
    if steps == 0:
        assert max(found) <= 1


def test_same_rng_same_labels(graph):
    one, two = (next(label_fields(graph, np.array([300, 200]), 5, 1, np.random.default_rng(7))) for _ in range(2))
    assert (one == two).all()
