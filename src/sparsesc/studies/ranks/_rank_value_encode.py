from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc._random import as_generator, describe
from sparsesc._values import check_choice, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._counts import cell_sizes, check_target_sum, count_rows, gene_names
from sparsesc.door._slots import WRITTEN_BY, check_slots_free

from ._medians import match_medians, over_median, own_medians
from ._row_ranks import TIES, order_rows, rank_rows

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike


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
    """Rank the genes of every cell as Geneformer does: counts over the gene's median, largest first.

    A cell's counts are brought to `target_sum`, divided by each gene's median over its non-zero values in a corpus,
    and put in descending order. Only expressed genes are ranked.

    Parameters
    ----------
    adata
        Cells x genes, counts.
    layer
        Layer of counts to read instead of ``X``.
    medians
        Median of the non-zero normalised values of each gene in a corpus: a mapping, a Series, or a JSON file such as
        Geneformer's, which has Ensembl ids. Genes without a median get no rank. ``None``: from these cells.
    gene_key
        Column of ``var`` with the names that `medians` uses; ``None``: ``var_names``.
    size_key
        Column of ``obs`` with the total counts of each cell, for data that hold only some of the genes. ``None``: the
        sum over the genes that are there. Used for medians from these cells alone (see Notes).
    target_sum
        Counts per cell that medians refer to.
    n_top
        Ranks to keep in each cell (2,048, later 4,096, in Geneformer); ``None`` keeps all.
    ties
        Genes of equal value in a cell: ``"first"`` numbers them in the order of ``var_names``, ``"random"`` in an
        order that `rng` draws, ``"average"`` gives all of them the mean of their ranks, ``"min"`` the smallest. Where
        equal values stand on both sides of the cut at `n_top`, those first in ``var_names`` (in the order drawn, with
        ``"random"``) are kept.
    zeros
        ``"drop"``: genes with no counts have no rank. ``"last"``: they follow all others as one block of ties, whose
        rank is written to ``obs``: its smallest with ``ties="min"``, otherwise its mean, which is also what a random
        order gives on average. Genes without a median are in neither.
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
        With ``zeros="last"``, the rank that all genes without counts share (NaN in cells that have none).
    ``var["{key_added}_median"]``
        What each gene was divided by; NaN for genes that are not ranked.
    ``uns[key_added]``
        `params`, and `unmatched`: genes without a median.

    Raises
    ------
    FileNotFoundError, TypeError
        If `medians` is a file that is not there, or nothing that holds medians.
    KeyError
        If `layer`, `gene_key` or `size_key` does not exist.
    ValueError
        If the values look log-normalised, are negative or not finite; if gene names repeat; if medians are not
        positive or are for other genes; if an option is out of its range; if the slots hold what this function did
        not write.

    Notes
    -----
    All values of a cell share the factor ``target_sum / total``, so it cannot change their order. Values are compared
    as count over median, where ties are exact; `target_sum` and the totals act through medians from these cells only.

    When not to use it: ranks forget how much more one gene is expressed than the next, and in sparse cells most genes
    have one count, so that beyond the first few dozen the order is that of the medians and of the ties. For a
    distance between cells, log-normalised expression usually serves better. Medians from one data set are not those of
    Geneformer's corpus: for its tokens pass its dictionary. Its later versions add special tokens around a cell; none
    are added here.

    References
    ----------
    Theodoris et al. (2023), Transfer learning enables predictions in network biology, *Nature* 618, 616-624.
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
    check_slots_free(
        adata,
        key_added,
        "ssc.pp.rank_value_encode",
        {"layers": [key_added], "obs": [slots.n_genes, slots.zeros], "var": [slots.median]},
    )
    if medians is None:
        median = own_medians(counts, cell_sizes(adata, counts, size_key), target_sum)
        unmatched = names[:0]
    else:
        median, unmatched = match_medians(medians, names)

    scaled = over_median(counts, median)
    order = order_rows(scaled, rng=generator if ties == "random" else None)
    ranks = rank_rows(scaled, order, ties=ties)
    n_ranked = np.diff(scaled.indptr)
    layer_added = _cut(scaled, ranks, order, n_top)

    adata = check.writable(adata, copy=copy)
    adata.layers[slots.key] = layer_added
    adata.obs[slots.n_genes] = n_ranked.astype(np.int64)
    if zeros == "last":
        adata.obs[slots.zeros] = _rank_of_zeros(n_ranked, int(np.isfinite(median).sum()), smallest=ties == "min")
    elif slots.zeros in adata.obs:  # of an earlier run under this name
        del adata.obs[slots.zeros]  # type: ignore[union-attr]
    adata.var[slots.median] = median
    adata.uns[slots.key] = {
        _keys.PARAMS: {
            WRITTEN_BY: "ssc.pp.rank_value_encode",
            "layer": layer or "",
            "medians": "given" if medians is not None else "data",
            "gene_key": gene_key or "",
            "size_key": size_key or "",
            "target_sum": float(target_sum),
            "n_top": -1 if n_top is None else n_top,
            "ties": ties,
            "zeros": zeros,
            "rng": describe(rng),
        },
        "unmatched": np.sort(unmatched.to_numpy(dtype=object)),
    }
    _report(slots, n_ranked, unmatched, adata.n_vars)
    return adata if copy else None


def _cut(scaled: sparse.csr_matrix, ranks: np.ndarray, order: np.ndarray, n_top: int | None) -> sparse.csr_matrix:
    """Ranks of the first `n_top` entries of every row, by `order`."""
    n_per_row = np.diff(scaled.indptr)
    kept = np.ones(len(ranks), bool)
    if n_top is not None and (n_per_row > n_top).any():
        position = np.arange(len(ranks)) - np.repeat(scaled.indptr[:-1], n_per_row)
        kept[order] = position < n_top
    indptr = np.r_[0, np.cumsum(kept)][scaled.indptr]
    return sparse.csr_matrix((ranks[kept].astype(np.float32), scaled.indices[kept], indptr), shape=scaled.shape)


def _rank_of_zeros(n_ranked: np.ndarray, n_genes: int, *, smallest: bool) -> np.ndarray:
    n_zeros = n_genes - n_ranked
    rank = n_ranked + (1.0 if smallest else 0.5 * (n_zeros + 1))
    return np.where(n_zeros > 0, rank, np.nan)


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
