"""One group of cells, compared between conditions by samples; and what such a comparison cannot tell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc.door._obs_columns import Labels
from sparsesc.door._pseudobulk import Pseudobulk, covariate_columns
from sparsesc.stats.groups._moderated import fit_linear, t_tests
from sparsesc.stats.groups._over_samples import smallest_p

_FEW_P = 0.05


class Untestable(Exception):
    """Why a group cannot be tested."""


@dataclass(frozen=True)
class Design:
    """The replicates of one group, and what the model knows of them."""

    group: str
    rows: np.ndarray
    """Positions of the replicates."""
    reference: str
    tested: list[str]
    """Conditions that are compared with the reference."""
    columns: np.ndarray
    """Replicates x tested conditions: indicators."""
    others: np.ndarray
    """Replicates x covariates, with indicators of samples in a paired design."""

    @classmethod
    def of(cls, bulk: Pseudobulk, group: str, reference: str, *, min_cells: int, min_samples: int) -> Design:
        units = bulk.units
        enough = ((units["group"] == group) & (units["n_cells"] >= min_cells)).to_numpy()
        counts = units.loc[enough, "condition"].value_counts()
        ready = [c for c in bulk.conditions if counts.get(c, 0) >= min_samples]
        if reference not in ready or len(ready) < 2:
            present = ", ".join(f"{c}: {counts.get(c, 0)}" for c in bulk.conditions)
            msg = (
                f"At least min_samples={min_samples} samples with at least min_cells={min_cells} cells are needed in "
                f"the reference {reference!r} and in another condition. Found {present}. Samples are the replicates: "
                "cells cannot take their place."
            )
            raise Untestable(msg)
        rows = np.flatnonzero(enough & units["condition"].isin(ready).to_numpy())
        tested = [c for c in ready if c != reference]
        columns = (units["condition"].to_numpy()[rows, None] == np.array(tested, dtype=object)).astype(float)
        others = covariate_columns(units.iloc[rows])
        if bulk.paired:
            others = np.column_stack([others, pd.get_dummies(units["sample"].iloc[rows]).to_numpy(float)])
        return cls(group, rows, reference, tested, columns, others)


def compare(
    bulk: Pseudobulk, design: Design, measure: str, features: pd.Index, *, moderate: bool, min_active: int
) -> pd.DataFrame:
    """All features of one group by one measure."""
    rows = design.rows
    n_cells = bulk.units["n_cells"].to_numpy()[rows]
    values = (bulk.mean if measure == "mean" else bulk.active)[rows]
    n_active = bulk.active[rows].T @ n_cells
    tested = np.flatnonzero((n_active >= min_active - 0.5) & (np.ptp(values, axis=0) > 0))
    if not len(tested):
        msg = (
            f"None of the {len(features)} features is active in at least min_active={min_active} of "
            f"{int(n_cells.sum())} cells and differs between samples: there is nothing to test."
        )
        raise Untestable(msg)
    values = values[:, tested]
    try:
        fit = fit_linear(values, design.columns, design.others)
    except ValueError as error:
        what = "the samples and covariates" if bulk.paired else "the covariates"
        msg = (
            f"The condition cannot be separated from {what}, or too few samples are left for so many of them "
            f"({len(rows)} replicates; {error}). Leave covariates out, or add samples that break the tie."
        )
        raise Untestable(msg) from error
    # least squares have no better estimate to fall back on: a larger variance with so few degrees of freedom finds none
    tests = t_tests(fit, moderate=moderate, least=_of_cells(bulk, rows, measure)[tested] if moderate else None)
    # what half an active cell in every sample would add: where a feature is silent, a ratio needs an offset
    total, n_all = (bulk.mean[rows].T @ n_cells)[tested], n_cells.mean()
    half = 0.5 / n_all * (total / n_active[tested] if measure == "mean" else 1.0)
    conditions = bulk.units["condition"].to_numpy()[rows]
    in_reference = conditions == design.reference
    mean_reference = values[in_reference].mean(0)
    parts = []
    for i, condition in enumerate(design.tested):
        inside = conditions == condition
        mean = values[inside].mean(0)
        part = {
            "feature": features[tested],
            "group": design.group,
            "measure": measure,
            "condition": condition,
            "reference": design.reference,
            "score": tests.t[i],
            "effect": fit.effect[i],
            "logfc": np.log2((mean + half) / (mean_reference + half)),
            "mean_condition": mean,
            "mean_reference": mean_reference,
            "pval": np.exp(tests.log_p[i]),
            "se": tests.se[i],
            "df": tests.df,
            "n_samples": int(inside.sum()),
            "n_samples_reference": int(in_reference.sum()),
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def _of_cells(bulk: Pseudobulk, rows: np.ndarray, measure: str) -> np.ndarray:
    """Variance of a replicate's mean that its cells alone would make, by feature, as if all samples were alike.

    Residual variances of few samples can be near zero by chance, above all those of features with few active cells,
    whose shares take few values.
    """
    n_cells = bulk.units["n_cells"].to_numpy(float)[rows]
    mean = bulk.mean if measure == "mean" else bulk.active
    square = bulk.square if measure == "mean" else bulk.active  # of 0 and 1
    within = np.average(square[rows] - mean[rows] ** 2, axis=0, weights=n_cells)
    return np.maximum(within, 0.0) * np.mean(1.0 / n_cells)


def warn_of_few(table: pd.DataFrame, *, paired: bool) -> None:
    """So few samples that p below .05 rests on assumptions: say so."""
    pairs = table[["n_samples", "n_samples_reference"]].drop_duplicates().to_numpy()
    smallest = {(int(n), int(m)): smallest_p(int(min(n, m)), None if paired else int(max(n, m))) for n, m in pairs}
    few = {sizes: p for sizes, p in smallest.items() if p > _FEW_P}
    if not few:
        return
    (n, m), p = max(few.items(), key=lambda item: item[1])
    design = f"{n} samples, each with both conditions," if paired else f"{n} against {m} samples"
    _logging.warning(
        f"{design} cannot show a difference by themselves: if all agree, p is {p:.2g} without further assumptions. The "
        "p-values assume that samples vary as normal distributions do, and alike in features of a similar mean; one "
        "unusual sample is not recognized. Only large differences are found: take them as candidates for more samples"
    )


def warn_of_composition(bulk: Pseudobulk, design: Design, columns: list[Labels], n_found: int) -> None:
    """Some labels are more frequent in a condition, and so are the features of their cells: say so."""
    shifted = []
    for column in columns:
        known = (column.codes >= 0) & (bulk.unit >= 0)
        counts = np.zeros((len(bulk.units), len(column.categories)))
        np.add.at(counts, (bulk.unit[known], column.codes[known]), 1.0)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        as_features = replace(bulk, mean=share, active=share, square=share)
        names = pd.Index(column.categories)
        try:
            found = compare(as_features, design, "active", names, moderate=False, min_active=1)
        except Untestable:  # every sample has the same shares
            continue
        best = found.loc[found["pval"].idxmin()]
        if best["pval"] * len(found) < _FEW_P:
            shares = f"{best['mean_condition']:.0%} in {best['condition']!r}, {best['mean_reference']:.0%} in "
            shifted.append(f"{best['feature']} of {column.name!r} ({shares}{best['reference']!r})")
    if shifted:
        _logging.warning(
            f"Conditions differ in the shares of {'; '.join(shifted)}. Features of such cells differ for "
            f"this reason already ({n_found} features have padj < .05): set groupby={columns[0].name!r} to compare "
            "within them"
        )
