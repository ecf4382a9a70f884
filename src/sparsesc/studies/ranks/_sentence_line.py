"""The line between the rank of a gene in its sentence and its expression."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class SentenceLine:
    r"""Expression as a line in the logarithm of the rank, with scores of the fit.

    :func:`sparsesc.pp.fit_sentence_line` makes it.

    See Also
    --------
    sparsesc.pp.fit_sentence_line : Fits the line to cells.
    sparsesc.pp.sentences_to_expression : Reads sentences by it.

    Notes
    -----
    The line is

    .. math:: e = a + b \log_{10}(1 + r),

    with the `intercept` :math:`a`, the `slope` :math:`b` and the rank :math:`r`, 0 for the first word of a sentence.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> line = ssc.pp.SentenceLine(intercept=2.0, slope=-1.0, r2=0.8, pearson=0.9, spearman=0.9, n_values=1000)
    >>> line.predict([0, 9, 999])
    array([2., 1., 0.])
    """

    intercept: float
    slope: float
    r2: float
    """Coefficient of determination of expression by the line."""
    pearson: float
    """Correlation of expression with the values of the line."""
    spearman: float
    """Rank correlation of the same."""
    n_values: int
    """Number of pairs of a cell and an expressed gene in the scores."""

    def predict(self, rank: np.ndarray) -> np.ndarray:
        """Expression at these ranks (0 for the first word), at least 0."""
        return np.maximum(self.intercept + self.slope * np.log10(1.0 + np.asarray(rank, dtype=np.float64)), 0.0)

    def to_dict(self) -> dict[str, float | int]:
        """The line as a dictionary of numbers, for a table or ``uns``."""
        return asdict(self)
