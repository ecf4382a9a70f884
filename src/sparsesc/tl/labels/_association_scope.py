"""Which cells are compared with which: all with all, within strata, or sample after sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc._values import as_list, listing
from sparsesc.door import _checks as check
from sparsesc.door._obs_columns import Labels, Numbers, read_labels
from sparsesc.stats.core._correlate import correlate
from sparsesc.stats.core._holdout import members, stratified_holdout
from sparsesc.stats.core._ranks import RankedColumns, rank_columns
from sparsesc.stats.groups._association import GroupAssociation, mann_whitney
from sparsesc.stats.groups._over_samples import (
    FEWEST_SAMPLES,
    OverSamples,
    groups_over_samples,
    joined,
    numbers_over_samples,
    smallest_p,
    varies_within,
)
from sparsesc.stats.groups._within_strata import GroupsWithin, groups_within, numbers_within

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_DRAWS = 50


@dataclass(frozen=True)
class Scope:
    """Codes of all cells, and what divides the cells."""

    codes: sparse.csr_matrix
    strata: np.ndarray | None
    """Stratum of each cell; negative: none."""
    samples: np.ndarray | None
    names: dict[str, list[str]]
    """Columns of ``obs`` that strata and samples come from."""
    _ranks: dict[bytes, RankedColumns] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(
        cls,
        adata: AnnData | MuData,
        codes: sparse.csr_matrix,
        strata: str | Sequence[str] | None,
        sample_key: str | None,
        tested: Sequence[str],
    ) -> Scope:
        """Read the columns; logs how many cells have no value there.

        Raises
        ------
        KeyError
            If a column does not exist.
        TypeError
            If a column holds numbers that are not whole.
        ValueError
            If a column is also tested, or there are fewer than two samples.
        """
        names = {"strata": [] if strata is None else as_list(strata), "sample_key": as_list(sample_key or [])}
        for option, columns in names.items():
            for name in columns:
                if name in tested:
                    msg = f"{name!r} is tested and cannot divide the cells as well ({option}): leave it out of one."
                    raise ValueError(msg)
        read = {option: [_column(adata, name, option) for name in columns] for option, columns in names.items()}
        found = {option: _join(columns) for option, columns in read.items()}
        for option, where in found.items():
            if where is not None and (where < 0).any():
                _logging.warning(
                    f"{int((where < 0).sum())} of {adata.n_obs} cells have no {listing(names[option])} ({option}) and "
                    "are left out"
                )
        samples = found["sample_key"]
        if samples is not None and len(np.unique(samples[samples >= 0])) < 2:
            msg = f"adata.obs[{sample_key!r}] has one sample only: samples are the replicates, and one has no spread."
            raise ValueError(msg)
        return cls(codes, found["strata"], samples, names)

    @property
    def known(self) -> np.ndarray:
        """Cells with a stratum and a sample."""
        known = np.ones(self.codes.shape[0], bool)
        for where in (self.strata, self.samples):
            known &= True if where is None else where >= 0
        return known

    @property
    def divides(self) -> bool:
        """Whether not all cells are compared with all."""
        return self.strata is not None or self.samples is not None

    def of_labels(self, column: Labels) -> Labels:
        """The column among cells with a stratum and a sample; categories without any are left out."""
        known = self.known
        codes = np.where(known, column.codes, -1)
        left = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=len(column.categories)))
        if known.all() or len(left) == len(column.categories):
            return replace(column, codes=codes)
        if len(left) < 2:
            msg = f"adata.obs[{column.name!r}] has one value only where strata and samples are known: nothing to test."
            raise ValueError(msg)
        gone = [c for i, c in enumerate(column.categories) if i not in left]
        _logging.warning(f"{listing(gone)} of {column.name!r} have no cell with a stratum and a sample: not tested")
        position = np.full(len(column.categories) + 1, -1)
        position[left] = np.arange(len(left))
        return replace(column, codes=position[codes], categories=[column.categories[i] for i in left])

    def of_numbers(self, column: Numbers) -> Numbers:
        """The column among cells with a stratum and a sample."""
        return replace(column, values=np.where(self.known, column.values, np.nan))

    def check(self, columns: Sequence[Labels | Numbers]) -> None:
        """Refuse strata of samples that hold one value each: there is nothing to compare within."""
        if self.strata is None or self.samples is None:
            return
        for column in columns:
            values = column.codes if isinstance(column, Labels) else column.values
            if not varies_within(values[column.known], self.samples[column.known]):
                msg = (
                    f"adata.obs[{column.name!r}] is constant within samples of {listing(self.names['sample_key'])}: "
                    "cells of one stratum and sample cannot be compared. Leave strata out, or use "
                    "ssc.tl.differential_features, which compares samples within cell types."
                )
                raise ValueError(msg)

    def hold_out(self, columns: list[Labels], share: float, min_cells: int, rng: np.random.Generator) -> np.ndarray:
        """Cells to score on: by lot within labels; or whole samples, such that most labels are in both parts."""
        if self.samples is None:
            return stratified_holdout([c.codes for c in columns], share, rng, n_rows=self.codes.shape[0])
        _, first, position = np.unique(self.samples, return_index=True, return_inverse=True)
        none = self.samples[first] < 0
        groups = [c.codes[first] for c in columns if not varies_within(c.codes[c.known], self.samples[c.known])]
        best, most = np.zeros(0, bool), -1
        for _ in range(_DRAWS):
            held = stratified_holdout(groups, share, rng, n_rows=len(first)) & ~none
            count = 0
            for column in columns:
                for side in (held, ~held & ~none):
                    inside = side[position] & column.known
                    sizes = np.bincount(column.codes[inside], minlength=len(column.categories))
                    count += int((sizes >= max(min_cells / 2, 1)).sum())
            if count > most and held.any() and not (held | none).all():
                best, most = held, count
        return best[position]

    def ranked(self, mask: np.ndarray) -> RankedColumns:
        """Ranks among some of the cells, computed once for each set of cells."""
        name = mask.tobytes()
        if name not in self._ranks:
            self._ranks[name] = rank_columns(self.codes if mask.all() else self.codes[mask])
        return self._ranks[name]

    def within(self, mask: np.ndarray, column: Labels, *, test: bool = False) -> GroupsWithin | OverSamples | None:
        """Comparison among some of the cells, within strata or samples; ``None`` where nothing divides the cells."""
        groups, n_groups = column.codes[mask], len(column.categories)
        if not len(groups):
            return None
        inner = None if self.strata is None else self.strata[mask]
        if self.samples is not None:
            return groups_over_samples(self.codes[mask], groups, self.samples[mask], n_groups, strata=inner, test=test)
        return None if inner is None else groups_within(self.codes[mask], groups, inner, n_groups, test=test)

    def test_labels(
        self, column: Labels, within: GroupsWithin | OverSamples | None, ranked: RankedColumns, pvalues: str
    ) -> dict[str, np.ndarray]:
        """P-values by name, features x categories, and how many strata or samples each category has.

        `within` compares the cells that have a label, with a test.
        """
        mask, n_groups = column.known, len(column.categories)
        groups = column.codes[mask]
        if isinstance(within, OverSamples):
            _report_samples(column, within.n_samples, varies_within(groups, np.asarray(self.samples)[mask]))
            return {"pval": np.exp(within.log_p), "n_samples": np.broadcast_to(within.n_samples, within.log_p.shape)}
        if within is not None:
            self._report_strata(column, within.n_strata)
            usual, n_strata = np.exp(within.log_p_asymptotic), np.broadcast_to(within.n_strata, within.log_p.shape)
            exact = {"pval": np.exp(within.log_p), "pval_asymptotic": usual}
            return ({"pval": usual} if pvalues == "asymptotic" else exact) | {"n_strata": n_strata}
        usual = np.exp(mann_whitney(ranked, groups, n_groups, method="asymptotic")[1])
        if pvalues == "asymptotic":
            return {"pval": usual}
        log_p = mann_whitney(ranked, groups, n_groups, method="auto" if pvalues == "auto" else "permutation")[1]
        return {"pval": np.exp(log_p), "pval_asymptotic": usual}

    def test_numbers(self, column: Numbers, ranked: RankedColumns, pvalues: str) -> dict[str, np.ndarray]:
        """Correlations, p-values and numbers of strata or samples by name, one a feature."""
        mask = column.known
        values = column.values[mask]
        r, usual = correlate(ranked, values, kind="pearson", method="asymptotic")
        rho, usual_rank = correlate(ranked, values, kind="spearman", method="asymptotic")
        if not self.divides:
            logs = {"pval": usual_rank[:, 0], "pval_pearson": usual[:, 0]}
            if pvalues != "asymptotic":
                logs = {
                    "pval": correlate(ranked, values, kind="spearman")[1][:, 0],
                    "pval_pearson": correlate(ranked, values, kind="pearson")[1][:, 0],
                    "pval_asymptotic": usual_rank[:, 0],
                    "pval_pearson_asymptotic": usual[:, 0],
                }
            return {"pearson_r": r[:, 0], "spearman_r": rho[:, 0]} | {name: np.exp(log) for name, log in logs.items()}
        codes = self.codes[mask]
        inner = None if self.strata is None else self.strata[mask]
        out, logs, n = {}, {}, 0
        kinds: tuple[tuple[Literal["pearson", "spearman"], str], ...] = (("pearson", "_pearson"), ("spearman", ""))
        for kind, suffix in kinds:
            if self.samples is not None:
                over = numbers_over_samples(codes, values, self.samples[mask], kind=kind, strata=inner)
                out[f"{kind}_r"], logs[f"pval{suffix}"], n = over.r, over.log_p, over.n_samples
            elif inner is not None:
                within = numbers_within(codes, values, inner, kind=kind)
                out[f"{kind}_r"], n = within.r, within.n_strata
                logs[f"pval{suffix}"] = within.log_p_asymptotic if pvalues == "asymptotic" else within.log_p
                if pvalues != "asymptotic":
                    logs[f"pval{suffix}_asymptotic"] = within.log_p_asymptotic
        if n < (1 if self.samples is None else FEWEST_SAMPLES):
            why = f"{n} samples, fewer than {FEWEST_SAMPLES}" if self.samples is not None else "constant within strata"
            _logging.warning(f"{column.name!r} is not tested (p is NaN): {why}")
        out |= {name: np.exp(log) for name, log in logs.items()}
        out |= {"pearson_r_unadjusted": r[:, 0], "spearman_r_unadjusted": rho[:, 0]}
        return out | {"n_strata" if self.samples is None else "n_samples": np.full(len(rho), n)}

    def _report_strata(self, column: Labels, n_strata: np.ndarray) -> None:
        mask = column.known
        strata, groups = np.asarray(self.strata)[mask], column.codes[mask]
        alone = [rows for rows in members(strata) if np.ptp(groups[rows]) == 0]
        if alone:
            cells = sum(len(rows) for rows in alone)
            _logging.warning(
                f"{len(alone)} of {len(members(strata))} strata of {listing(self.names['strata'])} ({cells} of "
                f"{len(groups)} cells) have cells of one category of {column.name!r} only and contribute nothing"
            )
        never = [column.categories[i] for i in np.flatnonzero(n_strata == 0)]
        if never:
            _logging.warning(
                f"{listing(never)} of {column.name!r} share no stratum with other categories: not tested (p is NaN)"
            )


def effects_within(overall: GroupAssociation, within: GroupsWithin | OverSamples | None) -> GroupAssociation:
    """Effects with r and AUROC within strata or samples."""
    return overall if within is None else replace(overall, auroc=within.auroc, pearson_r=within.pearson_r)


def _column(adata: AnnData | MuData, name: str, option: str) -> Labels:
    column = check.get_obs_column(adata, name)
    if pd.api.types.is_float_dtype(column):
        msg = (
            f"{option}: adata.obs[{name!r}] holds numbers ({column.dtype}), but labels are needed. Cut it into bins "
            f"first: adata.obs['bin'] = pd.qcut(adata.obs[{name!r}], 10).astype(str)."
        )
        raise TypeError(msg)
    return read_labels(adata, name, integers=True)


def _join(columns: list[Labels]) -> np.ndarray | None:
    """One code for each combination of values; -1 where one is missing."""
    if not columns:
        return None
    out = columns[0].codes
    for column in columns[1:]:
        known = (out >= 0) & (column.codes >= 0)
        both = np.full(len(out), -1)
        both[known] = joined(out[known], column.codes[known])
        out = both
    return out


def _report_samples(column: Labels, n_samples: np.ndarray, within: bool) -> None:
    """Which categories have too few samples to be tested, or for p below .05 without a normal distribution."""
    others = n_samples.sum() - n_samples  # used where samples are of one category each
    fewer, least = (n_samples, FEWEST_SAMPLES) if within else (np.minimum(n_samples, others), 2)
    where = "with cells inside and outside" if within else "inside or outside"
    few = fewer < least
    if few.any():
        names = [f"{column.categories[i]} ({fewer[i]})" for i in np.flatnonzero(few)]
        _logging.warning(
            f"{column.name!r}: {listing(names)} have fewer than {least} samples {where} and are not tested (p is NaN)"
        )
    pairs = zip(n_samples[~few], others[~few], strict=True)
    smallest = [smallest_p(int(n), None if within else int(m)) for n, m in pairs]
    if max(smallest, default=0.0) > 0.05:
        _logging.warning(
            f"{column.name!r} has so few samples ({int(fewer[~few].min())} {where}) that no p <= .05 is possible "
            f"without assuming normal distributions, as the t test does: {max(smallest):.2g} is the smallest if all "
            "samples agree. Take a p just below .05 as no evidence"
        )
