"""Columns of ``obs`` as arrays: labels as codes, numbers as float64; anything else is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._values import listing

from . import _checks as check

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_FEWEST = 3  # cells with a value; with fewer, no test has a meaning
_NUMERIC_OBJECTS = ("integer", "floating", "mixed-integer-float", "decimal")
_LABEL_OBJECTS = ("string", "boolean", "mixed", "mixed-integer", "categorical")


@dataclass(frozen=True)
class Labels:
    """A column of categories."""

    name: str
    codes: np.ndarray
    """Position in `categories` for each cell; -1 where the label is missing."""
    categories: list[str]

    @property
    def known(self) -> np.ndarray:
        """Cells with a label."""
        return self.codes >= 0

    @property
    def sizes(self) -> np.ndarray:
        """Cells of each category."""
        return np.bincount(self.codes[self.known], minlength=len(self.categories))


@dataclass(frozen=True)
class Numbers:
    """A column of numbers; NaN where missing."""

    name: str
    values: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Cells with a number."""
        return ~np.isnan(self.values)


def read_columns(adata: AnnData | MuData, keys: list[str]) -> tuple[list[Labels], list[Numbers]]:
    """Columns of ``obs``, sorted into labels and numbers; logs how many cells have no value.

    Raises
    ------
    KeyError
        If a column does not exist.
    TypeError
        If a column holds neither labels nor numbers (dates, complex numbers).
    ValueError
        If a column has fewer than two values, too few cells with a value, infinite numbers, or as many labels as cells.
    """
    columns = [_read(check.get_obs_column(adata, key), key) for key in keys]
    for column in columns:
        missing = int((~column.known).sum())
        if missing:
            _logging.info(f"{missing} of {adata.n_obs} cells have no {column.name!r} and are left out of its tests")
    return [c for c in columns if isinstance(c, Labels)], [c for c in columns if isinstance(c, Numbers)]


def read_groups(adata: AnnData | MuData, key: str) -> Labels:
    """One column of ``obs`` with labels to compare; refuses what :func:`read_columns` refuses, and numbers."""
    columns, _ = read_columns(adata, [key])
    return columns[0] if columns else read_labels(adata, key)


def _read(column: pd.Series, name: str) -> Labels | Numbers:
    if column.notna().sum() < _FEWEST:
        msg = f"adata.obs[{name!r}] has a value in {int(column.notna().sum())} cells: at least {_FEWEST} are needed."
        raise ValueError(msg)
    result = _labels(column, name) if _is_label(column, name) else _numbers(column, name)
    n_values = len(result.categories) if isinstance(result, Labels) else len(np.unique(result.values[result.known]))
    if n_values < 2:
        msg = f"adata.obs[{name!r}] has only one value: there is nothing to compare it with. Leave the column out."
        raise ValueError(msg)
    if isinstance(result, Labels) and result.sizes.max() == 1:
        msg = (
            f"adata.obs[{name!r}] has a label of its own for each of {n_values} cells, as identifiers do: there is "
            "nothing to compare. Leave the column out, or convert it to numbers if that is what it holds."
        )
        raise ValueError(msg)
    return result


def _is_label(column: pd.Series, name: str) -> bool:
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(dtype):
        return True
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        return False
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in _NUMERIC_OBJECTS:
        return False
    if kind not in _LABEL_OBJECTS:
        msg = (
            f"adata.obs[{name!r}] holds {kind} (dtype {dtype}): neither labels nor numbers. Convert it first, "
            "for example with .astype('category') or .astype(float)."
        )
        raise TypeError(msg)
    return True


def _labels(column: pd.Series, name: str) -> Labels:
    if not isinstance(column.dtype, pd.CategoricalDtype):
        known = column.notna()
        column = column.astype(object).where(known, None).map(str, na_action="ignore").astype("category")
    categorical = column.cat.remove_unused_categories()
    categories = [str(c) for c in categorical.cat.categories]
    if len(set(categories)) < len(categories):
        msg = f"adata.obs[{name!r}] has categories that read the same as text: {listing(categories)}. Rename them."
        raise ValueError(msg)
    return Labels(name, categorical.cat.codes.to_numpy(dtype=np.int64), categories)


def _numbers(column: pd.Series, name: str) -> Numbers:
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        msg = (
            f"adata.obs[{name!r}] holds {int(np.isinf(values).sum())} infinite values. Replace them, or set them to "
            "NaN to leave these cells out."
        )
        raise ValueError(msg)
    return Numbers(name, values)


def read_labels(adata: AnnData | MuData, key: str, *, integers: bool = False) -> Labels:
    """One column of ``obs`` as labels, however few or many; with `integers`, whole numbers are also labels.

    Raises
    ------
    KeyError
        If the column does not exist.
    TypeError
        If it holds numbers, or neither labels nor numbers.
    """
    column = check.get_obs_column(adata, key)
    if integers and pd.api.types.is_integer_dtype(column):
        column = column.astype("category")
    if not _is_label(column, key):
        msg = (
            f"adata.obs[{key!r}] holds numbers ({column.dtype}), but labels are needed. If they are labels, "
            "convert them by .astype('category')."
        )
        raise TypeError(msg)
    return _labels(column, key)
