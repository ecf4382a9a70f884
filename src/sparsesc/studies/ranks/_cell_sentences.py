from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._random import as_generator, describe
from sparsesc._values import check_choice, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door._counts import expression_rows, gene_names
from sparsesc.door._slots import check_slots_free, record

from ._order import order_rows

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike

ORDERED_TIES = ("random", "first")
_WRITER = "ssc.pp.cell_sentences"


def cell_sentences(
    adata: AnnData,
    *,
    layer: str | None = None,
    gene_key: str | None = None,
    n_top: int | None = None,
    ties: Literal["random", "first"] = "random",
    rng: SeedLike | RNGLike | None = 0,
    sep: str = " ",
    key_added: str | None = None,
) -> pd.Series:
    """Write every cell as a sentence: the names of its expressed genes, highest first.

    Parameters
    ----------
    adata
        Cells x genes: counts or log-normalized values, which have the same order within a cell.
    layer
        Layer to read instead of ``X``.
    gene_key
        Column of ``var`` with the names to write; ``None``: ``var_names``. Names are written as they are (those
        of the published sentences are in upper case).
    n_top
        Genes to write for each cell; ``None``: all expressed genes.
    ties
        Genes of equal value: ``"random"``, as published, or ``"first"``: in the order of ``var_names``.
    rng
        Draws the order of ties with ``ties="random"``.
    sep
        Separator between two names.
    key_added
        Column of ``obs`` to write the sentences to; ``None`` leaves `adata` as it is. The result of an earlier call is
        replaced; any other column of this name is an error.

    Returns
    -------
    Sentences, indexed by the names of the cells; empty for cells without counts. With `key_added`, also

    ``obs[key_added]``
        The sentences.
    ``uns[key_added]``
        `params`.

    Raises
    ------
    KeyError
        If `layer` or `gene_key` does not exist.
    ValueError
        If values are negative or not finite, gene names repeat or contain `sep`, an option is out of its range,
        or the slots hold what this function did not write.

    See Also
    --------
    sparsesc.pp.fit_sentence_line : How much of the expression a sentence keeps.
    sparsesc.pp.sentences_to_expression : Back from sentences to expression.
    sparsesc.pp.rank_value_encode : Ranks of counts over medians, as Geneformer reads them.

    Notes
    -----
    When not to use it: a language model reads the first few hundred names, and in sparse cells most of these are in
    arbitrary order, because their counts are equal. See :func:`fit_sentence_line` for what a sentence keeps of the
    expression.

    References
    ----------
    Levine et al. (2024), Cell2Sentence: teaching large language models the language of biology, *Proceedings of ICML*.

    Examples
    --------
    >>> import pandas as pd
    >>> import sparsesc as ssc
    >>> from anndata import AnnData
    >>> counts = pd.DataFrame({"CD3D": [6, 1], "MS4A1": [0, 8], "ACTB": [2, 4]}, index=["T cell", "B cell"])
    >>> ssc.pp.cell_sentences(AnnData(counts))
    T cell          CD3D ACTB
    B cell    MS4A1 ACTB CD3D
    Name: sentence, dtype: ...
    """
    check_choice(ties, ORDERED_TIES, name="ties")
    n_top = n_top if n_top is None else check_positive_int(n_top, name="n_top")
    if not isinstance(sep, str) or not sep:
        msg = f"sep must be a string that is not empty, found {sep!r}."
        raise ValueError(msg)
    generator = as_generator(rng)
    check.check_adata(adata)
    if key_added is not None:
        check_slots_free(adata, key_added, _WRITER, {"obs": [key_added]})
    rows, _ = expression_rows(adata, layer)
    names = gene_names(adata, gene_key)
    ambiguous = names[[sep in name for name in names]]
    if len(ambiguous):
        msg = (
            f"{len(ambiguous)} gene names contain the separator {sep!r}, so that sentences could not be read back: "
            f"{listing(ambiguous)}. Choose another sep, or rename these genes."
        )
        raise ValueError(msg)
    columns = rows.indices[order_rows(rows, rng=generator if ties == "random" else None)]
    words = names.to_numpy(dtype=object)
    bounds = rows.indptr.tolist()
    longest = rows.shape[1] if n_top is None else n_top
    text = [sep.join(words[columns[start : min(stop, start + longest)]]) for start, stop in pairwise(bounds)]
    sentences = pd.Series(np.array(text, dtype=object), index=adata.obs_names, name=key_added or "sentence")
    if key_added is not None:
        options = {"layer": layer, "gene_key": gene_key, "n_top": n_top, "ties": ties, "rng": describe(rng), "sep": sep}
        record(adata, key_added, _WRITER, {}, options, fresh=True, obs={key_added: sentences.to_numpy()})
    n_empty = sum(not sentence for sentence in text)
    if n_empty:
        _logging.warning(f"{n_empty} cells express nothing: their sentences are empty.")
    added = f"; added obs['{key_added}']" if key_added is not None else ""
    _logging.info(f"cell_sentences: {len(text)} sentences of up to {longest} genes{added}")
    return sentences
