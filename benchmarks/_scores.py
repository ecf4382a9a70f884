"""Held-out scores of a representation against labels, as ``ssc.tl.compare_representations`` has them, on arrays.

Half of each label's cells choose the feature (either sign), the other half score it.

- ``auroc``: mean over labels of the chosen feature's AUROC; ``ge90``: labels for which it is at least .90.
- ``f1``: mean over labels of the F1 of the best feature, direction and threshold.
- ``lms``, ``msas``: DRVI's matching sum and mean maximum (Moinfar and Theis 2024) over SMI, the mutual information of
  ten equal-width bins with the label, over the label's entropy.
- ``covered``: labels with |Pearson r| > .5 to a feature that has it to no other label (all cells).

All other metrics have the names that ``ssc.tl.compare_representations`` gives them.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sparsesc.stats.features._duplicates import distinct_columns
from sparsesc.stats.groups._representation import RepresentationScores


def test_cells(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of each label's cells, (n,) bool: those that score what the others chose."""
    names, groups = np.unique(labels.astype(str), return_inverse=True)
    test = np.zeros(len(groups), bool)
    for c in range(len(names)):
        members = rng.permutation(np.flatnonzero(groups == c))
        test[members[: len(members) // 2]] = True
    return test


def scores(
    Z: np.ndarray | sparse.spmatrix, labels: np.ndarray, *, rng: np.random.Generator, min_cells: int = 10
) -> dict[str, float]:
    """Scores of ``Z`` (cells x features, dense or sparse) for all labels with at least ``min_cells`` cells."""
    _, groups, sizes = np.unique(labels.astype(str), return_inverse=True, return_counts=True)
    test = test_cells(labels, rng)
    codes = sparse.csr_matrix(Z)
    judged = sizes >= max(min_cells, 4)
    found = RepresentationScores(codes, ~test, distinct_columns(codes)).scores(groups, judged)
    n_labels = int(judged.sum())
    return found | {
        "ge90": round(found["coverage"] * n_labels),
        "lms": found["lms_smi"],
        "msas": found["msas_smi"],
        "covered": int(found["singular_labels"]),
        "n_labels": n_labels,
    }
