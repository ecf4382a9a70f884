from __future__ import annotations

import numpy as np

from sparsesc.studies.ranks._neighbors import group_means, same_batch, same_group, weighted_means


def test_shares_by_hand():
    groups = np.array([0, 0, 0, 1, 1, 1])
    batches = np.array([0, 0, 1, 1, 1, 0])
    neighbors = np.array([[1, 3], [1, -1], [-1, -1]])
    queries = np.array([0, 2, 4])
    share, expected = same_group(neighbors, queries, groups)
    np.testing.assert_array_equal(share, [0.5, 1.0, np.nan])
    np.testing.assert_allclose(expected, 2 / 5)
    share, expected = same_batch(neighbors, queries, batches, groups)
    # cell 0 (batch 0): neighbor 1 is in its batch, 3 is not; of the other cells of type 0, one of two is in batch 0,
    # of type 1 one of three
    np.testing.assert_array_equal(share, [0.5, 0.0, np.nan])
    np.testing.assert_allclose(expected, [(1 / 2 + 1 / 3) / 2, 0.0, np.nan])


def test_shares_of_random_neighbors_are_those_expected():
    rng = np.random.default_rng(0)
    n = 3000
    groups = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    batches = np.where(groups == 3, 2, rng.choice(3, n, p=[0.6, 0.3, 0.1]))  # one type in one batch only
    queries = np.arange(n)
    inside = np.stack([rng.permutation(n)[:20] for _ in range(n)])
    inside = np.where(inside == queries[:, None], -1, inside)
    for share, expected in (same_group(inside, queries, groups), same_batch(inside, queries, batches, groups)):
        assert abs(share.mean() - expected.mean()) < 0.01
    # neighbors of the same type, batches mixed: no batch effect, although batches and types go together
    own = np.stack([rng.permutation(np.flatnonzero(groups == g))[:20] for g in groups])
    own = np.where(own == queries[:, None], -1, own)
    share, expected = same_batch(own, queries, batches, groups)
    assert abs(share.mean() - expected.mean()) < 0.01
    assert share[groups == 3].min() == expected[groups == 3].min() == 1


def test_means_leave_out_what_is_missing():
    means = group_means(np.array([1.0, 3.0, np.nan, 5.0]), np.array([0, 0, 1, 2]), 3)
    np.testing.assert_array_equal(means, [2.0, np.nan, 5.0])
    np.testing.assert_allclose(weighted_means(means, np.array([[1, 1, 1], [3, 5, 1], [0, 1, 0]])), [3.5, 2.75, np.nan])
