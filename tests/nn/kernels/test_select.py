"""Exact selection against sorting."""

from __future__ import annotations

import numba as nb
import numpy as np
import pytest

from sparsesc.nn.kernels import _select
from sparsesc.nn.kernels._forward import select_rows


def rows_of(values, k):
    """The active entries of each row, chosen one row at a time."""
    n = _select.padded(values.shape[1])
    pre = np.full((len(values), n), 5, np.float32)  # padding that must not be seen
    pre[:, : values.shape[1]] = values
    bias = np.full(n, _select.NEVER, np.float32)
    bias[: values.shape[1]] = 0
    index, value = np.empty(n + 16, np.int32), np.empty(n + 16, np.float32)
    rows = []
    for i in range(len(values)):
        end = _select.top_k_of_row(pre.reshape(-1), i * n, bias, n, k, np.empty(n + 32, np.float32), index, value, 0)
        rows.append((index[:end].tolist(), value[:end].tolist()))
    return rows


@pytest.mark.parametrize(("features", "k"), [(7, 3), (64, 8), (130, 1), (257, 16), (1000, 8), (16, 16), (4096, 32)])
def test_largest_of_each_row(features, k):
    values = np.random.default_rng(features).normal(size=(50, features)).astype(np.float32)
    for row, (index, value) in zip(values, rows_of(values, k), strict=True):
        expected = np.sort(np.argsort(-row)[:k])
        expected = expected[row[expected] > 0]
        assert index == expected.tolist()
        assert value == row[expected].tolist()


@pytest.mark.parametrize("spread", [1e-6, 1e6], ids=["nearly equal", "far apart"])
def test_largest_when_values_are_close_or_wide(spread):
    values = (1 + spread * np.random.default_rng(0).random((20, 300))).astype(np.float32)
    for row, (index, _) in zip(values, rows_of(values, 9), strict=True):
        assert len(index) == 9
        assert row[index].min() >= np.sort(row)[-9]


def test_ties_keep_k_and_the_first_features():
    values = np.tile(np.float32([1, 2, 2, 2, 0, -1, 2, 1]), (3, 1))
    assert [index for index, _ in rows_of(values, 3)] == [[1, 2, 3]] * 3


@pytest.mark.parametrize("total", [1, 37, 300, 1000])
def test_limit_of_the_batch(total):
    rng = np.random.default_rng(total)
    value = np.full(4 * 1000, _select.NEVER, np.float32)
    start, stop, kept = np.arange(4) * 1000, np.arange(4) * 1000, []
    for block, n in enumerate((500, 3, 0, 700)):
        value[start[block] : start[block] + n] = rng.random(n)
        stop[block] += -(-n // 16) * 16
        kept.append(value[start[block] : start[block] + n])
    kept = np.sort(np.concatenate(kept))[::-1]
    limit = _select.batch_limit(value, start, stop, np.float32(1e-30), total)
    assert (kept >= limit).sum() == total


def test_limit_of_the_batch_keeps_all_that_are_equal():
    value = np.float32([3] * 5 + [2] * 20 + [1] * 7)
    assert _select.batch_limit(value, np.array([0]), np.array([32]), np.float32(0.5), 10) == 2


def test_only_positive_entries_are_ever_active():
    assert rows_of(-np.ones((2, 40), np.float32), 4) == [([], [])] * 2
    pre = np.full((4, 64), -1, np.float32)
    pre[0, 5] = 2
    index, value, bounds = np.empty(4096, np.int32), np.empty(4096, np.float32), np.zeros((3, 4), np.int64)
    for by_batch in (True, False):
        select_rows(
            0, 0, 4, pre, np.zeros(64, np.float32), 16, nb.float32(_select.SMALLEST), by_batch,
            np.empty(128, np.float32), index, value, bounds[0], bounds[1], bounds[2],
        )  # fmt: skip
        assert (bounds[1] - bounds[0]).tolist() == [1, 0, 0, 0]
        assert index[0] == 5
