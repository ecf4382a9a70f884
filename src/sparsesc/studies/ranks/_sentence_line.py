"""The line between the rank of a gene in its sentence and its expression."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class SentenceLine:
    """Expression as a line in the logarithm of the rank, and how well it holds.

    ``expression = intercept + slope * log10(1 + rank)``, where the first word of a sentence has rank 0.
    """

    intercept: float
    slope: float
    r2: float
    """Coefficient of determination of expression by the line."""
    pearson: float
    """Correlation of expression with what the line gives."""
    spearman: float
    """Rank correlation of the same."""
    n_values: int
    """Pairs of cell and expressed gene that were scored."""

    def predict(self, rank: np.ndarray) -> np.ndarray:
        """Expression at these ranks (0 for the first word), not below 0."""
        return np.maximum(self.intercept + self.slope * np.log10(1.0 + np.asarray(rank, dtype=np.float64)), 0.0)

    def to_dict(self) -> dict[str, float | int]:
        """As plain values, for a table or ``uns``."""
        return asdict(self)
