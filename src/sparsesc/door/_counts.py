"""Expression as rows of counts, with gene names from a column of var: the input of all rank encodings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc._values import listing
from sparsesc.stats.core._row_blocks import RowBlocks

from . import _checks as check
from ._matrices import layer_listing

if TYPE_CHECKING:
    from anndata import AnnData

# log1p of counts per million stays below 14 and log2 of them below 20
LARGEST_LOG = 30


def gene_names(adata: AnnData, gene_key: str | None) -> pd.Index:
    """Names of the genes of `adata`: ``var_names``, or a column of ``var``.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If names repeat or are missing.
    """
    if gene_key is None:
        return adata.var_names.astype(str)
    column = check.get_var_column(adata, gene_key)
    if column.isna().any():
        missing = adata.var_names[column.isna()]
        msg = f"adata.var[{gene_key!r}] has no name for {len(missing)} genes: {listing(missing)}. Drop them first."
        raise ValueError(msg)
    names = pd.Index(column.astype(str))
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        msg = (
            f"adata.var[{gene_key!r}] names several genes alike ({len(repeated)} names): {listing(repeated)}. "
            "Sum their counts, or keep one of each."
        )
        raise ValueError(msg)
    return names


def check_target_sum(target_sum: float) -> None:
    """Refuse a total to normalize to that is no positive number.

    Raises
    ------
    ValueError
        If it is not positive and finite.
    """
    if not (np.isfinite(target_sum) and target_sum > 0):
        msg = f"target_sum must be a positive number, found {target_sum!r}."
        raise ValueError(msg)


def expression_rows(adata: AnnData, layer: str | None) -> tuple[sparse.csr_matrix, bool]:
    """``X`` or a layer as CSR with sorted indices and without stored zeros, and whether all its values are whole.

    Raises
    ------
    ValueError
        If values are negative, NaN or infinite.
    """
    matrix, _ = check.get_expression(adata, layer=layer, use_raw=False)
    name = _name(layer)
    blocks = RowBlocks(matrix, cache_bytes=np.inf, name=name)
    if blocks.totals.minimum < 0:
        msg = (
            f"{name} has negative values (down to {blocks.totals.minimum:.3g}), as after scaling: their order "
            "says nothing about expression. Name a layer of counts, or pass adata.raw.to_adata() if raw holds them."
        )
        raise ValueError(msg)
    parts = [block for _, block in blocks]
    rows = parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")
    if not rows.has_sorted_indices or (rows.data == 0).any():
        rows = rows.copy()  # it may be the user's own matrix
        rows.sort_indices()
        rows.eliminate_zeros()
    return rows, bool((rows.data == np.floor(rows.data)).all())


def _name(layer: str | None) -> str:
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def whole_counts(adata: AnnData, layer: str | None, *, only: str) -> sparse.csr_matrix:
    """:func:`expression_rows` when all values are whole numbers; `only` says in the error what counts are needed for.

    Raises
    ------
    ValueError
        If values are not counts.
    """
    counts, whole = expression_rows(adata, layer)
    if not whole:
        msg = (
            f"{_name(layer)} holds values that are not whole numbers, as after normalization, but only {only}. Name a "
            f"layer of counts (layers here: {layer_listing(adata)})."
        )
        raise ValueError(msg)
    return counts


def count_rows(adata: AnnData, layer: str | None) -> sparse.csr_matrix:
    """``X`` or a layer as CSR, when the values are on the scale of counts.

    Values that are not whole pass with a warning if they cannot be logarithms: counts corrected for ambient RNA, or
    counts divided by the total of the cell.

    Raises
    ------
    ValueError
        If the values look log-transformed.
    """
    rows, whole = expression_rows(adata, layer)
    if whole or not rows.nnz:
        return rows
    if rows.data.max() <= LARGEST_LOG:
        msg = (
            f"{_name(layer)} looks log-normalized (values that are not whole, none above {rows.data.max():.3g}), but "
            f"counts are needed: a logarithm divided by a gene's median has no meaning. Name a layer of counts (layers "
            f"here: {layer_listing(adata)}), or undo the logarithm by np.expm1."
        )
        raise ValueError(msg)
    _logging.warning(
        f"{_name(layer)} holds values that are not whole numbers. They are treated as counts up to a factor per cell."
    )
    return rows


def read_mapping(values: Mapping[Any, Any] | pd.Series | str | Path, *, name: str) -> pd.Series:
    """Numbers by gene from a mapping, a Series or a JSON file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `values` is none of these.
    ValueError
        If `values` is empty, holds something other than numbers, or names a gene twice.
    """
    if isinstance(values, str | Path):
        path = Path(values)
        if not path.is_file():
            msg = f"Did not find the file {str(path)!r} for {name}. Pass the path of a JSON file, or a mapping."
            raise FileNotFoundError(msg)
        try:
            values = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            msg = f"{str(path)!r} is not a JSON file ({error}). Read it yourself and pass {name} as a mapping."
            raise ValueError(msg) from error
    if not isinstance(values, Mapping | pd.Series):
        msg = f"{name} must be a mapping or Series of genes to numbers, or a JSON file, found {type(values).__name__}."
        raise TypeError(msg)
    series = values.copy() if isinstance(values, pd.Series) else pd.Series(dict(values), dtype=object)
    series.index = series.index.astype(str)
    if not len(series):
        msg = f"{name} is empty."
        raise ValueError(msg)
    if not series.index.is_unique:
        msg = f"{name} names genes twice: {listing(series.index[series.index.duplicated()].unique())}."
        raise ValueError(msg)
    numbers = pd.to_numeric(series, errors="coerce")
    if numbers.isna().any():
        msg = f"{name} holds no number for {listing(series.index[numbers.isna()])}."
        raise ValueError(msg)
    return numbers


def cell_sizes(adata: AnnData, counts: sparse.csr_matrix, size_key: str | None) -> np.ndarray:
    """Total counts of each cell: a column of ``obs``, or the sum over the genes."""
    if size_key is None:
        return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    column = pd.to_numeric(check.get_obs_column(adata, size_key), errors="coerce")
    sizes = np.asarray(column, dtype=np.float64)
    bad = ~(np.isfinite(sizes) & (sizes > 0)) & (np.diff(counts.indptr) > 0)
    if bad.any():
        msg = f"adata.obs[{size_key!r}] must hold positive totals: {int(bad.sum())} cells with counts have none."
        raise ValueError(msg)
    return sizes
