from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._values import as_list, check_choice, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._obs_columns import Labels, read_columns
from sparsesc.door._pseudobulk import ALL, Pseudobulk, pseudobulk
from sparsesc.door._slots import record
from sparsesc.stats.core._multiple import benjamini_hochberg

from ._between_samples import Design, Untestable, compare, warn_of_composition, warn_of_few

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

MEASURES = ("mean", "active")


def differential_features(
    adata: AnnData | MuData,
    condition_key: str,
    *,
    sample_key: str,
    key: str = "sae",
    reference: str | None = None,
    covariates: str | Sequence[str] | None = None,
    groupby: str | None = None,
    measure: Literal["both", "mean", "active"] = "both",
    moderate: bool = True,
    min_cells: int = 10,
    min_samples: int = 2,
    min_active: int = 10,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Find features that differ between conditions, with samples, not cells, as replicates.

    The cells of each sample become two numbers per feature: its mean activation and the share of cells in which it is
    active. A linear model compares them between conditions.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder.
    condition_key
        Column of ``obs`` with the conditions to compare.
    sample_key
        Column of ``obs`` with the sample (donor, mouse, well) of each cell. When samples have cells of several
        conditions each, these are compared within samples: the design is paired, and samples with one condition are
        left out.
    key
        Name of the sparse autoencoder.
    reference
        The condition that all others are compared with. ``None``: the first category.
    covariates
        Columns of ``obs``, constant within a sample, that the model accounts for: labels, or numbers (linear).
    groupby
        Column of ``obs`` (cell types): test within each group separately.
    measure
        ``"mean"``: mean activation; ``"active"``: share of active cells; ``"both"``: each of them.
    moderate
        Shrink the variance of each feature toward that of features with a similar mean (limma's empirical Bayes with a
        trend), less so where features go up and down together over samples and where there are few samples; and to no
        less than the cells of a sample alone would make it. With few samples this finds more. ``False``: plain t-tests
        of least squares, which samples that agree by chance mislead: of features with few active cells, shares take
        few values.
    min_cells
        A sample with fewer cells (of a group) is left out.
    min_samples
        Conditions need at least this many samples, and no fewer than 2.
    min_active
        Features active in fewer cells (of a group) are not tested.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``uns[key]["differential"]``
        One row for each test, smallest p first: `feature`, `group` (``"all"`` without `groupby`), `measure`,
        `condition`, `reference`, `score` (t), `effect` (difference of the measure, covariates accounted for), `logfc`
        (log2 of the ratio of means, each plus what half an active cell in a sample would add), `mean_condition`,
        `mean_reference` (means over samples), `pval`, `padj` (Benjamini-Hochberg over all tests of the call), `se` (of
        `effect`), `df` (degrees of freedom of t), `n_samples` and `n_samples_reference`.
    ``uns[key]["differential_samples"]``
        The replicates with at least `min_cells` cells: `units`, a table of `group`, `sample`, `condition` and
        `n_cells`; and one array for each tested measure, ``mean`` and ``active``, replicates x features, float32.
    ``uns[key]["params"]["differential_features"]``
        The options of the call, and `paired`.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or a column does not exist.
    TypeError
        If conditions, samples or groups are numbers.
    ValueError
        If there is one condition only, or `reference` is none of them; if the condition varies within a few samples but
        not within most; if a covariate varies within a sample or has missing values; if there are too few samples of a
        condition; if the covariates determine the condition; or if no feature is active in enough cells. With
        `groupby`, such groups are left out, and it is an error only if none is left.

    See Also
    --------
    sparsesc.get.differential : the table of this function.
    sparsesc.pl.differential : draw all tests, or the samples behind some of them.
    sparsesc.tl.feature_association : test features against labels of single cells.

    Notes
    -----
    With :math:`\bar z_{sj}` the mean of feature :math:`j` over the cells of sample :math:`s` (activations, or whether
    they are above 0), the model is

    .. math:: \bar z_{sj} = \alpha_j + \beta_j\, c_s + \gamma_j^\top u_s + \varepsilon_{sj}, \qquad
        t_j = \hat\beta_j / \widehat{\mathrm{se}}(\hat\beta_j) ,

    where :math:`c_s` is 1 in samples of the condition and 0 in the reference, :math:`u_s` holds the covariates (and, in
    a paired design, an indicator of each sample) and :math:`\beta_j` is the `effect`.

    A mean activation can rise because more cells are active, or because active cells are more so: compare the two
    measures. Without `groupby` it also rises when a cell type becomes more frequent. Where features were compared with
    labels by :func:`sparsesc.tl.feature_association`, a warning says which of these have other shares in a condition.

    When not to trust it: with two or three samples per condition no test that assumes no distribution can reach p = .05
    (two against two: 1/3 at best), and a warning says so; p-values then rest on normal distributions and on what
    features say of each other's variances. A trait that donors have or lack, such as their sex or a batch, separates
    two against two in one comparison of three: give it as a covariate if it is known. With three or four samples only
    large and steady effects are found, and a single sample can carry one; look at them by
    :func:`sparsesc.pl.differential` with ``kind="samples"``. All samples have the same weight, whatever their number of
    cells. If the embedding was corrected for batches that coincide with conditions, the difference was removed before.

    References
    ----------
    Squair et al. (2021), Confronting false discoveries in single-cell differential expression, Nature Communications
    12:5692. Smyth (2004), Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments, Statistical Applications in Genetics and Molecular Biology 3:3. Phipson et al. (2022), propeller,
    Bioinformatics 38:4720 (shares of cells by such models). Benjamini and Hochberg (1995), J R Stat Soc B 57:289.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")

    These cells have no donors, so eight samples of two conditions are made up:

    >>> adata.obs["sample"] = [f"s{i % 8}" for i in range(adata.n_obs)]
    >>> adata.obs["condition"] = ["treated" if i % 2 else "control" for i in range(adata.n_obs)]
    >>> ssc.tl.differential_features(adata, "condition", sample_key="sample", measure="active")
    >>> table = ssc.get.differential(adata)
    >>> list(table.columns[:6])
    ['feature', 'group', 'measure', 'condition', 'reference', 'score']
    >>> int(table["n_samples"].iloc[0])
    4
    """
    check_choice(measure, ("both", *MEASURES), name="measure")
    min_cells = check_positive_int(min_cells, name="min_cells")
    min_active = check_positive_int(min_active, name="min_active")
    if check_positive_int(min_samples, name="min_samples") < 2:
        msg = f"min_samples must be at least 2: one sample has no spread, found {min_samples}."
        raise ValueError(msg)
    codes = check.get_codes(adata, key)
    features = check.get_feature_table(adata, key).index.astype(str)
    names = [] if covariates is None else as_list(covariates)
    for name in names:
        if name in (condition_key, sample_key, groupby):
            msg = f"{name!r} cannot be a covariate: it is the condition, the sample or the group already."
            raise ValueError(msg)
    bulk = pseudobulk(adata, codes, condition_key, sample_key, covariates=names, groupby=groupby)
    reference = bulk.conditions[0] if reference is None else reference
    check_choice(reference, bulk.conditions, name="reference")
    measures = MEASURES if measure == "both" else (measure,)

    tables, reasons = [], {}
    for group in bulk.groups:
        try:
            design = Design.of(bulk, group, reference, min_cells=min_cells, min_samples=min_samples)
            tables += [
                compare(bulk, design, name, features, moderate=moderate, min_active=min_active) for name in measures
            ]
        except Untestable as error:
            reasons[group] = str(error)
    if not tables:
        group, reason = next(iter(reasons.items()))
        msg = reason if groupby is None else f"No group of {groupby!r} can be tested. {group!r}: {reason}"
        raise ValueError(msg)
    table = _join(tables, features, bulk)
    kept = bulk.take((bulk.units["n_cells"] >= min_cells).to_numpy())
    units = kept.units[["group", "sample", "condition", "n_cells"]]
    units = units.assign(condition=pd.Categorical(units["condition"], categories=bulk.conditions))
    samples = {"units": units} | {name: getattr(kept, name).astype(np.float32) for name in measures}
    options = {
        "condition_key": condition_key,
        "sample_key": sample_key,
        "reference": reference,
        "covariates": names,
        "groupby": groupby,
        "measure": measure,
        "moderate": bool(moderate),
        "min_cells": min_cells,
        "min_samples": min_samples,
        "min_active": min_active,
        "paired": bulk.paired,
        "n_tests": len(table),
    }
    written = {_keys.DIFFERENTIAL: table, _keys.DIFFERENTIAL_SAMPLES: samples}
    out = record(adata, key, "differential_features", written, options, copy=copy)
    _report(table, bulk, reasons, min_cells, len(features), key)
    warn_of_few(table, paired=bulk.paired)
    n_found = table.loc[table["padj"] < 0.05, "feature"].nunique()
    if groupby is None and n_found:
        design = Design.of(bulk, ALL, reference, min_cells=min_cells, min_samples=min_samples)
        known = _known_labels(adata, key, {condition_key, sample_key, *names})
        warn_of_composition(bulk, design, known, n_found)
    return out


def _join(tables: list[pd.DataFrame], features: pd.Index, bulk: Pseudobulk) -> pd.DataFrame:
    table = pd.concat(tables, ignore_index=True)
    table["padj"] = benjamini_hochberg(table["pval"].to_numpy())
    categories = {"feature": features, "group": bulk.groups, "measure": MEASURES}
    categories |= {"condition": bulk.conditions, "reference": bulk.conditions}
    for name, levels in categories.items():  # names repeat in every row
        table[name] = pd.Categorical(table[name], categories=list(levels))
    # t orders p-values that are too small for a double
    order = np.lexsort((-table["score"].abs(), table["pval"]))
    return table.iloc[order][list(_keys.TABLES[_keys.DIFFERENTIAL].columns)].reset_index(drop=True)


def _known_labels(adata: AnnData | MuData, key: str, used: set[str]) -> list[Labels]:
    """Labels that features were compared with before, such as cell types."""
    asked = check.get_sae_slot(adata, key)[_keys.PARAMS].get("feature_association", {}).get("label_keys", [])
    names = [str(name) for name in asked if str(name) not in used and str(name) in adata.obs]
    return read_columns(adata, names)[0]


def _report(
    table: pd.DataFrame, bulk: Pseudobulk, reasons: dict[str, str], min_cells: int, n_features: int, key: str
) -> None:
    significant = table[table["padj"] < 0.05]
    groups, n_tested = table["group"].nunique(), table["feature"].nunique()
    within = f" in {groups} groups" if groups > 1 or table["group"].iloc[0] != ALL else ""
    left = f" ({n_features - n_tested} are active in too few cells)" if n_tested < n_features else ""
    _logging.info(
        f"differential_features: {n_tested} features{left}{within}, {len(significant)} of {len(table)} "
        f"tests padj < .05 ({significant['feature'].nunique()} features); added uns['{key}']['{_keys.DIFFERENTIAL}']"
    )
    small = bulk.units[(bulk.units["n_cells"] < min_cells).to_numpy()]
    if len(small):
        shown = [
            f"{row.sample} {'' if row.group == ALL else f'in {row.group} '}({row.n_cells})"
            for row in small.sort_values("n_cells", ascending=False).itertuples()
        ]
        _logging.warning(f"Samples with fewer than min_cells={min_cells} cells are left out: {listing(shown)}")
    for group, reason in reasons.items():
        _logging.warning(f"group {group!r} is not tested. {reason}")
