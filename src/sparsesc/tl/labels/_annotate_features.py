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
from sparsesc.door._obs_columns import Labels, read_columns
from sparsesc.door._slots import record
from sparsesc.stats.core._holdout import stratified_holdout
from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.groups._concepts import CRITERIA, THRESHOLDS, ConceptScores, excess_f1, score_concepts

from ._best_features import category_titles
from ._names import UNKNOWN, clear_genes, gene_evidence, make_names, term_evidence

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from scipy import sparse

    from sparsesc._random import RNGLike, SeedLike

COLUMNS = (
    "name",
    "name_source",
    "confidence",
    "concept",
    "concept_f1",
    "concept_f1_null",
    "concept_precision",
    "concept_recall",
    "concept_threshold",
    "concept_pval",
    "concept_padj",
)
_N_GENES = 5
_N_TERMS = 3


def annotate_features(
    adata: AnnData | MuData,
    *,
    key: str = "sae",
    label_keys: str | Sequence[str] | None = None,
    sample_key: str | None = None,
    alpha: float = 0.05,
    min_excess: float = 0.1,
    min_effect: float = 0.5,
    min_cells: int = 10,
    holdout: float = 0.5,
    criterion: Literal["excess", "f1"] = "excess",
    rng: SeedLike | RNGLike | None = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Give every feature one readable name, with its evidence, or "unknown" when that is weak.

    A name is a label that was confirmed on cells that did not choose it, and the feature's clearest gene, as in
    "CD19+ B / CD79A"; without such a label a gene set and a gene; without these, genes alone. Tables that were not
    computed are left out, and the log says so.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder and, if computed, the results of :func:`~sparsesc.tl.feature_genes` and
        :func:`~sparsesc.tl.feature_enrichment`.
    key
        Name of the sparse autoencoder.
    label_keys
        Columns of ``obs`` that hold labels. ``None``: those that :func:`~sparsesc.tl.feature_association` tested. An
        empty list names features by gene sets and genes alone.
    sample_key
        Column of ``obs`` with samples or donors: labels are chosen on half of them and scored on the others, which is
        harder than other cells of the same donors. ``None``: cells are split, equally in every label.
    alpha
        Limit for adjusted p-values of labels, gene sets and genes.
    min_excess
        A label names a feature only if its held-out F1 exceeds chance by at least this share of the possible gain,
        ``(F1 - null) / (1 - null)``.
    min_effect
        Genes are named only if their mean in strongly active cells is above that in silent cells by at least this many
        standard deviations.
    min_cells
        Categories with fewer cells name no feature.
    holdout
        Share of the cells (or samples) that scores; the others choose.
    criterion
        Score that chooses the label and the threshold: F1 in excess of chance, or plain F1. By chance, a frequent
        feature has a high F1 with the largest category.
    rng
        Draws the held-out cells or samples.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``uns[key]["features"]``
        `name`: no two features share one; the second of a name has " (2)" at its end, and features without evidence
        are called "unknown (sae_7)". `name_source`: the parts of the name (``"label+gene"``, ``"label"``,
        ``"term+gene"``, ``"term"``, ``"gene"``, ``"unknown"``). `confidence`, ordered: ``"high"`` (a label with
        held-out F1 of at least 0.5), ``"medium"`` (a confirmed label with a lower F1), ``"low"`` (gene sets or genes
        only), ``"none"`` (unknown). And, where there are labels, for the best label of every feature, confirmed or not:
        `concept` (with the name of its column where there are several),
        `concept_f1`, `concept_precision` and `concept_recall` on the held-out cells, `concept_f1_null` (mean F1 with
        their labels shuffled), `concept_threshold` (cells with a larger activation are called), `concept_pval`,
        `concept_padj`.
    ``uns[key]["annotation"]``
        The evidence for names, tidy: `feature`, `source` (``"label"``, ``"term"`` or ``"gene"``), `key` (column of
        ``obs`` for labels), `evidence` (category, gene set or gene), `score` (held-out F1 for labels, the score of
        their tables for the others), `null`, `pval`, `padj`, `held_out` (labels, and genes that were tested with
        `split`), `in_name`. The best category of every column of labels, up to 3 gene sets and 5 genes, the latter two
        only when they may name the feature.
    ``uns[key]["params"]["annotate_features"]``
        The options of the call, and the tables that were `used`.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or no such column.
    ValueError
        If there is nothing to name features by, a column holds no labels, there are too few samples, or an option is
        out of its range.

    See Also
    --------
    sparsesc.tl.feature_association : the labels that features mark.
    sparsesc.tl.feature_genes : the genes of features.
    sparsesc.tl.feature_enrichment : the gene sets of features.
    sparsesc.pl.feature_card : the evidence for one feature, on one page.

    Notes
    -----
    Labels are scored as in InterPLM: activations relative to the feature's maximum, thresholds :math:`t` of 0, .15, .5,
    .6 and .8. With :math:`A_t` the cells with a larger activation and :math:`C` the cells of a category,

    .. math:: F_1 = \frac{2\, |A_t \cap C|}{|A_t| + |C|}, \qquad
        \mathrm{excess} = \frac{F_1 - E[F_1]}{1 - E[F_1]} ,

    where :math:`E[F_1]` is the mean with shuffled labels. The best pair of label and threshold is chosen on some cells
    and its F1 reported on others. In these, the p-value is the exact probability of such an F1 when labels are shuffled
    (hypergeometric, one-sided); `concept_padj` is Benjamini-Hochberg over all features x columns of labels.

    A gene set names a feature only if at least two of the genes that carry its score are clear by themselves (`alpha`,
    `min_effect`): tests of sets treat genes as independent, and with cells shuffled nearly every feature had a
    significant set. A feature's ten best genes are ordered by their score, times the share of features that do not have
    the gene among theirs: genes that mark everything name nothing.

    When not to trust a name: it says where a feature is active in these cells and what is expressed there, not what the
    feature does. A feature active in a tenth of a cell type is named after that type: look at `concept_recall`. Only
    labels in your columns can become names. Genes and gene sets were tested on the cells that the features were
    learned from, and of an untrained code nearly all features have significant genes: a name of ``"low"`` confidence is
    a description. Cells of one sample resemble each other: give `sample_key` if labels should hold in new samples.

    References
    ----------
    Simon and Zou (2025), Nature Methods (InterPLM: F1 of concepts). Benjamini and Hochberg (1995), J R Stat Soc B
    57:289.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_genes(adata, progress_bar=False)
    >>> ssc.tl.annotate_features(adata, label_keys="bulk_labels")
    >>> features = adata.uns["sae"]["features"]
    >>> bool(features["name"].str.startswith("CD19+ B").any())
    True
    >>> list(features["confidence"].cat.categories)
    ['none', 'low', 'medium', 'high']
    """
    check_choice(criterion, CRITERIA, name="criterion")
    min_cells = check_positive_int(min_cells, name="min_cells")
    check_share(alpha, name="alpha")
    check_share(holdout, name="holdout")
    if not 0 <= min_excess <= 1:
        msg = f"min_excess must lie between 0 and 1, found {min_excess!r}."
        raise ValueError(msg)
    if not min_effect >= 0:
        msg = f"min_effect must not be negative, found {min_effect!r}."
        raise ValueError(msg)
    codes = check.get_codes(adata, key)
    slot = check.get_sae_slot(adata, key)
    table = check.get_feature_table(adata, key)
    features = pd.Index(table.index.astype(str))
    columns = _label_columns(adata, key, label_keys)
    present = [name for name in (_keys.GENES, _keys.ENRICHMENT) if name in slot]
    _check_evidence(key, columns, present)
    generator = random.as_generator(rng)
    held, split = _held_out(adata, columns, holdout, sample_key, generator)

    scores = [_score(codes, column, held, split, min_cells=min_cells, criterion=criterion) for column in columns]
    labels, concepts = _label_evidence(columns, scores, features, alpha=alpha, min_excess=min_excess)
    clear, how = None, slot[_keys.PARAMS].get("feature_genes", {})
    if _keys.GENES in present:
        clear = clear_genes(
            pd.DataFrame(slot[_keys.GENES]),
            alpha=alpha,
            min_effect=min_effect,
            correlation=how.get("method") == "correlation",
        )
    others = []
    if _keys.ENRICHMENT in present:
        terms = pd.DataFrame(slot[_keys.ENRICHMENT])
        others.append(term_evidence(terms, clear, alpha=alpha, n=_N_TERMS, features=features))
    if clear is not None:
        others.append(gene_evidence(clear, n=_N_GENES, features=features, held_out=bool(how.get("split"))))
    names = make_names(labels, others, features)
    table = table.drop(columns=[name for name in COLUMNS if name in table])
    table = table.join(names.table.join(concepts).set_axis(table.index))
    options = {
        "label_keys": [column.name for column in columns],
        "sample_key": sample_key,
        "alpha": alpha,
        "min_excess": min_excess,
        "min_effect": min_effect,
        "min_cells": min_cells,
        "holdout": holdout,
        "criterion": criterion,
        "thresholds": THRESHOLDS,
        "rng": random.describe(rng),
        "used": ([_keys.LABELS] if columns else []) + present,
    }
    tables = {_keys.FEATURES: table, _keys.ANNOTATION: names.evidence}
    out = record(adata, key, "annotate_features", tables, options, copy=copy)
    _report(table, key)
    return out


def _label_columns(adata: AnnData | MuData, key: str, label_keys: str | Sequence[str] | None) -> list[Labels]:
    if label_keys is None:
        slot = check.get_sae_slot(adata, key)
        if _keys.ASSOCIATION not in slot:
            return []
        label_keys = list(pd.unique(pd.DataFrame(slot[_keys.ASSOCIATION])["key"].astype(str)))
    labels, numbers = read_columns(adata, as_list(label_keys))
    if numbers:
        msg = (
            f"label_keys must name columns of labels; these hold numbers: {listing(n.name for n in numbers)}. "
            "Convert cluster numbers with .astype('category'), or leave them out."
        )
        raise ValueError(msg)
    return labels


def _check_evidence(key: str, columns: list[Labels], present: list[str]) -> None:
    """Refuse to name features by nothing, and say which evidence is missing."""
    sources = {
        "labels (pass label_keys, or run ssc.tl.feature_association)": bool(columns),
        "genes (run ssc.tl.feature_genes)": _keys.GENES in present,
        "gene sets (run ssc.tl.feature_enrichment)": _keys.ENRICHMENT in present,
    }
    missing = [source for source, there in sources.items() if not there]
    if len(missing) == len(sources):
        msg = f"There is nothing to name the features of {key!r} by: no {', no '.join(missing)}."
        raise ValueError(msg)
    if missing:
        _logging.info(f"annotate_features: names are made without {' and without '.join(missing)}")


def _held_out(
    adata: AnnData | MuData, columns: list[Labels], holdout: float, sample_key: str | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cells that score, and all cells that choose or score."""
    if sample_key is None:
        held = stratified_holdout([c.codes for c in columns], holdout, rng, n_rows=adata.n_obs)
        return held, np.ones(adata.n_obs, bool)
    samples = check.get_obs_column(adata, sample_key).astype("category").cat.remove_unused_categories()
    n = len(samples.cat.categories)
    if n < 2:
        msg = f"adata.obs[{sample_key!r}] has {n} sample(s): at least 2 are needed to score labels on other samples."
        raise ValueError(msg)
    codes = samples.cat.codes.to_numpy()
    scoring = stratified_holdout([], holdout, rng, n_rows=n)
    return scoring[codes] & (codes >= 0), codes >= 0


def _score(
    codes: sparse.csr_matrix, column: Labels, held: np.ndarray, split: np.ndarray, *, min_cells: int, criterion: str
) -> ConceptScores:
    choose, test = column.known & split & ~held, column.known & split & held
    return score_concepts(
        codes[choose],
        column.codes[choose],
        codes[test],
        column.codes[test],
        n_groups=len(column.categories),
        eligible=column.sizes >= min_cells,
        criterion=criterion,
    )


def _label_evidence(
    columns: list[Labels], scores: list[ConceptScores], features: pd.Index, *, alpha: float, min_excess: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row for each feature and column, the best column first; and the columns for the feature table."""
    if not columns:
        empty = pd.DataFrame({name: [] for name in [*_keys.TABLES[_keys.ANNOTATION].columns, "holds", "text"]})
        return empty, pd.DataFrame(index=features)
    texts = np.array([*category_titles(columns), ""], dtype=object)
    parts, start = [], 0
    for column, score in zip(columns, scores, strict=True):
        categories = np.array([*column.categories, ""], dtype=object)
        parts.append(
            pd.DataFrame(
                {
                    "feature": features,
                    "source": "label",
                    "key": column.name,
                    "evidence": categories[score.concept],
                    "score": score.f1,
                    "null": score.f1_null,
                    "pval": np.exp(score.log_p),
                    "held_out": True,
                    "in_name": False,
                    "text": texts[np.where(score.concept >= 0, score.concept + start, -1)],
                    "chosen_by": score.chosen_by,
                    "concept_precision": score.precision,
                    "concept_recall": score.recall,
                    "concept_threshold": score.threshold,
                }
            )
        )
        start += len(column.categories)
    rows = pd.concat(parts, ignore_index=True)
    rows["padj"] = benjamini_hochberg(rows["pval"].to_numpy())
    excess = excess_f1(rows["score"].to_numpy(), rows["null"].to_numpy())
    best = rows.sort_values("chosen_by", ascending=False, kind="stable").groupby("feature", sort=False).head(1).index
    # only the column that the choosing cells preferred may name a feature
    rows["holds"] = rows.index.isin(best) & (rows["padj"] < alpha) & (excess >= min_excess) & (rows["text"] != "")
    rename = {"text": "concept", "score": "concept_f1", "null": "concept_f1_null"}
    rename |= {"pval": "concept_pval", "padj": "concept_padj"}
    concepts = rows.loc[best].rename(columns=rename).set_index("feature").reindex(features)
    concepts = concepts[[name for name in COLUMNS if name.startswith("concept")]].astype({"concept": str})
    rows = rows[rows["text"] != ""]
    drop = ["chosen_by", "concept_precision", "concept_recall", "concept_threshold"]
    return rows.drop(columns=drop).reset_index(drop=True), concepts


def _report(table: pd.DataFrame, key: str) -> None:
    levels = table["confidence"].value_counts()
    known = int((table["name_source"] != UNKNOWN).sum())
    _logging.info(
        f"annotate_features: {known} of {len(table)} features have a name ({levels['high']} of high, "
        f"{levels['medium']} of medium, {levels['low']} of low confidence); added uns['{key}']['{_keys.ANNOTATION}'] "
        f"and columns to uns['{key}']['{_keys.FEATURES}']"
    )
