"""Label transfer by neighbors in other batches."""

from __future__ import annotations

import numpy as np
import pytest

from sparsesc.stats.groups._transfer import known_elsewhere, transfer_labels, transfer_scores


def test_only_other_batches_vote():
    """Within a batch the nearest rows have the wrong label, across batches the right one."""
    labels = np.tile([0, 1], 20)
    batches = np.repeat([0, 1], 20)
    X = np.column_stack([np.where(batches == 0, labels, labels) * 10.0, batches * 0.1])
    rng = np.random.default_rng(0)
    X += 0.01 * rng.normal(size=X.shape)
    queries = np.arange(40) % 3 > 0
    found = transfer_labels(X, labels, batches, queries, n_neighbors=3)
    np.testing.assert_array_equal(found[queries], labels[queries])
    assert (found[~queries] == -1).all()
    swapped = np.where(batches == 0, 1 - labels, labels)  # batch 0 calls things by the other name
    found = transfer_labels(X, swapped, batches, queries, n_neighbors=3)
    np.testing.assert_array_equal(found[queries], 1 - swapped[queries])


def test_rows_without_a_label_do_not_vote():
    X = np.array([[0.0], [0.1], [5.0], [0.05]])
    found = transfer_labels(X, np.array([-1, 1, 0, 1]), np.array([0, 0, 0, 1]), np.arange(4) == 3, n_neighbors=1)
    assert found[3] == 1
    found = transfer_labels(X, np.array([0, 1, 0, 1]), np.zeros(4, int), np.ones(4, bool), n_neighbors=1)
    assert (found == -1).all()  # there is no other batch


def test_labels_of_one_batch_cannot_be_transferred():
    labels, batches = np.array([0, 0, 1, 1, 2, -1]), np.array([0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(known_elsewhere(labels, batches), [True, True, False, False, False, False])


def test_scores():
    labels, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 2])
    accuracy, f1 = transfer_scores(predicted, labels)
    assert accuracy == 0.5
    assert f1 == pytest.approx((2 * 2 / (2 * 2 + 1) + 0) / 2)  # of the labels there are, not of those predicted
