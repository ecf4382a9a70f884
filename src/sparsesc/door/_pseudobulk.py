"""Codes summed by sample: the input of tests between conditions, and of their plot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._values import listing
from sparsesc.stats.core._moments import group_sums

from . import _checks as check
from ._obs_columns import Labels, read_labels

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from scipy import sparse

ALL = "all"


@dataclass(frozen=True)
class Pseudobulk:
    """Replicates: one per sample, or one per sample and condition where samples have several conditions."""

    units: pd.DataFrame
    """`group`, `sample`, `condition`, `n_cells` and covariates, one row per replicate."""
    mean: np.ndarray
    """Replicates x features: mean activation over all cells, active or not."""
    active: np.ndarray
    """Replicates x features: share of cells in which the feature is active."""
    square: np.ndarray
    """Replicates x features: mean of squared activations over all cells."""
    unit: np.ndarray
    """Replicate of each cell of the object; -1: left out."""
    conditions: list[str]
    groups: list[str]
    paired: bool
    """Whether each sample has several conditions."""

    def take(self, rows: np.ndarray) -> Pseudobulk:
        """Some of the replicates."""
        units = self.units[rows].reset_index(drop=True)
        kept = np.append(np.where(rows, np.cumsum(rows) - 1, -1), -1)  # the last one is that of cells without
        arrays = {name: getattr(self, name)[rows] for name in ("mean", "active", "square")}
        return replace(self, units=units, **arrays, unit=kept[self.unit])


def pseudobulk(
    adata: AnnData | MuData,
    codes: sparse.csr_matrix,
    condition_key: str,
    sample_key: str,
    *,
    covariates: list[str],
    groupby: str | None,
) -> Pseudobulk:
    """Sum the codes of cells of the same sample (and condition, and group).

    Raises
    ------
    KeyError
        If a column does not exist.
    TypeError
        If the condition, samples or groups are numbers.
    ValueError
        If there is only one condition, a few samples mix conditions, or a covariate differs within a sample.
    """
    condition = read_labels(adata, condition_key)
    sample = read_labels(adata, sample_key, integers=True)
    if len(condition.categories) < 2:
        msg = (
            f"adata.obs[{condition_key!r}] has one value only ({listing(condition.categories)}): there is "
            "nothing to compare."
        )
        raise ValueError(msg)
    group = None if groupby is None else read_labels(adata, groupby, integers=True)
    known = condition.known & sample.known & (True if group is None else group.known)
    if not known.all():
        keys = ", ".join(repr(k) for k in (condition_key, sample_key, groupby) if k is not None)
        _logging.info(f"{int((~known).sum())} of {adata.n_obs} cells lack a value of {keys} and are left out")
    paired, known = pair_samples(condition, sample, known, condition_key, sample_key)

    group_codes = np.zeros(adata.n_obs, np.int64) if group is None else group.codes
    positions = np.column_stack([group_codes, sample.codes, condition.codes])[known]
    replicates, unit = np.unique(positions, axis=0, return_inverse=True)
    unit = unit.ravel()
    n_units = len(replicates)
    n_cells = np.bincount(unit, minlength=n_units)
    here = codes if known.all() else codes[known]
    values, ones, squares = here.astype(np.float64), here.copy(), here.copy()
    ones.data, squares.data = (here.data > 0).astype(np.float64), values.data**2
    groups = [ALL] if group is None else group.categories
    categories = {"group": groups, "sample": sample.categories, "condition": condition.categories}
    units = pd.DataFrame(
        {name: np.array(c, dtype=object)[replicates[:, i]] for i, (name, c) in enumerate(categories.items())}
    ).assign(n_cells=n_cells)
    for name in covariates:
        units[f"covariate {name}"] = _covariate(adata, name, known, unit, units, sample_key)
    of_cell = np.full(adata.n_obs, -1)
    of_cell[known] = unit
    mean, active, square = (group_sums(part, unit, n_units).T / n_cells[:, None] for part in (values, ones, squares))
    return Pseudobulk(units, mean, active, square, of_cell, condition.categories, groups, paired)


def covariate_columns(units: pd.DataFrame) -> np.ndarray:
    """Replicates x columns: covariates that are numbers, and indicators of categories."""
    parts = [np.empty((len(units), 0))]
    for name in units.columns[units.columns.str.startswith("covariate ")]:
        column = units[name]
        if pd.api.types.is_numeric_dtype(column):
            values = column.to_numpy(float)[:, None]
            parts.append((values - values.mean(0)) / np.maximum(values.std(0), 1e-300))
        else:
            parts.append(pd.get_dummies(column).to_numpy(float))
    return np.column_stack(parts)


def pair_samples(
    condition: Labels, sample: Labels, known: np.ndarray, condition_key: str, sample_key: str
) -> tuple[bool, np.ndarray]:
    """Whether samples have several conditions, and the cells of the samples that are used.

    The majority decides. If most samples have several conditions, those with one say nothing about a difference within
    samples; if most have one, those with several are mistakes.
    """
    table = np.zeros((len(sample.categories), len(condition.categories)), bool)
    table[sample.codes[known], condition.codes[known]] = True
    several, single = table.sum(1) > 1, table.sum(1) == 1
    names = np.array(sample.categories, dtype=object)
    if not several.any():
        return False, known
    if several.sum() < max(2, single.sum()):
        msg = (
            f"adata.obs[{condition_key!r}] is not constant within {int(several.sum())} samples of {sample_key!r} "
            f"({listing(names[several])}), as it is within the {int(single.sum())} others. Correct the labels, "
            "leave these samples out, or join both columns into one that names the replicates (and pass "
            f"covariates=[{sample_key!r}] to compare within)."
        )
        raise ValueError(msg)
    _logging.info(
        f"{int(several.sum())} samples of {sample_key!r} have several values of {condition_key!r}: conditions are "
        "compared within samples (a paired design)"
    )
    if single.any():
        _logging.warning(
            f"{int(single.sum())} samples of {sample_key!r} have one value of {condition_key!r} only and are left out: "
            f"{listing(names[single])}"
        )
    return True, known & several[sample.codes]


def _covariate(
    adata: AnnData | MuData, name: str, known: np.ndarray, unit: np.ndarray, units: pd.DataFrame, sample_key: str
) -> np.ndarray:
    """Value of a covariate in each replicate."""
    column = check.get_obs_column(adata, name)[known]
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    values = pd.Series(column.to_numpy(float) if numeric else column.astype(object).map(str, na_action="ignore"))
    values.index = pd.RangeIndex(len(values))
    if values.isna().any() or (numeric and np.isinf(values).any()):
        bad = np.unique(unit[(values.isna() | (values.isin([np.inf, -np.inf]))).to_numpy()])
        msg = (
            f"The covariate adata.obs[{name!r}] has no (finite) value in some cells of the samples "
            f"{listing(units['sample'].iloc[bad].unique())}. Fill it in, or leave these cells out."
        )
        raise ValueError(msg)
    differing = values.groupby(unit).nunique() > 1
    if differing.any():
        bad = units["sample"].to_numpy()[differing.to_numpy()]
        msg = (
            f"The covariate adata.obs[{name!r}] differs between cells of one sample of {sample_key!r}: "
            f"{listing(np.unique(bad))}. Covariates describe samples; take the mean or the most common value of each."
        )
        raise ValueError(msg)
    return values.groupby(unit).first().to_numpy()
