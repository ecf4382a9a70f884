from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc._values import listing
from sparsesc.door import _checks as check
from sparsesc.door._counts import gene_names
from sparsesc.door._gene_names import check_coverage

from ._order import positions_in_rows
from ._sentence_line import SentenceLine

if TYPE_CHECKING:
    from anndata import AnnData


def sentences_to_expression(
    adata: AnnData,
    sentences: pd.Series | Sequence[str],
    line: SentenceLine,
    *,
    gene_key: str | None = None,
    sep: str = " ",
) -> sparse.csr_matrix:
    """Turn cell sentences back into expression, by the line of :func:`fit_sentence_line`.

    Parameters
    ----------
    adata
        Provides the genes of the result. Its cells need not be those of the sentences, which may come from a model.
    sentences
        One string per cell, as :func:`cell_sentences` writes them.
    line
        Expression at each rank.
    gene_key
        Column of ``var`` with the names that the sentences use; ``None``: ``var_names``.
    sep
        Separator between two names.

    Returns
    -------
    Expression, sentences x genes, CSR float32, on the scale that the line was fitted on (log10(1 + counts per 10,000)
    by default). A gene gets the value of the line at its position, counted from 0. Genes that are not in the sentence
    are 0, and so are negative values of the line.

    Raises
    ------
    KeyError
        If `gene_key` does not exist.
    TypeError
        If `sentences` are not strings, or `line` is not a line.
    ValueError
        If gene names repeat, or fewer than a tenth of the words are genes.

    See Also
    --------
    sparsesc.pp.cell_sentences : Writes sentences.
    sparsesc.pp.fit_sentence_line : Fits the line.

    Notes
    -----
    Words that are not genes still count as positions, and a warning lists them. A repeated word, which models write at
    times, gets the mean of its positions.

    References
    ----------
    Levine et al. (2024), Cell2Sentence: teaching large language models the language of biology, *Proceedings of ICML*.

    Examples
    --------
    >>> import pandas as pd
    >>> import sparsesc as ssc
    >>> from anndata import AnnData
    >>> counts = pd.DataFrame({"CD3D": [6, 1], "MS4A1": [0, 8], "ACTB": [2, 4]}, index=["T cell", "B cell"])
    >>> adata = AnnData(counts)
    >>> line = ssc.pp.fit_sentence_line(adata)
    >>> expression = ssc.pp.sentences_to_expression(adata, ["CD3D ACTB"], line)
    >>> pd.Series(expression.toarray()[0], adata.var_names).sort_values(ascending=False).index.tolist()
    ['CD3D', 'ACTB', 'MS4A1']
    """
    check.check_adata(adata)
    if not isinstance(line, SentenceLine):
        msg = f"line must be what ssc.pp.fit_sentence_line returns, found {type(line).__name__}."
        raise TypeError(msg)
    if isinstance(sentences, str) or not all(isinstance(sentence, str) for sentence in sentences):
        msg = "sentences must be a Series or a list of strings, one for each cell."
        raise TypeError(msg)
    names = gene_names(adata, gene_key)
    words = [sentence.split(sep) if sentence else [] for sentence in sentences]
    n_words = np.array([len(row) for row in words], dtype=np.int64)
    flat = pd.Index([word for row in words for word in row], dtype=object)
    rank = positions_in_rows(np.r_[0, np.cumsum(n_words)])
    gene = names.get_indexer(flat)
    known = gene >= 0
    if len(flat):
        check_coverage(flat.unique().to_numpy(dtype=object), names, name="sentences")
    row = np.repeat(np.arange(len(words)), n_words)[known]
    shape = (len(words), len(names))
    total = sparse.csr_matrix((rank[known].astype(np.float64), (row, gene[known])), shape=shape)
    times = sparse.csr_matrix((np.ones(len(row)), (row, gene[known])), shape=shape)
    for matrix in (total, times):  # words that repeat add up
        matrix.sum_duplicates()
        matrix.sort_indices()
    values = line.predict(total.data / times.data).astype(np.float32)
    out = sparse.csr_matrix((values, total.indices, total.indptr), shape=shape)
    out.eliminate_zeros()
    if not known.all():
        _logging.warning(
            f"{int((~known).sum())} of {len(flat)} words are not among the genes of adata and are left out: "
            f"{listing(flat[~known].unique())}."
        )
    return out
