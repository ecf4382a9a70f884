"""Neighbors of moved cells, against distances between all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sparsesc.stats.features._manifold import Manifold, same_length


@pytest.fixture
def cells():
    return np.random.default_rng(0).normal(size=(80, 4))


def test_neighbors_are_the_nearest_other_cells(cells):
    own = np.arange(0, 80, 2)
    moved = cells[own] + 0.3
    distance, index = Manifold(cells, n_neighbors=5).neighbors(moved, own)
    D = cdist(moved, cells)
    D[np.arange(len(own)), own] = np.inf
    np.testing.assert_array_equal(np.sort(index, axis=1), np.sort(np.argsort(D, axis=1)[:, :5], axis=1))
    np.testing.assert_allclose(distance, np.sort(D, axis=1)[:, :5].mean(1))


def test_position_without_a_cell_of_its_own_has_all_neighbors(cells):
    index = Manifold(cells, n_neighbors=5).neighbors(cells[:3], np.full(3, -1))[1]
    assert (index == np.arange(3)[:, None]).any(1).all()


def test_percentile_is_among_real_cells(cells):
    manifold = Manifold(cells, n_neighbors=5)
    with pytest.raises(RuntimeError, match="call set_real first"):
        manifold.percentile(np.zeros(1))
    manifold.set_real(cells, np.arange(80))
    real = manifold.neighbors(cells, np.arange(80))[0]
    np.testing.assert_allclose(manifold.percentile(np.sort(real)), np.arange(80) / 80)
    assert manifold.percentile(np.array([1e9]))[0] == 1


def test_too_few_cells(cells):
    with pytest.raises(ValueError, match="5 neighbors need more than 5 cells, found 5"):
        Manifold(cells[:5], n_neighbors=5)


def test_same_length_keeps_directions(cells):
    moves = cells[:10].copy()
    moves[3] = 0
    out = same_length(np.array([1.0, 1, 0, 0]), moves)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), np.linalg.norm(moves, axis=1))
    assert (out[:, 2:] == 0).all()
    assert (same_length(np.zeros(4), moves) == 0).all()
