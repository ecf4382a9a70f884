"""What columns of ``obs`` explain of each dimension, with a null that respects samples."""

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

from ._restricted import explained

if TYPE_CHECKING:
    from anndata import AnnData

_COLUMNS = list(TABLES["latent_diagnostics/dependence"].columns)


@dataclass(frozen=True)
class _Units:
    """What is shuffled."""

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
    """One row a dimension and key.

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
        found = explained(units.values, units.labels, strata=units.strata, n_permutations=n_permutations, rng=rng)
        rows = {"dimension": dimensions, "key": column.name, "share": found.share}
        rows |= {"null_mean": found.null_mean, "null_sd": found.null_sd}
        pval = found.pval if units.testable else np.full(len(dimensions), np.nan)
        parts.append(pd.DataFrame(rows | {"pval": pval, "unit": units.name, "n_units": len(units.values)}))
    if not parts:
        return pd.DataFrame({name: [] for name in _COLUMNS})
    order = {key: i for i, key in enumerate(keys)}
    table = pd.concat(parts, ignore_index=True).sort_values("key", key=lambda k: k.map(order), kind="stable")
    table["padj"] = benjamini_hochberg(table["pval"].to_numpy(float))
    return table[_COLUMNS].reset_index(drop=True)


def _units(column: Labels | Numbers, latent: np.ndarray, samples: Labels | None, sample_key: str | None) -> _Units:
    """Cells, cells within samples, or samples, by how the column and the samples go together."""
    known = column.known if samples is None else column.known & samples.known
    values = column.codes if isinstance(column, Labels) else column.values
    values, Z = values[known], latent[known]
    if samples is None:
        return _Units(Z, _dense(values), None, "cell")
    sample = np.unique(samples.codes[known], return_inverse=True)[1]
    n_samples = int(sample.max()) + 1
    table = pd.DataFrame({"sample": sample, "value": values}).groupby("sample")["value"]
    varies = (table.nunique() > 1).to_numpy()
    if 2 * varies.sum() > n_samples:
        return _Units(Z, _dense(values), sample, "cell within sample")
    if varies.any():
        names = np.array(samples.categories, dtype=object)[np.unique(samples.codes[known])[varies]]
        msg = (
            f"adata.obs[{column.name!r}] varies within {int(varies.sum())} samples of {sample_key!r} "
            f"({listing(names)}), but not within the {int((~varies).sum())} others. Correct the labels, or leave "
            "these samples out."
        )
        raise ValueError(msg)
    per_sample = _dense(table.first().to_numpy())
    n_values = len(np.unique(per_sample))
    if isinstance(column, Labels) and n_values == n_samples:
        _logging.warning(
            f"Every sample of {sample_key!r} has a value of {column.name!r} of its own: without replicates there is no "
            "test of it (p is NaN; the null is that of shuffled cells)."
        )
        return _Units(Z, _dense(values), None, "cell", testable=False)
    if n_samples < 6:
        _logging.warning(
            f"{column.name!r} is the same within samples, and there are {n_samples} of them: too few for a small p."
        )
    means = np.zeros((n_samples, Z.shape[1]))
    np.add.at(means, sample, Z)
    return _Units(means / np.bincount(sample)[:, None], per_sample, None, "sample")


def _dense(values: np.ndarray) -> np.ndarray:
    """Codes without gaps; numbers as they are."""
    return values if np.issubdtype(values.dtype, np.floating) else np.unique(values, return_inverse=True)[1]
