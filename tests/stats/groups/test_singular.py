from __future__ import annotations

import numpy as np

from sparsesc.stats.groups._singular import singular_groups


def test_exactly_one_group_over_all_groupings():
    first = np.array([[0.6, 0.1, 0.2], [0.6, -0.7, 0.0], [0.1, 0.2, -0.8], [0.4, 0.5, 0.3]])
    np.testing.assert_array_equal(singular_groups([first]), [0, -1, 2, -1])
    second = np.array([[0.1, -0.1], [0.2, -0.2], [0.9, -0.9], [-0.7, 0.7]])
    np.testing.assert_array_equal(singular_groups([first, second]), [0, -1, -1, 4])


def test_two_groups_are_one_contrast():
    r = np.array([[0.6, -0.6], [-0.9, 0.9], [0.2, -0.2]])
    np.testing.assert_array_equal(singular_groups([r]), [0, 1, -1])
