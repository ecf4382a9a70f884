from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import pandas as pd

from sparsesc.door import _checks as check
from sparsesc.door._saliency_slots import read_saliency

from ._docs import documented
from ._table import table as read
from ._tables import chosen

if TYPE_CHECKING:
    from anndata import AnnData


@documented
def saliency(
    adata: AnnData,
    unit: str | int | Sequence[str | int] | None = None,
    key: str = "saliency",
    *,
    table: Literal["genes", "units", "inputs"] = "genes",
    cells: bool = False,
) -> pd.DataFrame:
    """The genes that drive units of a model.

    With ``cells=True`` the result is cells x genes, float32, for one unit.

    See Also
    --------
    sparsesc.get.geneset_impact : The gene sets that drive units.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.saliency(adata, "pca", units=["PC1", "PC2"], max_cells=20)
    >>> ssc.get.saliency(adata, "PC1").columns.tolist()
    ['unit', 'gene', 'saliency', 'signed']
    >>> ssc.get.saliency(adata, "PC1", cells=True).shape[0]  # one row for each cell
    20
    """
    if not cells:
        return read(adata, chosen("saliency", table), feature=unit, key=key)
    stored = read_saliency(adata, key)
    names = [] if unit is None else check.pick_names(stored.units.index, unit, key, what="unit")
    if len(names) != 1:
        msg = "The saliency of single cells is a table for each unit: name one, unit=..."
        raise ValueError(msg)
    pairs = stored.pairs_of(stored.units.index.astype(str).get_loc(names[0]))
    return pd.DataFrame(stored.saliency(pairs), index=stored.cells[stored.cell[pairs]], columns=stored.inputs.index)
