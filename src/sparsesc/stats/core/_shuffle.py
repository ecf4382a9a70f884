"""Groups dealt anew, for nulls."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def shuffled_within(groups: np.ndarray, parts: Iterable[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Groups dealt anew among the rows of each part: their sizes stay as they are in all of them."""
    out = groups.copy()
    for rows in parts:
        out[rows] = groups[rng.permutation(rows)]
    return out
