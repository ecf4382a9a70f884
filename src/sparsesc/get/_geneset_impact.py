from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from sparsesc._values import check_choice
from sparsesc.door import _keys
from sparsesc.door._saliency_slots import read_saliency, saliency_table, unit_names

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_TABLES = {"impact": _keys.IMPACT, "contrast": _keys.IMPACT_CONTRAST}


def geneset_impact(
    adata: AnnData,
    unit: str | int | Sequence[str | int] | None = None,
    *,
    table: Literal["impact", "contrast"] = "impact",
    key: str = "saliency",
) -> pd.DataFrame:
    """What gene sets do to units of a model: the tables that :func:`sparsesc.tl.geneset_impact` wrote.

    Parameters
    ----------
    adata
        Object with these tables.
    unit
        One unit or several, by name or position; ``None``: all.
    table
        ``"impact"``, or ``"contrast"`` of two groups of cells.
    key
        Name of the saliency.

    Returns
    -------
    A copy of the rows of ``uns[key]["impact"]`` or ``uns[key]["impact_contrast"]``.

    Raises
    ------
    KeyError
        If there is no saliency under `key`, no such table, or no such unit.
    ValueError
        If `table` is none of these names.
    """
    check_choice(table, _TABLES, name="table")
    found = saliency_table(adata, key, _TABLES[table])
    if unit is None:
        return found
    names = unit_names(read_saliency(adata, key).units.index, unit, key)
    return found[found["unit"].astype(str).isin(names)].reset_index(drop=True)
