from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import pandas as pd

from sparsesc._values import check_choice
from sparsesc.door import _checks as check
from sparsesc.door import _keys

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_ASSOCIATION_TABLES = {
    "categories": _keys.ASSOCIATION,
    "numbers": _keys.ASSOCIATION_NUMERIC,
    "labels": _keys.LABELS,
}


def genes(
    adata: AnnData | MuData, feature: str | int | Sequence[str | int] | None = None, key: str = "sae"
) -> pd.DataFrame:
    """The genes of features, best first: the table that :func:`sparsesc.tl.feature_genes` wrote.

    Parameters
    ----------
    adata
        Object with that table.
    feature
        One feature or several, by name or position; ``None``: all.
    key
        Name of the sparse autoencoder.

    Returns
    -------
    A copy of the rows of ``uns[key]["genes"]``. A feature that had too few cells to be tested has none.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, no such table, or no such feature.
    """
    return rows_of(adata, _keys.GENES, feature, key)


def enrichment(
    adata: AnnData | MuData, feature: str | int | Sequence[str | int] | None = None, key: str = "sae"
) -> pd.DataFrame:
    """The gene sets of features, smallest p first: the table that :func:`sparsesc.tl.feature_enrichment` wrote.

    Parameters
    ----------
    adata
        Object with that table.
    feature
        One feature or several, by name or position; ``None``: all.
    key
        Name of the sparse autoencoder.

    Returns
    -------
    A copy of the rows of ``uns[key]["enrichment"]``. A feature without gene scores has none.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, no such table, or no such feature.
    """
    return rows_of(adata, _keys.ENRICHMENT, feature, key)


def association(
    adata: AnnData | MuData,
    feature: str | int | Sequence[str | int] | None = None,
    key: str = "sae",
    *,
    table: Literal["categories", "numbers", "labels"] = "categories",
) -> pd.DataFrame:
    """What features say about columns of ``obs``: the tables that :func:`sparsesc.tl.feature_association` wrote.

    Parameters
    ----------
    adata
        Object with that table.
    feature
        One feature or several, by name or position; ``None``: all.
    key
        Name of the sparse autoencoder.
    table
        ``"categories"``: every feature with every category; ``"numbers"``: with columns of numbers; ``"labels"``: the
        best feature of every category, with its held-out scores.

    Returns
    -------
    A copy of the rows of ``uns[key]["association"]``, ``["association_numeric"]`` or ``["labels"]``.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, no such table, or no such feature.
    ValueError
        If `table` is none of these names.
    """
    check_choice(table, _ASSOCIATION_TABLES, name="table")
    return rows_of(adata, _ASSOCIATION_TABLES[table], feature, key)


def differential(
    adata: AnnData | MuData, feature: str | int | Sequence[str | int] | None = None, key: str = "sae"
) -> pd.DataFrame:
    """Features between conditions, smallest p first: the table that :func:`sparsesc.tl.differential_features` wrote.

    Parameters
    ----------
    adata
        Object with that table.
    feature
        One feature or several, by name or position; ``None``: all.
    key
        Name of the sparse autoencoder.

    Returns
    -------
    A copy of the rows of ``uns[key]["differential"]``. A feature that was active in too few cells has none.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, no such table, or no such feature.
    """
    return rows_of(adata, _keys.DIFFERENTIAL, feature, key)


def rows_of(
    adata: AnnData | MuData,
    name: str,
    feature: str | int | Sequence[str | int] | None,
    key: str,
    *,
    columns: Sequence[str] = ("feature",),
) -> pd.DataFrame:
    """A copy of the rows of ``uns[key][name]`` that name some features in one of the `columns`, numbered anew."""
    table = check.get_table(adata, key, name)
    if feature is None:
        return table
    wanted = check.feature_names(adata, feature, key)
    found = table[list(columns)].astype(str).isin(wanted).any(axis=1)
    return table[found].reset_index(drop=True)
