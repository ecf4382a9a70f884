from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sparsesc.stats.groups._label_fields import CellGraph, label_fields
from sparsesc.stats.groups._smooth_null import smooth_null

N, N_TYPES = 600, 12


@pytest.fixture(scope="module")
def cells():
    """Twelve overlapping types on a plane, and features: two regions of each type, and regions drawn at random."""
    rng = np.random.default_rng(0)
    types = rng.integers(N_TYPES, size=N)
    X = rng.normal(size=(N_TYPES, 2))[types] * 3 + rng.normal(size=(N, 2))
    of_types = np.array([(types == t) & (rng.random(N) < 0.8) for t in range(N_TYPES)]).T
    drawn = label_fields(CellGraph.of(X), np.full(20, N // 20), 8, 2, rng)
    elsewhere = np.concatenate([np.eye(20)[labels] for labels in drawn], axis=1) > 0
    on = sparse.csr_matrix(np.concatenate([of_types, elsewhere], axis=1).astype(np.float32))
    return X, on, types, rng.random(N) < 0.5


def test_labels_that_the_features_know_stand_out(cells):
    X, on, types, test = cells
    found = smooth_null(X, on, types, test, n_groups=N_TYPES, rng=np.random.default_rng(0))
    assert found.pval == 1 / 300
    assert found.statistic > found.null.max()
    assert found.n_same == 0


def test_random_regions_do_not(cells):
    """Regions drawn in other ways: quantiles of one smooth field, and the largest of several."""
    X, on, _, test = cells
    walk, rng = CellGraph.of(X).walk, np.random.default_rng(0)
    p = []
    for steps in (3, 10, 30):
        for i in range(10):
            fields = rng.normal(size=(N, 6))
            for _ in range(steps):
                fields = walk @ fields
            fields = (fields - fields.mean(axis=0)) / fields.std(axis=0)
            labels = pd.qcut(fields[:, 0], 6, labels=False) if i % 2 else fields.argmax(axis=1)
            labels = np.unique(labels, return_inverse=True)[1]
            p.append(smooth_null(X, on, labels, test, n_groups=6, rng=np.random.default_rng(i), n_draws=59).pval)
    p = np.array(p)
    assert (p < 0.02).mean() <= 0.07
    assert 0.25 < p.mean() < 0.6


def test_labels_that_are_shuffled_do_not_stand_out(cells):
    X, on, types, test = cells
    shuffled = np.random.default_rng(3).permutation(types)
    found = smooth_null(X, on, shuffled, test, n_groups=N_TYPES, rng=np.random.default_rng(0), n_draws=99)
    assert found.pval > 0.05
    assert found.steps == 0


def test_two_islands_cannot_be_told_from_random_labels():
    """Any smooth labels of two distant clusters are the clusters: there is no null, and the p-value says so."""
    rng = np.random.default_rng(0)
    types = np.repeat([0, 1], 150)
    X = rng.normal(size=(300, 2)) + 100 * types[:, None]
    on = sparse.csr_matrix(np.eye(2, dtype=np.float32)[types])
    found = smooth_null(X, on, types, rng.random(300) < 0.5, n_groups=2, rng=rng, n_draws=49)
    assert found.n_same > 25
    assert np.isnan(found.pval)


def test_cells_are_drawn_where_there_are_many(cells):
    X, on, types, test = cells
    one, two = (
        smooth_null(X, on, types, test, n_groups=N_TYPES, rng=np.random.default_rng(0), n_draws=19, max_cells=300)
        for _ in range(2)
    )
    assert (one.null == two.null).all()
    assert one.pval == 1 / 20
