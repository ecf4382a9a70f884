from __future__ import annotations

import numpy as np
from scipy import sparse

from sparsesc.tl.genes._shuffled_copies import shuffled_copies


def codes():
    rng = np.random.default_rng(0)
    dense = rng.gamma(2, size=(300, 5)) * (rng.random((300, 5)) < [0.02, 0.1, 0.5, 1.0, 0.0])
    return sparse.csr_matrix(dense.astype(np.float32))


def test_copies_hold_the_same_values_in_other_cells():
    Z = codes()
    features = np.array([2, 0, 2, 3, 4, 1])
    copies = shuffled_copies(Z, None, features=features, rng=np.random.default_rng(1))
    assert copies.shape == (300, 6)
    np.testing.assert_array_equal(np.sort(copies.toarray(), axis=0), np.sort(Z.toarray()[:, features], axis=0))
    assert not np.array_equal(copies.toarray()[:, 0], copies.toarray()[:, 2])
    again = shuffled_copies(Z, None, features=features, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(again.toarray(), copies.toarray())


def test_every_cell_is_drawn_equally_often():
    copies = shuffled_copies(codes(), None, features=np.full(4000, 1), rng=np.random.default_rng(2))
    share = copies.getnnz(axis=1) / 4000
    assert abs(share.mean() - codes().getnnz(axis=0)[1] / 300) < 1e-9
    assert share.std() < 1.3 * np.sqrt(share.mean() * (1 - share.mean()) / 4000)


def test_samples_keep_their_values():
    Z = codes()
    samples = np.repeat([0, 1, 3], [100, 150, 50])  # a sample may have no cells
    copies = shuffled_copies(Z, samples, features=np.arange(5), rng=np.random.default_rng(3)).toarray()
    for sample in (0, 1, 3):
        mine = samples == sample
        np.testing.assert_array_equal(np.sort(copies[mine], axis=0), np.sort(Z.toarray()[mine], axis=0))
    assert not np.array_equal(copies, Z.toarray())
