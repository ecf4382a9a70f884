"""Tables of a study, which one function wrote together under one entry of ``uns``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sparsesc._values import check_choice
from sparsesc.door import _checks as check

if TYPE_CHECKING:
    from anndata import AnnData


def read_study(adata: AnnData, table: str, key: str, tables: Sequence[str], *, what: str, writer: str) -> pd.DataFrame:
    """A copy of one of the `tables` under ``uns[key]``; `what` and `writer` are for messages.

    Raises
    ------
    KeyError
        If there is no such study.
    ValueError
        If there is no such table.
    """
    check.check_adata(adata)
    check_choice(table, tables, name="table")
    entry = adata.uns.get(key)
    if not isinstance(entry, Mapping) or table not in entry:
        msg = f"Did not find {what} in adata.uns[{key!r}]. Run {writer} first."
        raise KeyError(msg)
    return pd.DataFrame(entry[table]).copy()
