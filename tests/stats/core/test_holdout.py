from __future__ import annotations

import numpy as np
import pytest

from sparsesc.stats.core._holdout import stratified_holdout


def test_one_grouping_is_halved_exactly():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), [1, 2, 3, 10, 41, 300])
    rng.shuffle(groups)
    held = stratified_holdout([groups], 0.5, rng)
    counts = np.bincount(groups[held], minlength=6)
    sizes = np.bincount(groups)
    assert (np.abs(counts - sizes / 2) <= 0.5).all()
    assert counts[1] == 1
    assert 1 <= counts[2] <= 2


def test_every_label_of_ten_cells_is_on_both_sides_of_many_groupings():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        groupings = [rng.integers(0, n, 600) for n in (3, 8, 40)]
        groupings[1][:50] = -1  # no label
        held = stratified_holdout(groupings, 0.5, rng)
        assert abs(held.mean() - 0.5) < 0.05
        for groups in groupings:
            sizes = np.bincount(groups[groups >= 0])
            share = np.bincount(groups[held & (groups >= 0)], minlength=len(sizes)) / sizes
            assert (np.abs(share - 0.5)[sizes >= 10] < 0.35).all()


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_share_is_met_without_groupings(fraction):
    held = stratified_holdout([], fraction, np.random.default_rng(0), n_rows=1000)
    assert abs(held.mean() - fraction) < 0.002


def test_same_rng_same_cells():
    groups = [np.arange(100) % 7]
    first, again, other = (stratified_holdout(groups, 0.5, np.random.default_rng(s)) for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
