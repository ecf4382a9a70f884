"""Two groups of cells, and the samples that are their replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sparsesc._values import check_choice, listing
from sparsesc.door._obs_columns import Labels, read_labels
from sparsesc.door._pseudobulk import pair_samples
from sparsesc.stats.groups._moderated import fit_linear, t_tests

if TYPE_CHECKING:
    from anndata import AnnData

_FEWEST_SAMPLES = 2


@dataclass(frozen=True)
class TwoGroups:
    """Cells of two groups."""

    names: list[str]
    group: np.ndarray
    """0, 1, or -1 for neither, one per cell."""
    sample: np.ndarray | None
    """Sample of each cell, ``0 ...``, -1 for none."""
    paired: bool
    """Whether samples have cells of both groups."""

    def of_cells(self, rows: np.ndarray) -> TwoGroups:
        """Some of the cells."""
        return replace(self, group=self.group[rows], sample=None if self.sample is None else self.sample[rows])

    def test_samples(self, values: np.ndarray, *, min_cells: int, moderate: bool) -> tuple[np.ndarray, np.ndarray]:
        """Test sets between the groups, with the means of samples as replicates.

        Parameters
        ----------
        values
            Cells x sets.
        min_cells
            A replicate with fewer cells is left out.
        moderate
            Whether variances borrow strength from each other.

        Returns
        -------
        t and two-sided p of the first group minus the second; NaN if there are too few samples.
        """
        blank = np.full(values.shape[1], np.nan)
        if self.sample is None:
            return blank, blank
        known = (self.group >= 0) & (self.sample >= 0)
        codes, replicate = np.unique(2 * self.sample[known] + self.group[known], return_inverse=True)
        n_cells = np.bincount(replicate, minlength=len(codes))
        used = n_cells >= min_cells
        if self.paired:
            n_groups = np.bincount(codes[used] // 2, minlength=codes.max(initial=0) // 2 + 1)
            used &= n_groups[codes // 2] == len(self.names)
        sample, group = codes[used] // 2, codes[used] % 2
        if min((group == g).sum() for g in (0, 1)) < _FEWEST_SAMPLES:
            return blank, blank
        members = (replicate[:, None] == np.flatnonzero(used)).astype(float)  # cells x replicates
        means = members.T @ values[known] / n_cells[used, None]
        column = (group == 0).astype(float)[:, None]
        others = (sample[:, None] == np.unique(sample)).astype(float) if self.paired else np.empty((len(sample), 0))
        constant = np.ptp(means, axis=0) <= 1e-12 * np.abs(means).max(0)
        t, log_p = np.zeros(len(blank)), np.zeros(len(blank))
        if not constant.all():
            tests = t_tests(fit_linear(means[:, ~constant], column, others), moderate=moderate)
            t[~constant], log_p[~constant] = tests.t[0], tests.log_p[0]
        return t, np.exp(log_p)


def two_groups(
    adata: AnnData, cells: np.ndarray, groupby: str, groups: Sequence[str] | None, sample_key: str | None
) -> TwoGroups:
    """The groups, and the samples, of these cells.

    Raises
    ------
    KeyError
        If a column, or a cell, is not there.
    TypeError
        If a column holds numbers.
    ValueError
        If there are not two groups, or a group has too few cells or samples.
    """
    labels = read_labels(adata, groupby)
    names = _two_names(labels, groups)
    rows = adata.obs_names.get_indexer(cells)
    if (rows < 0).any():
        msg = f"{int((rows < 0).sum())} cells of the saliency are not in adata: {listing(cells[rows < 0])}."
        raise KeyError(msg)
    first, second = (labels.codes[rows] == labels.categories.index(name) for name in names)
    group = np.where(first, 0, np.where(second, 1, -1))
    counts = [int((group == g).sum()) for g in (0, 1)]
    if min(counts) < _FEWEST_SAMPLES:
        msg = (
            f"Of the cells of the saliency, {counts[0]} are {names[0]!r} and {counts[1]} are {names[1]!r}: too few "
            "to compare. Run ssc.tl.saliency with a larger max_cells, or with these cells."
        )
        raise ValueError(msg)
    if sample_key is None:
        return TwoGroups(names, group, None, False)
    sample = read_labels(adata, sample_key, integers=True)
    condition = Labels(groupby, group, names)
    sample = Labels(sample_key, sample.codes[rows], sample.categories)
    known = condition.known & sample.known
    paired, known = pair_samples(condition, sample, known, groupby, sample_key)
    per_group = [len(np.unique(sample.codes[known & (group == g)])) for g in (0, 1)]
    if min(per_group) < _FEWEST_SAMPLES:
        msg = (
            f"At least {_FEWEST_SAMPLES} samples of each group are needed, found {per_group[0]} of {names[0]!r} and "
            f"{per_group[1]} of {names[1]!r}. Samples are the replicates: cells cannot take their place."
        )
        raise ValueError(msg)
    return TwoGroups(names, np.where(known, group, -1), np.where(known, sample.codes, -1), paired)


def _two_names(labels: Labels, groups: Sequence[str] | None) -> list[str]:
    if groups is None:
        if len(labels.categories) != 2:
            msg = (
                f"adata.obs[{labels.name!r}] has {len(labels.categories)} categories: name two of "
                f"{listing(labels.categories)} by groups=(a, b)."
            )
            raise ValueError(msg)
        return labels.categories[::-1]
    names = [groups] if isinstance(groups, str) else [str(g) for g in groups]
    if len(names) != 2 or names[0] == names[1]:
        msg = f"groups must name two different categories of {labels.name!r}, found {listing(names)}."
        raise ValueError(msg)
    for name in names:
        check_choice(name, labels.categories, name="group")
    return names
