from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc._values import as_list, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._counts import gene_names, read_mapping
from sparsesc.door._gene_names import check_coverage

from ._order import order_rows

if TYPE_CHECKING:
    from anndata import AnnData


def ranked_genes(
    adata: AnnData,
    cells: str | Sequence[str] | None = None,
    *,
    key: str = "rank",
    gene_key: str | None = None,
    tokens: Mapping[str, int] | pd.Series | str | Path | None = None,
) -> pd.Series:
    """List the genes of each cell in the order of their ranks, as names or as tokens.

    Parameters
    ----------
    adata
        Cells x genes after :func:`rank_value_encode`.
    cells
        Names of cells, in any order; ``None``: all cells.
    key
        Name of the rank encoding.
    gene_key
        Column of ``var`` to name genes by. ``None``: ``var_names``; with `tokens`, the names that the medians used.
    tokens
        Token of each gene: a mapping, a Series, or a JSON file such as Geneformer's. Genes without a token are left
        out with a warning.

    Returns
    -------
    One array per cell, indexed by the names of the cells: names of genes, or with `tokens` their int64 tokens, rank 1
    first. Genes that share a rank are in the order of ``var_names``.

    Raises
    ------
    KeyError
        If there is no such encoding or cell.
    ValueError
        If the dictionary of tokens is for other genes, or holds numbers that are not whole.

    See Also
    --------
    sparsesc.pp.rank_value_encode : Ranks the genes.
    sparsesc.pp.cell_sentences : Sentences from counts, without medians.

    Examples
    --------
    >>> import pandas as pd
    >>> import sparsesc as ssc
    >>> from anndata import AnnData
    >>> counts = pd.DataFrame({"CD3D": [6, 1], "MS4A1": [0, 8], "ACTB": [2, 2]}, index=["T cell", "B cell"])
    >>> adata = AnnData(counts)
    >>> ssc.pp.rank_value_encode(adata)
    >>> list(ssc.pp.ranked_genes(adata)["B cell"])
    ['MS4A1', 'ACTB', 'CD3D']
    >>> ssc.pp.ranked_genes(adata, "T cell", tokens={"CD3D": 10, "MS4A1": 11, "ACTB": 12})["T cell"].tolist()
    [10, 12]
    """
    check.check_adata(adata)
    if key not in adata.layers or key not in adata.uns:
        msg = (
            f"Did not find the rank encoding {key!r} in adata.layers and adata.uns. Run ssc.pp.rank_value_encode first."
        )
        raise KeyError(msg)
    if cells is None:
        rows = np.arange(adata.n_obs)
    else:
        names = pd.Index(as_list(cells))
        rows = adata.obs_names.get_indexer(names)
        if (rows < 0).any():
            msg = f"Did not find the cells {listing(names[rows < 0])}. There are {listing(adata.obs_names[:4])} ..."
            raise KeyError(msg)
    if gene_key is None and tokens is not None:
        gene_key = adata.uns[key][_keys.PARAMS].get("gene_key")
    names = gene_names(adata, gene_key)
    ranks = sparse.csr_matrix(adata.layers[key])[rows]
    ranks.sort_indices()
    ranks.data = -ranks.data  # rank 1 first
    columns = ranks.indices[order_rows(ranks)]
    values = (names.to_numpy(dtype=object) if tokens is None else _tokens_of(tokens, names))[columns]
    bounds = ranks.indptr
    if tokens is not None and (values < 0).any():
        known = values >= 0
        missing = names[np.unique(columns[~known])]
        _logging.warning(f"{len(missing)} ranked genes have no token and are left out: {listing(missing)}.")
        bounds = np.r_[0, np.cumsum(known)][bounds]
        values = values[known]
    out = np.empty(len(rows), dtype=object)  # from a list, rows of equal length would become one array
    for i in range(len(rows)):
        out[i] = values[bounds[i] : bounds[i + 1]]
    return pd.Series(out, index=adata.obs_names[rows], name=key)


def _tokens_of(tokens: Mapping[str, int] | pd.Series | str | Path, names: pd.Index) -> np.ndarray:
    """Token of every gene, -1 where there is none."""
    table = read_mapping(tokens, name="tokens")
    if not (table == np.floor(table)).all() or (table < 0).any():
        msg = "tokens must be whole numbers that are not negative."
        raise ValueError(msg)
    check_coverage(table.index.to_numpy(dtype=object), names, name="tokens")
    return table.reindex(names).fillna(-1).to_numpy().astype(np.int64)
