from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._values import check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._obs_columns import read_groups
from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.groups._locality import breadth, classify, group_contrasts

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

COLUMNS = ("locality", "locality_categories", "breadth")


def feature_locality(
    adata: AnnData | MuData,
    groupby: str,
    *,
    key: str = "sae",
    alpha: float = 0.05,
    min_fold: float = 2.0,
    min_cells: int = 30,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Is a feature local to one category, regional, or global?

    Activation in every category is compared with that in all other cells, by a Mann-Whitney test that holds its level
    for sparse features and rare categories.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder.
    groupby
        Column of ``obs`` with labels, for example cell types. Cells without a label are left out.
    key
        Name of the sparse autoencoder.
    alpha
        Level of the false discovery rate, and of the tests for ``"global"``.
    min_fold
        A category counts when its mean activation is at least so many times that of the other cells; with many cells,
        differences of no interest are significant.
    min_cells
        Categories with fewer cells are tested, but a feature need not be shown to be as strong there as elsewhere to be
        ``"global"``.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``uns[key]["locality"]``
        Table of all features x categories: `feature`, `category`, `mean_in`, `mean_out` (mean activation, silent cells
        included), `statistic` (U of the Mann-Whitney test, less its mean and over its standard deviation when cells are
        shuffled), `pval` (two-sided, as by default in :func:`feature_association`), `padj` (Benjamini-Hochberg over
        all features x categories), `n_cells` (of the category), `fold_low`, `fold_high` (limits of the ratio of the
        means, between which it lies with ``1 - 2 * alpha``) and `stronger` (`padj` below `alpha`, and `min_fold`
        reached).
    ``uns[key]["features"]``
        `locality`: ``"local"`` (`stronger` in exactly one category),
        ``"regional"`` (in several; or in none but weaker by `min_fold` in some), ``"global"`` (neither, and shown to be
        within `min_fold` in every category), ``"unclear"`` (nothing of this is shown, as for rare features), or empty
        (silent). `locality_categories`: where it is stronger, the strongest first, joined by ``"; "``. `breadth`: how
        many categories its mean activation is spread over (exponential of the entropy).
    ``uns[key]["params"]["feature_locality"]``
        What was asked.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or no such column.
    TypeError
        If the column holds numbers.
    ValueError
        If the column has only one value, or an option is out of its range.

    Notes
    -----
    No feature can be stronger in every category than in the rest: "global" cannot be shown by significant differences,
    nor by their absence, which may be a lack of cells. It takes a test of equivalence in every category.

    The rule ``mean_in - mean_out > 1.96 (se_in + se_out)`` adds standard errors where their squares add up, and is not
    corrected for the number of tests. Among shuffled cells it calls 0 to 0.5 % of the pairs instead of the 2.5 % of its
    nominal level; of 2,700 blood cells it finds a third fewer pairs than the test here does at a false discovery rate
    of 5 %.

    When not to use it: cells of one donor are not independent, so p-values hold for these cells. Where categories were
    made by clustering the same embedding, nearly all features are local by construction. A feature of a type that
    `groupby` splits into several is regional; coarser labels make it local.

    References
    ----------
    Mann and Whitney (1947), Ann Math Stat 18:50. Benjamini and Hochberg (1995), J R Stat Soc B 57:289. Schuirmann
    (1987), J Pharmacokinet Biopharm 15:657 (two one-sided tests). Hill (1973), Ecology 54:427 (breadth).
    """
    if not 0 < alpha < 0.5:
        msg = f"alpha must lie between 0 and 0.5, found {alpha!r}."
        raise ValueError(msg)
    if not min_fold > 1:
        msg = f"min_fold must be larger than 1 (a ratio of means), found {min_fold!r}."
        raise ValueError(msg)
    min_cells = check_positive_int(min_cells, name="min_cells")
    codes = check.get_codes(adata, key)
    table = check.get_feature_table(adata, key)
    labels = read_groups(adata, groupby)
    known = labels.known
    n_groups = len(labels.categories)
    found = group_contrasts(codes if known.all() else codes[known], labels.codes[known], n_groups)
    padj = benjamini_hochberg(np.exp(found.log_p))
    low, high = found.fold_limits(alpha)
    raised = found.raised(padj, alpha=alpha, fold=min_fold)
    long = pd.DataFrame(
        {
            "feature": pd.Categorical.from_codes(
                np.repeat(np.arange(len(table)), n_groups), categories=table.index.astype(str).rename(None)
            ),
            "category": pd.Categorical.from_codes(
                np.tile(np.arange(n_groups), len(table)), categories=labels.categories
            ),
            "mean_in": found.mean_in.ravel(),
            "mean_out": found.mean_out.ravel(),
            "statistic": found.statistic.ravel(),
            "pval": np.exp(found.log_p).ravel(),
            "padj": padj.ravel(),
            "n_cells": np.tile(labels.sizes, len(table)),
            "fold_low": low.ravel(),
            "fold_high": high.ravel(),
            "stronger": raised.ravel(),
        }
    )
    words = classify(found, padj, alpha=alpha, fold=min_fold, min_cells=min_cells)
    table = table.drop(columns=[c for c in COLUMNS if c in table])
    table["locality"] = pd.Series(words, index=table.index, dtype=str)
    table["locality_categories"] = pd.Series(
        _names(raised, found.statistic, labels.categories), index=table.index, dtype=str
    )
    table["breadth"] = breadth(found.mean_in)

    adata = check.writable(adata, copy=copy)
    slot = adata.uns[key]
    slot[_keys.LOCALITY] = long
    slot[_keys.FEATURES] = table
    asked = {
        "groupby": groupby,
        "alpha": float(alpha),
        "min_fold": float(min_fold),
        "min_cells": min_cells,
        "n_tests": int(padj.size),
    }
    slot[_keys.PARAMS] = dict(slot[_keys.PARAMS]) | {"feature_locality": asked}
    counts = ", ".join(f"{int((words == w).sum())} {w}" for w in ("local", "regional", "global", "unclear"))
    _logging.info(
        f"feature_locality: {counts} of {len(table)} features over {n_groups} categories of {groupby!r}; added "
        f"uns['{key}']['{_keys.LOCALITY}'] and columns to uns['{key}']['{_keys.FEATURES}']"
    )
    return adata if copy else None


def _names(raised: np.ndarray, statistic: np.ndarray, categories: list[str]) -> list[str]:
    """Categories that each feature is stronger in, the clearest first."""
    out = [""] * len(raised)
    for feature in np.flatnonzero(raised.any(axis=1)):
        where = np.flatnonzero(raised[feature])
        out[feature] = "; ".join(categories[i] for i in where[np.argsort(-statistic[feature, where], kind="stable")])
    return out
