from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import stats

from sparsesc import _logging
from sparsesc._random import as_generator
from sparsesc._values import check_choice, check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door._counts import check_target_sum, count_rows, expression_rows

from ._cell_sentences import ORDERED_TIES
from ._order import order_rows, positions_in_rows
from ._sentence_line import SentenceLine

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike


def fit_sentence_line(
    adata: AnnData,
    *,
    layer: str | None = None,
    normalize: bool = True,
    target_sum: float = 1e4,
    n_fit: int | None = None,
    ties: Literal["random", "first"] = "random",
    rng: SeedLike | RNGLike | None = 0,
) -> SentenceLine:
    r"""Fit expression as a line in log10(1 + rank): the way back from a sentence to a cell, and how exact it is.

    One line is fitted by least squares to all pairs of a cell and an expressed gene.

    Parameters
    ----------
    adata
        Cells x genes, counts.
    layer
        Layer to read instead of ``X``.
    normalize
        Scale the counts of each cell to `target_sum` and take log10(1 + x), as published. ``False``: use the values as
        they are, on any scale.
    target_sum
        Counts per cell after normalization.
    n_fit
        Fit on the first `n_fit` genes of each cell; ``None``: on all. Scores are always over all expressed genes.
    ties
        Genes of equal value in a cell: ``"random"``, as published, or ``"first"``: in the order of ``var_names``.
    rng
        Draws the order of ties with ``ties="random"``: as in :func:`cell_sentences`, so that the same number gives
        the ranks of its sentences.

    Returns
    -------
    The line, with `r2`, `pearson` and `spearman` of expression and the values of the line over all non-zero entries.

    Raises
    ------
    KeyError
        If `layer` does not exist.
    ValueError
        If the values look log-normalized although `normalize` asks for counts, are negative or not finite, or there
        are fewer than two different ranks.

    See Also
    --------
    sparsesc.pp.cell_sentences : Writes the sentences.
    sparsesc.pp.sentences_to_expression : Reads sentences by the line.

    Notes
    -----
    The line and its score are

    .. math::

        \hat e_{ig} = a + b \log_{10}(1 + r_{ig}), \qquad
        R^2 = 1 - \frac{\sum (e_{ig} - \hat e_{ig})^2}{\sum (e_{ig} - \bar e)^2},

    where :math:`e_{ig}` is the log-normalized expression of gene :math:`g` in cell :math:`i`, :math:`r_{ig}` its rank
    in the sentence (0 for the first word), and sums are over the values that are not zero, the same that the line is
    fitted to. `pearson` and `spearman` compare expression with the values of the line (for a falling line, Spearman's
    coefficient is that of expression and reversed rank over all cells).

    When not to trust it: a high :math:`R^2` says that one curve fits the ranked expression of all cells, as it does in
    any data whose cells have similar depth. It does not say that differences between cells survive.

    References
    ----------
    Levine et al. (2024), Cell2Sentence: teaching large language models the language of biology, *Proceedings of ICML*.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs(n_cells=100, n_genes=200, count_noise="poisson")
    >>> line = ssc.pp.fit_sentence_line(adata)
    >>> bool(line.slope < 0), bool(0 < line.r2 < 1)
    (True, True)
    >>> ssc.pp.sentences_to_expression(adata, ssc.pp.cell_sentences(adata), line).shape
    (100, 200)
    """
    check_choice(ties, ORDERED_TIES, name="ties")
    n_fit = n_fit if n_fit is None else check_positive_int(n_fit, name="n_fit")
    check_target_sum(target_sum)
    generator = as_generator(rng)
    check.check_adata(adata)
    rows = count_rows(adata, layer) if normalize else expression_rows(adata, layer)[0]
    order = order_rows(rows, rng=generator if ties == "random" else None)
    rank = positions_in_rows(rows.indptr)
    values = rows.data[order].astype(np.float64)
    if normalize:
        n_per_row = np.diff(rows.indptr)
        expressed = n_per_row > 0
        total = np.asarray(rows.sum(axis=1, dtype=np.float64)).ravel()[expressed]
        values = np.log10(1.0 + values * np.repeat(target_sum / total, n_per_row[expressed]))
    fitted = slice(None) if n_fit is None else rank < n_fit
    x, y = np.log10(1.0 + rank[fitted]), values[fitted]
    if len(y) < 2 or x.min() == x.max():
        msg = "A line needs cells with at least two expressed genes: there are none here (or n_fit is 1)."
        raise ValueError(msg)
    slope, intercept = np.polynomial.polynomial.polyfit(x, y, 1)[::-1]
    predicted = intercept + slope * np.log10(1.0 + rank)
    spread = float(((values - values.mean()) ** 2).sum())
    if not spread > 0 or slope == 0:
        msg = "Expression has one value in all cells and genes: there is no line to fit."
        raise ValueError(msg)
    line = SentenceLine(
        intercept=float(intercept),
        slope=float(slope),
        r2=1.0 - float(((values - predicted) ** 2).sum()) / spread,
        pearson=float(stats.pearsonr(values, predicted).statistic),
        spearman=float(stats.spearmanr(values, predicted).statistic),
        n_values=len(values),
    )
    _logging.info(
        f"fit_sentence_line: expression = {line.intercept:.3g} + {line.slope:.3g} * log10(1 + rank), R2 {line.r2:.3f} "
        f"over {line.n_values} values"
    )
    return line
