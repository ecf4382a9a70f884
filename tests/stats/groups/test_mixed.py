from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sparsesc.stats.groups._mixed import find_mixed

N = 600


@pytest.fixture(scope="module")
def cells():
    """Four labels; features of one label, of two at two levels, of two at one level, and of all."""
    rng = np.random.default_rng(0)
    groups = rng.choice(4, N, p=[0.05, 0.15, 0.4, 0.4])
    low, high = rng.uniform(0.2, 1, N), rng.uniform(1.5, 3, N)
    level = rng.uniform(0.2, 3, N)
    codes = np.stack(
        [
            np.where(groups == 1, level, 0),
            np.select([groups == 0, groups == 1], [high, low], 0),
            np.where(groups <= 1, level, 0),
            np.where(rng.random(N) < 0.3, level, 0),
        ],
        axis=1,
    )
    return codes, groups


def test_two_kinds_of_cells_at_two_levels_are_told_apart(cells):
    codes, groups = cells
    found = find_mixed(sparse.csr_matrix(codes), groups, n_groups=4)
    assert found.mixed.tolist() == [False, True, False, False]
    assert (found.strong[1], found.weak[1]) == (0, 1)
    assert found.n_strong[1] == pytest.approx((groups == 0).sum(), rel=0.6)


def test_levels_that_have_nothing_to_do_with_labels_are_not_mixed(cells):
    codes, groups = cells
    rng = np.random.default_rng(1)
    flagged = 0
    for _ in range(50):
        shuffled = codes.copy()
        for f in range(codes.shape[1]):  # the same cells are active, at other levels
            active = np.flatnonzero(codes[:, f])
            shuffled[active, f] = codes[rng.permutation(active), f]
        flagged += find_mixed(sparse.csr_matrix(shuffled), groups, n_groups=4).mixed.sum()
    assert flagged == 0


def test_few_active_cells_tell_nothing():
    codes = np.zeros((100, 1))
    codes[:6, 0] = 1
    assert not find_mixed(sparse.csr_matrix(codes), np.arange(100) % 2, n_groups=2).mixed.any()
