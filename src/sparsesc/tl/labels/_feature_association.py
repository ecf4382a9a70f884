from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc import _random as random
from sparsesc._values import as_list, check_choice, check_positive_int, check_share, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._obs_columns import Labels, Numbers, read_columns
from sparsesc.door._slots import record
from sparsesc.stats.groups._association import PVALUES, group_association

from ._association_scope import Scope, effects_within
from ._association_tables import adjust, category_table, number_table
from ._best_features import COLUMNS, HeldOut, best_features, best_labels, mark_singular

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc._random import RNGLike, SeedLike


def feature_association(
    adata: AnnData | MuData,
    label_keys: str | Sequence[str],
    *,
    key: str = "sae",
    min_r: float = 0.5,
    min_cells: int = 10,
    holdout: float = 0.5,
    pvalues: Literal["auto", "permutation", "asymptotic"] = "auto",
    strata: str | Sequence[str] | None = None,
    sample_key: str | None = None,
    rng: SeedLike | RNGLike | None = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Test which features mark which cell labels, and follow which numbers, of columns of ``obs``.

    Categories are tested one against all other cells, by the Mann-Whitney test; columns of numbers by rank correlation.
    All work is on the active cells: cells x features are never made dense. Cells are compared with all others, with
    those of the same stratum (`strata`), or sample by sample (`sample_key`).

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
        are expected both in the category and outside it, and permutation elsewhere, for numbers and with `strata`
        (``"asymptotic"`` is then van Elteren's test, and t of the partial r).
    strata
        Columns of ``obs`` (donor, batch, bins of depth; labels or whole numbers) within which cells are compared; with
        several columns, within their combinations. Cells without a value are left out. Strata with one category only
        contribute nothing. Use it when a column differs between donors, or with depth, and so do features.
    sample_key
        Column of ``obs`` with the sample (donor, mouse, well) of each cell. The replicates are then samples, not cells:
        p says whether an association would be found in other donors. Whole samples are held out. It may be combined
        with `strata`, within samples.
    rng
        Draws the cells that are held out, stratified by all labels as far as possible; with `sample_key`, the samples.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with the following. Each call replaces what an earlier one wrote.

    ``uns[key]["association"]``
        When there are labels: one row for each column, feature and category, `feature`, `key`, `category`, `pearson_r`
        (with membership), `auroc` (ties count one half), `f1` (the best of all thresholds: cells with activation above
        `threshold`, which is not negative, are called), `mean_in`, `mean_out` (mean activation), `pval`, `padj`,
        `n_cells` (of the category), `threshold` and, unless it is `pval`, `pval_asymptotic`. With `strata` or
        `sample_key` also `auroc_unadjusted` and `pearson_r_unadjusted` (all cells together), and `n_strata` (with cells
        inside and outside) or `n_samples` (the same; or, if samples have one category each, those of the category).
    ``uns[key]["association_numeric"]``
        When there are numbers: `feature`, `key`, `pearson_r`, `spearman_r`, `pval` (of `spearman_r`), `padj`, `n_cells`
        (with a value), `pval_pearson` and, unless it is `pval`, `pval_asymptotic` and `pval_pearson_asymptotic`. With
        `strata` or `sample_key` also `pearson_r_unadjusted`, `spearman_r_unadjusted`, `n_strata` or `n_samples`.
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

    With `strata` or `sample_key`, every r and AUROC that is not called unadjusted is within strata, or over samples: so
    names, best features and held-out scores are, too. F1, `mean_in` and `mean_out` are of all cells together.

    `padj` is Benjamini-Hochberg over all tests of the call: all features x all categories, and all features x all
    columns of numbers (`pval`; `pval_pearson` is not counted). Features that are silent in all cells have r 0, AUROC
    0.5, F1 0 and p 1, and count as tests. Categories that share no stratum with others, or have too few samples, have p
    NaN and count as none.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or no such column (lists what there is).
    TypeError
        If a column holds neither labels nor numbers, or one of `strata` or `sample_key` numbers that are not whole.
    ValueError
        If a column has only one value, values in fewer than three cells, infinite numbers, or a different label in
        every cell; if `label_keys` is empty or an option is out of its range; if a column is both tested and one of
        `strata` or `sample_key`, or there is one sample only.

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

    With `strata`, ranks are those within a stratum and cells are shuffled within strata: the statistic is
    :math:`T = \sum_s (U_s - n_{1s} n_{0s} / 2) / (n_s + 1)`, the weights of van Elteren, and its mean, variance and
    third moment are sums of those of the strata, which are exact. The AUROC is the mean of those of the strata with the
    weights :math:`n_{1s} n_{0s} / (n_s + 1)`; Pearson's r is that of what is left when the means of strata are taken
    off, and Spearman's that of ranks within strata, divided by :math:`n_s + 1`.

    With `sample_key`, each sample with three cells inside a category and three outside gives an AUROC (or an r, for
    numbers), and their mean is tested by t. Where few active cells are expected in a sample, its AUROC is skewed, and p
    is no less than that of shuffling cells within samples. If samples have one category each, as conditions, their mean
    activations are compared by t; a number that is constant within samples is correlated with them. Fewer than three
    samples (two inside and two outside) are not tested. With five samples or fewer (three against three), no test that
    assumes no distribution can reach p = .05; a warning says so.

    When not to trust it: without `strata` or `sample_key` cells count as independent, and p-values say that a feature
    and a label go together in these cells. Where both differ between donors, they do so without any relation: types
    shuffled within eight simulated donors, and random labels whose shares differ by donor, had p below .05 in .16 and
    .18 of the tests, and a false adjusted one in two of three data sets. With ``strata`` it was .05 of the tests, and
    .02 and .07 of the data sets. What `strata` cannot say is whether other donors would show the same; `sample_key`
    does, and finds less with few samples. Bins leave differences inside of them: take ten or more for depth. An
    untrained sparse code has many singular features as well: their number means nothing without such a control.

    The usual normal approximation of the Mann-Whitney test fails for sparse features and small categories, where few
    active cells are expected in the category: with labels shuffled, p < 1e-5 comes tens to hundreds of times too often,
    and adjusted p-values below 0.05 appear in nearly every data set. Hence the default of
    `pvalues`: of 60 shuffled data sets, 2 % had an adjusted p below 0.05 with it, 55 % with the approximation alone.

    References
    ----------
    Mann and Whitney (1947), Ann Math Stat 18:50. Pitman (1937), J R Stat Soc Suppl 4:225 (moments under shuffling). van
    Elteren (1960), Bull Int Stat Inst 37:351. Benjamini and Hochberg (1995), J R Stat Soc B 57:289.

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

    Among cells of the same phase only:

    >>> ssc.tl.feature_association(adata, "bulk_labels", strata="phase")
    >>> int(ssc.get.association(adata)["n_strata"].max())
    3
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
    scope = Scope.read(adata, codes, strata, sample_key, names)
    if scope.samples is not None and pvalues != "auto":
        msg = f"pvalues={pvalues!r} is for tests of cells: with sample_key, samples are tested. Leave one of them out."
        raise ValueError(msg)
    given_labels, given_numbers = read_columns(adata, names)
    labels, numbers = [scope.of_labels(c) for c in given_labels], [scope.of_numbers(c) for c in given_numbers]
    scope.check([*labels, *numbers])
    held = scope.hold_out(labels, holdout, min_cells, random.as_generator(rng))
    whole, tests = [], []
    for c in labels:
        ranked = scope.ranked(c.known)
        overall = group_association(ranked, c.codes[c.known], len(c.categories))
        within = scope.within(c.known, c, test=True)
        whole.append(effects_within(overall, within))
        tests.append(scope.test_labels(c, within, ranked, pvalues))
        if scope.divides:
            tests[-1] |= {"auroc_unadjusted": overall.auroc, "pearson_r_unadjusted": overall.pearson_r}
    tests += [scope.test_numbers(c, scope.ranked(c.known), pvalues) for c in numbers]
    padj = adjust([test["pval"] for test in tests])

    n_labels = len(labels)
    tables: dict[str, pd.DataFrame | None] = dict.fromkeys((_keys.ASSOCIATION, _keys.ASSOCIATION_NUMERIC, _keys.LABELS))
    table = table.drop(columns=[column for column in COLUMNS if column in table])
    if labels:
        parts = [HeldOut.score(c, held, scope, min_cells=min_cells) for c in labels]
        tables[_keys.ASSOCIATION] = category_table(labels, whole, tests[:n_labels], padj[:n_labels], table.index)
        tables[_keys.LABELS] = best_features(labels, whole, padj[:n_labels], parts, table.index)
        table = table.join(best_labels(labels, whole, parts, table.index))
        table = table.join(mark_singular(labels, whole, min_r, table.index))
    if numbers:
        tables[_keys.ASSOCIATION_NUMERIC] = number_table(numbers, tests[n_labels:], padj[n_labels:], table.index)
    options = {
        "label_keys": names,
        "min_r": min_r,
        "min_cells": min_cells,
        "holdout": holdout,
        "pvalues": pvalues,
        "strata": scope.names["strata"] or None,
        "sample_key": sample_key,
        "rng": random.describe(rng),
        "n_tests": sum(int((~np.isnan(q)).sum()) for q in padj),
    }
    out = record(adata, key, "feature_association", tables | {_keys.FEATURES: table}, options, copy=copy)
    _report(labels, numbers, padj, table, [name for name, t in tables.items() if t is not None], key, min_cells)
    return out


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
    every = np.concatenate([q.ravel() for q in padj])
    significant, tests = int((every < 0.05).sum()), int((~np.isnan(every)).sum())
    msg = f"feature_association: {len(table)} features x {' and '.join(against)}, {significant} of {tests} padj < .05"
    if labels:
        singular = table.loc[table["singular"], "singular_label"]
        msg += f"; {len(singular)} singular features for {singular.nunique()} categories"
    where = ", ".join(f"uns['{key}']['{name}']" for name in written)
    _logging.info(f"{msg}; added {where}" + (f" and columns to uns['{key}']['{_keys.FEATURES}']" if labels else ""))
    for column in labels:
        small = [f"{column.categories[i]} ({column.sizes[i]})" for i in np.flatnonzero(column.sizes < min_cells)]
        if small:
            _logging.warning(
                f"{column.name!r}: {listing(small)} have fewer than min_cells={min_cells} cells: tested, but they name "
                "no feature and get no best feature"
            )
    silent = int(table["dead"].sum()) if "dead" in table else 0
    if silent:
        _logging.warning(f"{silent} of {len(table)} features are active in no cell: they get p 1, and count as tests")
