"""What decides every statistic of a feature and a gene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

METHODS = ("contrast", "correlation")
PVALUES = ("permutation", "parametric")
SPLITS = ("cells", "counts")


@dataclass(frozen=True)
class GeneSettings:
    """Options of :func:`sparsesc.tl.feature_genes` that change its statistics; stored, to compute them again."""

    method: str
    pvalues: str
    use_raw: bool
    min_cells: int
    skew_guard: float
    seed: int
    """Draws the silent cells, where they are sampled, and the held-out cells, where they are drawn."""
    quantile: float | None = None
    """``None``: strong cells are those in which a feature is on."""
    layer: str | None = None
    n_silent: int | None = None
    """``None``: all silent cells."""
    split: str | None = None
    holdout: float | str | None = None
    """``None``: the cells that the fit held out; a share; or a column of ``obs``."""
    sample_key: str | None = None
    """``None``: cells are the replicates."""
    min_samples: int = 3
    min_cells_per_sample: int = 5

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> GeneSettings:
        """From what came back from a file, where numbers may be arrays."""
        return cls(**{name: np.asarray(stored[name]).item() for name in cls.__dataclass_fields__ if name in stored})
