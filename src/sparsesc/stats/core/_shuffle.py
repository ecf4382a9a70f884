"""How are groups shuffled for a null distribution?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def shuffled_within(groups: np.ndarray, parts: Iterable[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Shuffle groups among the rows of each part: the sizes of the groups stay the same in every part."""
    out = groups.copy()
    for rows in parts:
        out[rows] = groups[rng.permutation(rows)]
    return out
