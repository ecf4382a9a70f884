"""Labels that go with the donor of a cell, and features that do so, too: for ``benchmarks/calibration.py``."""

from __future__ import annotations

import numpy as np

from benchmarks._known_truth import CELLS, FEATURES, Draw, _active, _cells

DONORS, TYPES = 8, 4


def labels_of_donors(rng: np.random.Generator, *, shuffled: bool, changed: int = 0) -> Draw:
    """Donors of unlike size, composition, depth and features; labels that say nothing beyond the donor of a cell.

    Labels are the types of cells, shuffled within donors, or drawn by lot with shares that differ by donor. Features
    follow the donor, the type and the depth of a cell; so many of them the label as well, to a degree that differs by
    donor.
    """
    donor = rng.choice(DONORS, size=CELLS, p=rng.dirichlet(np.full(DONORS, 8.0)))
    kind = np.array([rng.choice(TYPES, p=share) for share in rng.dirichlet(np.full(TYPES, 2.0), size=DONORS)[donor]])
    depth = rng.normal(size=CELLS) + rng.normal(scale=0.5, size=DONORS)[donor]
    if shuffled:
        label = kind.copy()
        for one in range(DONORS):
            rows = np.flatnonzero(donor == one)
            label[rows] = kind[rng.permutation(rows)]
    else:
        label = (rng.random(CELLS) < rng.beta(2, 2, size=DONORS)[donor]).astype(int)
    odds = -1.6 + rng.normal(scale=0.5, size=(DONORS, FEATURES))[donor] + rng.normal(size=(TYPES, FEATURES))[kind]
    odds += np.outer(depth, rng.normal(scale=0.4, size=FEATURES))
    slope = 1.2 + rng.normal(scale=0.3, size=(DONORS, changed))[donor]
    odds[:, :changed] += np.where(label[:, None] == np.arange(changed) % (TYPES if shuffled else 2), slope, 0)
    adata = _cells(_active(odds, rng), label=label, sample=donor)
    return Draw(adata, truth={f"sae_{f}" for f in range(changed)})
