"""Checks of single values: what passes comes back as a plain number, what does not is named."""

from __future__ import annotations

import numpy as np
import pytest

from sparsesc._values import check_memory, check_share


@pytest.mark.parametrize("value", [0.5, np.float32(0.5)])
def test_a_share_comes_back_as_a_number(value):
    assert check_share(value, name="x") == 0.5
    assert type(check_share(value, name="x")) is float


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, np.nan, True, "half", None])
def test_what_is_no_share_is_refused(value):
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        check_share(value, name="alpha")


def test_bounds_of_a_share():
    assert check_share(1, name="x", or_most=True) == 1
    with pytest.raises(ValueError, match=r"x must lie between 0 and 0.5 \(of cells\), found 0.5"):
        check_share(0.5, name="x", most=0.5, of="of cells")


def test_memory_is_in_bytes():
    assert check_memory(2) == 2 * 2**30
    for value in (0, -1, True, "4 GB"):
        with pytest.raises(ValueError, match="max_memory must be a positive number of GiB"):
            check_memory(value)
