"""Exact selection against sorting."""

from __future__ import annotations

import numpy as np
import pytest

from sparsesc.nn.kernels import _select


def buffers(rows, features, k, blocks=8):
    groups = _select.n_groups(features, k)
    return {
        "index": np.empty((rows, features), np.int32),
        "value": np.empty((rows, features), np.float32),
        "count": np.zeros(rows, np.int64),
        "maxima": np.empty((blocks, groups), np.float32),
    }


@pytest.mark.parametrize(("features", "k"), [(7, 3), (64, 8), (130, 1), (257, 16), (1000, 8), (16, 16)])
def test_largest_of_each_row(features, k):
    rng = np.random.default_rng(features)
    pre, bias = rng.normal(size=(50, features)).astype(np.float32), rng.normal(size=features).astype(np.float32)
    b = buffers(50, features, k)
    _select.select_top_k(pre, bias, k, b["index"], b["value"], b["count"], b["maxima"], np.empty_like(pre[:8]))
    total = pre + bias
    for i, row in enumerate(total):
        expected = np.sort(np.argsort(-row)[:k])
        expected = expected[row[expected] > 0]
        assert b["index"][i, : b["count"][i]].tolist() == expected.tolist()
        np.testing.assert_array_equal(b["value"][i, : b["count"][i]], row[expected])


def test_ties_keep_k_and_the_first_features():
    pre = np.tile(np.float32([1, 2, 2, 2, 0, -1, 2, 1]), (3, 1))
    b = buffers(3, 8, 3)
    bias = np.zeros(8, np.float32)
    _select.select_top_k(pre, bias, 3, b["index"], b["value"], b["count"], b["maxima"], np.empty((8, 8), np.float32))
    assert b["index"][:, :3].tolist() == [[1, 2, 3]] * 3


@pytest.mark.parametrize("guess", [0.0, 0.5, 1.9, 100.0], ids=["none", "low", "close", "far too high"])
@pytest.mark.parametrize(("features", "k"), [(64, 4), (513, 9)])
def test_largest_of_the_batch_whatever_the_guess(features, k, guess):
    rng = np.random.default_rng(features)
    pre, bias = rng.normal(size=(80, features)).astype(np.float32), rng.normal(size=features).astype(np.float32)
    b = buffers(80, features, k)
    limit = _select.select_batch_top_k(
        pre, bias, k * 80, np.float32(guess), b["index"], b["value"], b["count"], b["maxima"]
    )
    total = pre + bias
    assert limit == np.sort(total.ravel())[-k * 80]
    assert b["count"].sum() == k * 80
    for i, row in enumerate(total):
        assert b["index"][i, : b["count"][i]].tolist() == np.flatnonzero(row >= limit).tolist()


def test_only_positive_entries_are_ever_active():
    pre = np.full((4, 32), -1, np.float32)
    pre[0, 5] = 2
    b = buffers(4, 32, 4)
    bias = np.zeros(32, np.float32)
    _select.select_batch_top_k(pre, bias, 16, np.float32(0), b["index"], b["value"], b["count"], b["maxima"])
    assert b["count"].tolist() == [1, 0, 0, 0]
