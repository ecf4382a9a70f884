"""How much of each dimension columns of ``obs`` explain, with a null distribution that respects samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._values import listing
from sparsesc.door._keys import TABLES
from sparsesc.door._obs_columns import Labels, Numbers, read_columns, read_labels
from sparsesc.stats.core._multiple import benjamini_hochberg

from ._permutation import explained

if TYPE_CHECKING:
    from anndata import AnnData

_COLUMNS = list(TABLES["latent_diagnostics/dependence"].columns)


@dataclass(frozen=True)
class _Units:
    """Cells or samples whose labels are shuffled."""

    values: np.ndarray
    """Units x dimensions."""
    labels: np.ndarray
    strata: np.ndarray | None
    name: str
    testable: bool = True


def dependence(
    adata: AnnData,
    latent: np.ndarray,
    dimensions: list[str],
    keys: list[str],
    sample_key: str | None,
    *,
    n_permutations: int,
    rng: np.random.Generator,
    progress_bar: bool | None,
) -> pd.DataFrame:
    """One row per dimension and key.

    Raises
    ------
    TypeError, ValueError
        If a column cannot be read, or varies within some samples and not within others.
    """
    parts = []
    samples = None if sample_key is None else read_labels(adata, sample_key, integers=True)
    labels, numbers = read_columns(adata, keys)
    for column in _logging.progress([*labels, *numbers], desc="Keys", enabled=progress_bar):
        units = _units(column, latent, samples, sample_key)
        result = explained(units.values, units.labels, strata=units.strata, n_permutations=n_permutations, rng=rng)
        rows = {"dimension": dimensions, "key": column.name, "share": result.share}
        rows |= {"null_mean": result.null_mean, "null_sd": result.null_sd}
        pval = result.pval if units.testable else np.full(len(dimensions), np.nan)
        parts.append(pd.DataFrame(rows | {"pval": pval, "unit": units.name, "n_units": len(units.values)}))
    if not parts:
        return pd.DataFrame({name: [] for name in _COLUMNS})
    order = {key: i for i, key in enumerate(keys)}
    table = pd.concat(parts, ignore_index=True).sort_values("key", key=lambda k: k.map(order), kind="stable")
    table["padj"] = benjamini_hochberg(table["pval"].to_numpy(float))
    return table[_COLUMNS].reset_index(drop=True)


def _units(column: Labels | Numbers, latent: np.ndarray, samples: Labels | None, sample_key: str | None) -> _Units:
    """Cells, cells within samples, or samples, depending on whether the column varies within samples."""
    known = column.known if samples is None else column.known & samples.known
    values = column.codes if isinstance(column, Labels) else column.values
    values, Z = values[known], latent[known]
    if samples is None:
        return _Units(Z, _without_gaps(values), None, "cell")
    sample = np.unique(samples.codes[known], return_inverse=True)[1]
    n_samples = int(sample.max()) + 1
    table = pd.DataFrame({"sample": sample, "value": values}).groupby("sample")["value"]
    varies = (table.nunique() > 1).to_numpy()
    if 2 * varies.sum() > n_samples:
        return _Units(Z, _without_gaps(values), sample, "cell within sample")
    if varies.any():
        names = np.array(samples.categories, dtype=object)[np.unique(samples.codes[known])[varies]]
        msg = (
            f"adata.obs[{column.name!r}] varies within {int(varies.sum())} samples of {sample_key!r} "
            f"({listing(names)}), but not within the {int((~varies).sum())} others. Correct the labels, or leave "
            "these samples out."
        )
        raise ValueError(msg)
    per_sample = _without_gaps(table.first().to_numpy())
    n_values = len(np.unique(per_sample))
    if isinstance(column, Labels) and n_values == n_samples:
        _logging.warning(
            f"Every sample of {sample_key!r} has a different value of {column.name!r}: it cannot be tested without "
            "replicates (p is NaN; the null is that of shuffled cells)."
        )
        return _Units(Z, _without_gaps(values), None, "cell", testable=False)
    if n_samples < 6:
        _logging.warning(
            f"{column.name!r} is the same within samples, and there are {n_samples} of them: too few for a small p."
        )
    means = np.zeros((n_samples, Z.shape[1]))
    np.add.at(means, sample, Z)
    return _Units(means / np.bincount(sample)[:, None], per_sample, None, "sample")


def _without_gaps(values: np.ndarray) -> np.ndarray:
    """Codes without gaps; numbers as they are."""
    return values if np.issubdtype(values.dtype, np.floating) else np.unique(values, return_inverse=True)[1]
