"""Which features correlate strongly with exactly one group? The count of sparseSC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def singular_groups(r: Sequence[np.ndarray], threshold: float = 0.5) -> np.ndarray:
    """The only group, over all groupings, that a feature is strongly correlated with.

    Parameters
    ----------
    r
        For each grouping, Pearson correlations, features x groups.
    threshold
        Strong is an absolute correlation above this.

    Returns
    -------
    Position of the group among all groups of all groupings, one a feature; -1 where none or several are strong. The two
    groups of a grouping into two have the same absolute r: they are one contrast, and count as its positive side.
    """
    strong = [np.abs(part) > threshold for part in r]
    strong = [s & (part > 0) if part.shape[1] == 2 else s for s, part in zip(strong, r, strict=True)]
    hits = np.concatenate(strong, axis=1)
    return np.where(hits.sum(axis=1) == 1, hits.argmax(axis=1), -1)
