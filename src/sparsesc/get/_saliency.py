from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sparsesc.door import _keys
from sparsesc.door._saliency_slots import read_saliency, saliency_table, unit_names

if TYPE_CHECKING:
    from anndata import AnnData


def saliency(
    adata: AnnData,
    unit: str | int | Sequence[str | int] | None = None,
    *,
    cells: bool = False,
    key: str = "saliency",
) -> pd.DataFrame:
    """The genes that drive units of a model: what :func:`sparsesc.tl.saliency` found.

    Parameters
    ----------
    adata
        Object with a saliency.
    unit
        One unit or several, by name or position; ``None``: all. One, with `cells`.
    cells
        The signed saliency of each cell that was looked at, instead of the list of genes.
    key
        Name of the saliency.

    Returns
    -------
    A copy of the rows of ``uns[key]["genes"]``: `unit`, `gene`, `saliency`, `signed`, the largest first. With `cells`,
    cells x genes, float32.

    Raises
    ------
    KeyError
        If there is no saliency under `key`, or no such unit.
    ValueError
        If `cells` is asked for several units.
    """
    if not cells:
        table = saliency_table(adata, key, _keys.GENES)
        if unit is None:
            return table
        names = unit_names(read_saliency(adata, key).units.index, unit, key)
        return table[table["unit"].astype(str).isin(names)].reset_index(drop=True)
    found = read_saliency(adata, key)
    names = [] if unit is None else unit_names(found.units.index, unit, key)
    if len(names) != 1:
        msg = "The saliency of single cells is a table for each unit: name one, unit=..."
        raise ValueError(msg)
    pairs = found.pairs_of(int(np.flatnonzero(found.units.index.astype(str) == names[0])[0]))
    return pd.DataFrame(found.saliency(pairs), index=found.cells[found.cell[pairs]], columns=found.inputs.index)
