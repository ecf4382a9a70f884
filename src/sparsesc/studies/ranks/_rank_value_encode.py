from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._random import as_generator, describe
from sparsesc._values import check_choice, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._counts import cell_sizes, check_target_sum, count_rows, gene_names
from sparsesc.door._slots import check_slots_free, record

from ._medians import gene_medians, match_medians, over_median
from ._order import TIES, keep_entries, order_rows, positions_in_rows, rank_of_zeros, rank_rows

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike

_WRITER = "ssc.pp.rank_value_encode"


def rank_value_encode(
    adata: AnnData,
    *,
    layer: str | None = None,
    medians: Mapping[str, float] | pd.Series | str | Path | None = None,
    gene_key: str | None = None,
    size_key: str | None = None,
    target_sum: float = 1e4,
    n_top: int | None = 2048,
    ties: Literal["first", "average", "min", "random"] = "first",
    zeros: Literal["drop", "last"] = "drop",
    rng: SeedLike | RNGLike | None = 0,
    key_added: str = "rank",
    copy: bool = False,
) -> AnnData | None:
    r"""Rank the genes of every cell as Geneformer does: counts over the gene's median, largest first.

    The counts of a cell are scaled to `target_sum`, divided by the median of each gene over its non-zero values in a
    corpus, and put in descending order. Only expressed genes are ranked.

    Parameters
    ----------
    adata
        Cells x genes, counts.
    layer
        Layer of counts to read instead of ``X``.
    medians
        Median of the non-zero normalized values of each gene in a corpus: a mapping, a Series, or a JSON file such as
        Geneformer's, which has Ensembl ids. Genes without a median get no rank. ``None``: from these cells.
    gene_key
        Column of ``var`` with the names that `medians` uses; ``None``: ``var_names``.
    size_key
        Column of ``obs`` with the total counts of each cell, for data that hold only some of the genes. ``None``: the
        sum over the genes in `adata`. Only used for medians from these cells (see Notes).
    target_sum
        Counts per cell that medians refer to.
    n_top
        Ranks to keep in each cell (2,048, later 4,096, in Geneformer); ``None`` keeps all.
    ties
        Genes of equal value in a cell: ``"first"`` numbers them in the order of ``var_names``, ``"random"`` in an
        order that `rng` draws, ``"average"`` gives all of them the mean of their ranks, ``"min"`` the smallest. If
        the cut at `n_top` falls among equal values, those first in ``var_names`` (or in the random order) are kept.
    zeros
        ``"drop"``: genes without counts have no rank. ``"last"``: they follow all others as one block of ties, and its
        rank is written to ``obs``: the smallest with ``ties="min"``, otherwise the mean, which is also what a random
        order gives on average. Genes without a median have no rank in either case.
    rng
        Draws the order of ties with ``ties="random"``.
    key_added
        Name of the slots.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``layers[key_added]``
        Ranks, cells x genes, CSR float32: 1 for the largest value of a cell; nothing is stored for genes without a
        rank. See :func:`ranked_genes` for names and tokens.
    ``obs["{key_added}_n_genes"]``
        Genes with a rank before the cut at `n_top`.
    ``obs["{key_added}_zeros"]``
        With ``zeros="last"``: the rank that all genes without counts share (NaN in cells that express all genes).
    ``var["{key_added}_median"]``
        What each gene was divided by; NaN for genes that are not ranked.
    ``uns[key_added]``
        `params`, and `unmatched`: genes without a median.

    Raises
    ------
    FileNotFoundError, TypeError
        If `medians` is a file that does not exist, or is of a type that cannot hold medians.
    KeyError
        If `layer`, `gene_key` or `size_key` does not exist.
    ValueError
        If the values look log-normalized, are negative or not finite; if gene names repeat; if medians are not
        positive or are for other genes; if an option is out of its range; if the slots hold what this function did
        not write.

    See Also
    --------
    sparsesc.pp.ranked_genes : The genes of a cell in the order of their ranks, or as tokens.
    sparsesc.pp.cell_sentences : The order of the counts themselves, as text.
    sparsesc.tl.rank_fidelity : How well ranks keep cell types apart.

    Notes
    -----
    The rank of gene :math:`g` in cell :math:`i` is

    .. math:: r_{ig} = 1 + \left|\left\{h : v_{ih} > v_{ig}\right\}\right|, \qquad v_{ig} = \frac{x_{ig}}{m_g},

    where :math:`x_{ig}` are counts, :math:`m_g` is the median of the gene, and :math:`h` runs over the expressed genes
    of the cell; `ties` decides between equal values.

    All values of a cell share the factor ``target_sum / total``, so it cannot change their order. Counts over medians
    are compared without it, so that ties are exact; `target_sum` and the totals only matter for medians from these
    cells.

    When not to use it: ranks forget how much more one gene is expressed than the next. In sparse cells most expressed
    genes have one count, so that beyond the first few dozen genes the medians and the ties decide the order. For
    distances between cells, log-normalized expression usually serves better. Medians from one data set are not those
    of Geneformer's corpus: for its tokens pass its dictionary. Its later versions add special tokens around a cell;
    none are added here.

    References
    ----------
    Theodoris et al. (2023), Transfer learning enables predictions in network biology, *Nature* 618, 616-624.

    Examples
    --------
    >>> import pandas as pd
    >>> import sparsesc as ssc
    >>> from anndata import AnnData
    >>> counts = pd.DataFrame(
    ...     {"ACTB": [50, 40, 60], "CD3D": [4, 0, 0], "MS4A1": [0, 5, 0], "LYZ": [0, 0, 20]},
    ...     index=["T cell", "B cell", "monocyte"],
    ... )
    >>> adata = AnnData(counts)
    >>> ssc.pp.rank_value_encode(adata, medians={"ACTB": 50, "CD3D": 1, "MS4A1": 1, "LYZ": 5})
    >>> ssc.pp.ranked_genes(adata).str.join(" > ")
    T cell       CD3D > ACTB
    B cell      MS4A1 > ACTB
    monocyte      LYZ > ACTB
    Name: rank, dtype: ...
    """
    check_choice(ties, TIES, name="ties")
    check_choice(zeros, ("drop", "last"), name="zeros")
    n_top = n_top if n_top is None else check_positive_int(n_top, name="n_top")
    check_target_sum(target_sum)
    generator = as_generator(rng)
    check.check_adata(adata)
    counts = count_rows(adata, layer)
    names = gene_names(adata, gene_key)
    slots = _keys.rank_keys(key_added)
    taken = {"layers": [key_added], "obs": [slots.n_genes, slots.zeros], "var": [slots.median]}
    check_slots_free(adata, key_added, _WRITER, taken)
    if medians is None:
        median = gene_medians(counts, cell_sizes(adata, counts, size_key), target_sum)
        unmatched = names[:0]
    else:
        median, unmatched = match_medians(medians, names)

    scaled = over_median(counts, median)
    order = order_rows(scaled, rng=generator if ties == "random" else None)
    ranks = rank_rows(scaled, order, ties=ties)
    n_ranked = np.diff(scaled.indptr)
    kept = np.ones(len(ranks), bool)
    if n_top is not None:
        kept[order] = positions_in_rows(scaled.indptr) < n_top
    n_known = int(np.isfinite(median).sum())
    rank_of_rest = rank_of_zeros(n_ranked, n_known, ties=ties) if zeros == "last" else None

    options: dict[str, Any] = {"layer": layer, "medians": "data" if medians is None else "given", "gene_key": gene_key}
    options |= {"size_key": size_key, "target_sum": float(target_sum), "n_top": n_top}
    options |= {"ties": ties, "zeros": zeros, "rng": describe(rng)}
    result = record(
        adata,
        key_added,
        _WRITER,
        {"unmatched": np.sort(unmatched.to_numpy(dtype=object))},
        options,
        copy=copy,
        fresh=True,
        layers={slots.key: keep_entries(scaled, ranks.astype(np.float32), kept)},
        obs={slots.n_genes: n_ranked.astype(np.int64), slots.zeros: rank_of_rest},
        var={slots.median: median},
    )
    _report(slots, n_ranked, unmatched, adata.n_vars)
    return result


def _report(slots: _keys.RankKeys, n_ranked: np.ndarray, unmatched: pd.Index, n_genes: int) -> None:
    if len(unmatched):
        _logging.warning(
            f"{len(unmatched)} of {n_genes} genes have no median and get no rank: {listing(unmatched)}. "
            f"All are in uns['{slots.key}']['unmatched']."
        )
    if (n_ranked == 0).any():
        _logging.warning(f"{int((n_ranked == 0).sum())} cells express no gene that has a median: their rows are empty.")
    middle = int(np.median(n_ranked)) if len(n_ranked) else 0
    _logging.info(
        f"rank_value_encode: {len(n_ranked)} cells, {middle} ranked genes in the median cell; added "
        f"layers['{slots.key}'], var['{slots.median}'], obs['{slots.n_genes}'] and uns['{slots.key}']"
    )
