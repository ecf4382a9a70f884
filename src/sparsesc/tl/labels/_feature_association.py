from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc import _random as random
from sparsesc._values import as_list, check_choice, check_positive_int, check_share, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._obs_columns import Labels, Numbers, read_columns
from sparsesc.door._slots import record
from sparsesc.stats.core._correlate import correlate
from sparsesc.stats.core._holdout import stratified_holdout
from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.core._ranks import RankedColumns, rank_columns
from sparsesc.stats.groups._association import PVALUES, GroupAssociation, group_association, mann_whitney

from ._best_features import COLUMNS, HeldOut, best_features, best_labels, mark_singular

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from scipy import sparse

    from sparsesc._random import RNGLike, SeedLike

_KINDS: dict[str, Literal["pearson", "spearman"]] = {"pval": "spearman", "pval_pearson": "pearson"}


def feature_association(
    adata: AnnData | MuData,
    label_keys: str | Sequence[str],
    *,
    key: str = "sae",
    min_r: float = 0.5,
    min_cells: int = 10,
    holdout: float = 0.5,
    pvalues: Literal["auto", "permutation", "asymptotic"] = "auto",
    rng: SeedLike | RNGLike | None = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Test which features mark which cell labels, and follow which numbers, of columns of ``obs``.

    Categories are tested one against all other cells, by the Mann-Whitney test; columns of numbers by rank correlation.
    All work is on the active cells: cells x features are never made dense.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder.
    label_keys
        Columns of ``obs``. Categorical, string and boolean columns are labels; integers and floats are numbers (convert
        cluster numbers with ``.astype("category")``). Cells without a value are left out of the tests of that column.
    key
        Name of the sparse autoencoder.
    min_r
        A feature is `singular` when the absolute Pearson r exceeds this for exactly one category of all columns.
    min_cells
        Categories with fewer cells are tested, but name no feature and get no best feature.
    holdout
        Share of the cells on which names are scored; they are chosen on the others.
    pvalues
        ``"permutation"``: two-sided p of U (or r) when cells are shuffled, from the exact mean, variance and skewness
        of that distribution; needs no draws. ``"asymptotic"``: the usual approximations, as in
        ``scipy.stats.mannwhitneyu(method="asymptotic")`` (normal, with correction for ties and continuity) and
        ``scipy.stats.spearmanr`` (t). ``"auto"``: for labels the usual approximation where at least five active cells
        are expected both in the category and outside it, and permutation elsewhere and for numbers.
    rng
        Draws the cells that are held out, stratified by all labels as far as possible.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with the following. Each call replaces what an earlier one wrote.

    ``uns[key]["association"]``
        When there are labels: one row for each column, feature and category, `feature`, `key`, `category`, `pearson_r`
        (with membership), `auroc` (ties count one half), `f1` (the best of all thresholds: cells with activation above
        `threshold`, which is not negative, are called), `mean_in`, `mean_out` (mean activation), `pval`, `padj`,
        `n_cells` (of the category), `threshold` and, unless it is `pval`, `pval_asymptotic`.
    ``uns[key]["association_numeric"]``
        When there are numbers: `feature`, `key`, `pearson_r`, `spearman_r`, `pval` (of `spearman_r`), `padj`, `n_cells`
        (with a value), `pval_pearson` and, unless it is `pval`, `pval_asymptotic` and `pval_pearson_asymptotic`.
    ``uns[key]["labels"]``
        For each category with `min_cells` cells: `key`, `category`, `feature` (the one with the largest AUROC in the
        choosing cells), `n_cells`, its scores on the held-out cells `auroc_heldout`, `f1_heldout` (at the threshold
        chosen in the choosing cells), `pearson_r_heldout`, and `auroc`, `f1`, `pearson_r`, `padj` in all cells.
    ``uns[key]["features"]``
        `label`: the category with the largest positive Pearson r in the choosing cells, as ``"category"``, or
        ``"column: category"`` when there are several columns of labels; empty when there is none.
        `label_r`, `label_auroc`, `label_f1`: its scores in all cells; `label_r_heldout`, `label_auroc_heldout`,
        `label_f1_heldout`: on the held-out cells only. `singular`, `singular_label`, `singular_r`: see `min_r`; the
        two categories of a column with two have the same absolute r and count as one, named by its positive side.
    ``uns[key]["params"]["feature_association"]``
        The options of the call, and the number of tests.

    `padj` is Benjamini-Hochberg over all tests of the call: all features x all categories, and all features x all
    columns of numbers (`pval`; `pval_pearson` is not counted). Features that are silent in all cells have r 0, AUROC
    0.5, F1 0 and p 1, and count as tests.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or no such column (lists what there is).
    TypeError
        If a column holds neither labels nor numbers.
    ValueError
        If a column has only one value, values in fewer than three cells, infinite numbers, or a different label in
        every cell; if `label_keys` is empty or an option is out of its range.

    See Also
    --------
    sparsesc.get.association : the tables of this function.
    sparsesc.pl.association : draw which features mark which categories.
    sparsesc.tl.annotate_features : names of features from labels, gene sets and genes.
    sparsesc.tl.differential_features : compare conditions, with samples as replicates.

    Notes
    -----
    For a feature with the ranks :math:`R_i` over all :math:`n` cells (ties get their mean rank), and a category
    :math:`C` of :math:`n_1` cells,

    .. math:: U = \sum_{i \in C} R_i - \frac{n_1 (n_1 + 1)}{2}, \qquad \mathrm{AUROC} = \frac{U}{n_1 (n - n_1)} ,

    the chance that a cell of the category has a larger activation than another cell. F1 at a threshold is
    :math:`2\, TP / (n_1 + P)`, with :math:`P` the called cells and :math:`TP` those of them in the category.

    Report held-out scores. The best of many features looks good in the cells it was chosen in even if all of them are
    random, and the best F1 of all thresholds is optimistic for the same reason.

    When not to trust it: cells of one donor are not independent, so p-values say that a feature and a label go together
    in these cells, not that they would in other donors; for conditions compare samples. An untrained sparse code has
    many singular features as well: their number means nothing without such a control.

    The usual normal approximation of the Mann-Whitney test fails for sparse features and small categories, where few
    active cells are expected in the category: with labels shuffled, p < 1e-5 comes tens to hundreds of times too often,
    and adjusted p-values below 0.05 appear in nearly every data set. Hence the default of
    `pvalues`: of 60 shuffled data sets, 2 % had an adjusted p below 0.05 with it, 55 % with the approximation alone.

    References
    ----------
    Mann and Whitney (1947), Ann Math Stat 18:50. Pitman (1937), J R Stat Soc Suppl 4:225 (moments under shuffling).
    Benjamini and Hochberg (1995), J R Stat Soc B 57:289.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_association(adata, ["bulk_labels", "phase"])
    >>> labels = ssc.get.association(adata, table="labels")
    >>> list(labels.columns[:4])
    ['key', 'category', 'feature', 'n_cells']
    >>> bool(labels.set_index("category").loc["CD19+ B", "auroc_heldout"] > 0.9)
    True
    """
    check_choice(pvalues, PVALUES, name="pvalues")
    min_cells = check_positive_int(min_cells, name="min_cells")
    check_share(min_r, name="min_r", of="a limit of |r|")
    check_share(holdout, name="holdout", of="a share of the cells")
    codes = check.get_codes(adata, key)
    table = check.get_feature_table(adata, key)
    names = as_list(label_keys)
    if not names:
        msg = f"label_keys is empty: name at least one column of adata.obs. Available: {listing(adata.obs.columns)}."
        raise ValueError(msg)
    labels, numbers = read_columns(adata, names)
    held = stratified_holdout(
        [column.codes for column in labels], holdout, random.as_generator(rng), n_rows=adata.n_obs
    )
    cells = _RankedCells(codes)
    whole = [group_association(cells(c.known), c.codes[c.known], len(c.categories)) for c in labels]
    tests = [_test_labels(cells(c.known), c, pvalues) for c in labels]
    tests += [_test_numbers(cells(c.known), c, pvalues) for c in numbers]
    padj = _adjust([test["pval"] for test in tests])

    n_labels = len(labels)
    tables: dict[str, pd.DataFrame | None] = dict.fromkeys((_keys.ASSOCIATION, _keys.ASSOCIATION_NUMERIC, _keys.LABELS))
    table = table.drop(columns=[column for column in COLUMNS if column in table])
    if labels:
        parts = [
            HeldOut.score(c, held, cells(c.known & ~held), cells(c.known & held), min_cells=min_cells) for c in labels
        ]
        tables[_keys.ASSOCIATION] = _category_table(labels, whole, tests[:n_labels], padj[:n_labels], table.index)
        tables[_keys.LABELS] = best_features(labels, whole, padj[:n_labels], parts, table.index)
        table = table.join(best_labels(labels, whole, parts, table.index))
        table = table.join(mark_singular(labels, whole, min_r, table.index))
    if numbers:
        tables[_keys.ASSOCIATION_NUMERIC] = _number_table(numbers, tests[n_labels:], padj[n_labels:], table.index)
    options = {
        "label_keys": names,
        "min_r": min_r,
        "min_cells": min_cells,
        "holdout": holdout,
        "pvalues": pvalues,
        "rng": random.describe(rng),
        "n_tests": sum(q.size for q in padj),
    }
    out = record(adata, key, "feature_association", tables | {_keys.FEATURES: table}, options, copy=copy)
    _report(labels, numbers, padj, table, [name for name, t in tables.items() if t is not None], key, min_cells)
    return out


class _RankedCells:
    """Ranks of the codes among some of the cells, computed once for each set of cells."""

    def __init__(self, codes: sparse.csr_matrix) -> None:
        self._codes = codes
        self._ranked: dict[bytes, RankedColumns] = {}

    def __call__(self, mask: np.ndarray) -> RankedColumns:
        name = mask.tobytes()
        if name not in self._ranked:
            self._ranked[name] = rank_columns(self._codes if mask.all() else self._codes[mask])
        return self._ranked[name]


def _test_labels(
    ranked: RankedColumns, column: Labels, pvalues: Literal["auto", "permutation", "asymptotic"]
) -> dict[str, np.ndarray]:
    """P-values by name, features x categories."""
    groups, n_groups = column.codes[column.known], len(column.categories)
    usual = np.exp(mann_whitney(ranked, groups, n_groups, method="asymptotic")[1])
    if pvalues == "asymptotic":
        return {"pval": usual}
    return {"pval": np.exp(mann_whitney(ranked, groups, n_groups, method=pvalues)[1]), "pval_asymptotic": usual}


def _test_numbers(ranked: RankedColumns, column: Numbers, pvalues: str) -> dict[str, np.ndarray]:
    """Correlations and p-values by name, one a feature."""
    values = column.values[column.known]
    r, usual = correlate(ranked, values, kind="pearson", method="asymptotic")
    rho, usual_rank = correlate(ranked, values, kind="spearman", method="asymptotic")
    logs = {"pval": usual_rank, "pval_pearson": usual}
    if pvalues != "asymptotic":
        logs = {name: correlate(ranked, values, kind=kind)[1] for name, kind in _KINDS.items()}
        logs |= {"pval_asymptotic": usual_rank, "pval_pearson_asymptotic": usual}
    return {"pearson_r": r[:, 0], "spearman_r": rho[:, 0]} | {name: np.exp(log[:, 0]) for name, log in logs.items()}


def _adjust(pvals: list[np.ndarray]) -> list[np.ndarray]:
    """Adjusted for all tests together, in the shapes they came in."""
    adjusted = benjamini_hochberg(np.concatenate([p.ravel() for p in pvals]))
    ends = np.cumsum([p.size for p in pvals])[:-1]
    return [q.reshape(p.shape) for q, p in zip(np.split(adjusted, ends), pvals, strict=True)]


def _category_table(
    columns: list[Labels],
    whole: list[GroupAssociation],
    tests: list[dict[str, np.ndarray]],
    padj: list[np.ndarray],
    features: pd.Index,
) -> pd.DataFrame:
    n_features = len(features)
    n_groups = np.array([len(c.categories) for c in columns])
    categories = list(dict.fromkeys(category for c in columns for category in c.categories))
    place = {category: i for i, category in enumerate(categories)}
    positions = [np.tile([place[category] for category in c.categories], n_features) for c in columns]

    def stack(values: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([v.ravel() for v in values])

    def test(name: str) -> np.ndarray:
        return stack([t[name] for t in tests])

    # categoricals: names repeat for every pair, of which there may be millions
    feature = np.concatenate([np.repeat(np.arange(n_features), n) for n in n_groups])
    data: dict[str, Any] = {
        "feature": pd.Categorical.from_codes(feature, categories=features.astype(str)),
        "key": pd.Categorical.from_codes(
            np.repeat(np.arange(len(columns)), n_groups * n_features), categories=[c.name for c in columns]
        ),
        "category": pd.Categorical.from_codes(np.concatenate(positions), categories=categories),
        "pearson_r": stack([a.pearson_r for a in whole]),
        "auroc": stack([a.auroc for a in whole]),
        "f1": stack([a.f1 for a in whole]),
        "mean_in": stack([a.mean_in for a in whole]),
        "mean_out": stack([a.mean_out for a in whole]),
        "pval": test("pval"),
        "padj": stack(padj),
        "n_cells": np.concatenate([np.tile(c.sizes, n_features) for c in columns]),
        "threshold": stack([a.threshold for a in whole]),
    }
    extra = {"pval_asymptotic": test("pval_asymptotic")} if "pval_asymptotic" in tests[0] else {}
    return pd.DataFrame(data | extra)


def _number_table(
    columns: list[Numbers], tests: list[dict[str, np.ndarray]], padj: list[np.ndarray], features: pd.Index
) -> pd.DataFrame:
    names = [c.name for c in columns]
    feature = pd.Categorical(features.astype(str), categories=features.astype(str))
    tables = []
    for position, (column, test, adjusted) in enumerate(zip(columns, tests, padj, strict=True)):
        data: dict[str, Any] = {
            "feature": feature,
            "key": pd.Categorical.from_codes(np.full(len(features), position), categories=names),
        }
        data |= {name: test[name] for name in ("pearson_r", "spearman_r", "pval")}
        data |= {"padj": adjusted, "n_cells": np.full(len(features), int(column.known.sum()))}
        tables.append(pd.DataFrame(data | {name: values for name, values in test.items() if name not in data}))
    return pd.concat(tables, ignore_index=True)


def _report(
    labels: list[Labels],
    numbers: list[Numbers],
    padj: list[np.ndarray],
    table: pd.DataFrame,
    written: list[str],
    key: str,
    min_cells: int,
) -> None:
    against = [f"{sum(len(c.categories) for c in labels)} categories"] if labels else []
    against += [f"{len(numbers)} columns of numbers"] if numbers else []
    significant, tests = sum(int((q < 0.05).sum()) for q in padj), sum(q.size for q in padj)
    msg = f"feature_association: {len(table)} features x {' and '.join(against)}, {significant} of {tests} padj < .05"
    if labels:
        singular = table.loc[table["singular"], "singular_label"]
        msg += f"; {len(singular)} singular features for {singular.nunique()} categories"
    where = ", ".join(f"uns['{key}']['{name}']" for name in written)
    _logging.info(f"{msg}; added {where}" + (f" and columns to uns['{key}']['{_keys.FEATURES}']" if labels else ""))
    small = sum(int((c.sizes < min_cells).sum()) for c in labels)
    if small:
        _logging.info(f"{small} categories with fewer than min_cells={min_cells} cells are tested, but name no feature")
