from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc import _random as random
from sparsesc._values import as_list, check_choice, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._obs_columns import Labels, read_columns
from sparsesc.stats.core._holdout import stratified_holdout
from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.groups._concepts import CRITERIA, THRESHOLDS, ConceptScores, excess_f1, score_concepts

from ._best_features import label_names
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
    """One readable name for every feature, with its evidence, or "unknown" when that is weak.

    A name is a label that held on cells that did not choose it, and the feature's clearest gene, as in
    "CD19+ B / CD79A"; without such a label a gene set and a gene; without these, genes alone. What was not computed is
    left out, and the log says so.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder, and what there is of :func:`~sparsesc.tl.feature_genes` and
        :func:`~sparsesc.tl.feature_enrichment`.
    key
        Name of the sparse autoencoder.
    label_keys
        Columns of ``obs`` that hold labels. ``None``: those that :func:`~sparsesc.tl.feature_association` tested. An
        empty list names features by gene sets and genes alone.
    sample_key
        Column of ``obs`` with samples or donors: labels are chosen on half of them and scored on the others, which is
        harder than other cells of the same donors. ``None``: cells are split, alike in every label.
    alpha
        Limit for adjusted p-values of labels, gene sets and genes.
    min_excess
        A label names a feature only if its held-out F1 is above chance by at least this share of what is possible,
        ``(F1 - null) / (1 - null)``.
    min_effect
        Genes are named only if their mean in strongly active cells is above that in silent cells by at least so many
        standard deviations.
    min_cells
        Categories with fewer cells name no feature.
    holdout
        Share of the cells (or samples) that scores; the others choose.
    criterion
        What the label and the threshold are chosen by: F1 in excess of chance, or plain F1. Chance gives a frequent
        feature a high F1 with the largest category.
    rng
        Draws the held-out cells or samples.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``uns[key]["features"]``
        `name`: no two features share one; the second of a name has " (2)" at its end, and features without evidence
        are called "unknown (sae_7)". `name_source`: what the name is made of (``"label+gene"``, ``"label"``,
        ``"term+gene"``, ``"term"``, ``"gene"``, ``"unknown"``). `confidence`, ordered: ``"high"`` (a label with
        held-out F1 of at least 0.5), ``"medium"`` (a label that held with a lower F1), ``"low"`` (gene sets or genes
        only), ``"none"`` (unknown). And, where there are labels, for the best label of
        every feature whether it held or not: `concept` (with the name of its column where there are several),
        `concept_f1`, `concept_precision` and `concept_recall` on the held-out cells, `concept_f1_null` (mean F1 with
        their labels shuffled), `concept_threshold` (cells with a larger activation are called), `concept_pval`,
        `concept_padj`.
    ``uns[key]["annotation"]``
        What speaks for names, tidy: `feature`, `source` (``"label"``, ``"term"`` or ``"gene"``), `key` (column of
        ``obs`` for labels), `evidence` (category, gene set or gene), `score` (held-out F1 for labels, the score of
        their tables for the others), `null`, `pval`, `padj`, `held_out` (labels, and genes that were tested with
        `split`), `in_name`. The best category of every column
        of labels, up to 3 gene sets and 5 genes, the latter two only when they may name the feature.
    ``uns[key]["params"]["annotate_features"]``
        What was asked, and what was there.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or no such column.
    ValueError
        If there is nothing to name features by, a column holds no labels, there are too few samples, or an option is
        out of its range.

    Notes
    -----
    Labels are scored as in InterPLM: activations relative to the feature's maximum, thresholds 0, .15, .5, .6 and .8,
    the best pair of label and threshold chosen on some cells and its F1 reported on others. In these, the p-value is
    the exact probability of such an F1 when labels are shuffled (hypergeometric, one-sided); `concept_padj` is
    Benjamini-Hochberg over all features x columns of labels.

    A gene set names a feature only if at least two of the genes that carry its score are clear by themselves (`alpha`,
    `min_effect`): tests of sets take genes as independent, and with cells shuffled nearly every feature had a
    significant set. Of a feature's ten best genes, the one comes first whose score, times the share of features that do
    not have it among theirs, is largest: genes that mark everything name nothing.

    When not to trust a name: it says where a feature is active in these cells and what is expressed there, not what the
    feature does. A feature active in a tenth of a cell type is named after that type: look at `concept_recall`. A
    label can only be found if it is among yours. Genes and gene sets were tested on the cells that the features were
    learned from, and of an untrained code nearly all features have significant genes: a name of ``"low"`` confidence is
    a description. Cells of one sample resemble each other: give `sample_key` if labels were to hold in new samples.

    References
    ----------
    Simon and Zou (2025), Nature Methods (InterPLM: F1 of concepts). Benjamini and Hochberg (1995), J R Stat Soc B
    57:289.
    """
    check_choice(criterion, CRITERIA, name="criterion")
    min_cells = check_positive_int(min_cells, name="min_cells")
    for value, name in ((alpha, "alpha"), (holdout, "holdout")):
        if not 0 < value < 1:
            msg = f"{name} must lie between 0 and 1, found {value!r}."
            raise ValueError(msg)
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
    found = [name for name in (_keys.GENES, _keys.ENRICHMENT) if name in slot]
    _check_found(key, columns, found)
    generator = random.as_generator(rng)
    held, split = _held_out(adata, columns, holdout, sample_key, generator)

    scores = [_score(codes, column, held, split, min_cells=min_cells, criterion=criterion) for column in columns]
    labels, concepts = _label_evidence(columns, scores, features, alpha=alpha, min_excess=min_excess)
    clear = None
    if _keys.GENES in found:
        how = slot[_keys.PARAMS].get("feature_genes", {})
        clear = clear_genes(
            pd.DataFrame(slot[_keys.GENES]),
            alpha=alpha,
            min_effect=min_effect,
            correlation=how.get("method") == "correlation",
        )
    others = []
    if _keys.ENRICHMENT in found:
        terms = pd.DataFrame(slot[_keys.ENRICHMENT])
        others.append(term_evidence(terms, clear, alpha=alpha, n=_N_TERMS, features=features))
    if clear is not None:
        others.append(gene_evidence(clear, n=_N_GENES, features=features, held_out=bool(how.get("split"))))
    names = make_names(labels, others, features)
    table = table.drop(columns=[name for name in COLUMNS if name in table])
    added = names.table.join(concepts).set_axis(table.index)
    table = table.join(added)

    adata = check.writable(adata, copy=copy)
    slot = adata.uns[key]
    slot[_keys.FEATURES] = table
    slot[_keys.ANNOTATION] = names.evidence
    asked = {
        "label_keys": np.array([column.name for column in columns], dtype=object),
        "sample_key": sample_key or "",
        "alpha": float(alpha),
        "min_excess": float(min_excess),
        "min_effect": float(min_effect),
        "min_cells": min_cells,
        "holdout": float(holdout),
        "criterion": criterion,
        "thresholds": np.array(THRESHOLDS),
        "rng": random.describe(rng),
        "used": np.array(([_keys.LABELS] if columns else []) + found, dtype=object),
    }
    slot[_keys.PARAMS] = dict(slot[_keys.PARAMS]) | {"annotate_features": asked}
    _report(table, key)
    return adata if copy else None


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


def _check_found(key: str, columns: list[Labels], found: list[str]) -> None:
    missing = {
        "labels": [] if columns else ["pass label_keys, or run ssc.tl.feature_association"],
        "genes": [] if _keys.GENES in found else ["run ssc.tl.feature_genes"],
        "gene sets": [] if _keys.ENRICHMENT in found else ["run ssc.tl.feature_enrichment"],
    }
    lacking = [f"{name} ({how[0]})" for name, how in missing.items() if how]
    if len(lacking) == len(missing):
        msg = f"There is nothing to name the features of {key!r} by: no {', no '.join(lacking)}."
        raise ValueError(msg)
    if lacking:
        _logging.info(f"annotate_features: names are made without {' and without '.join(lacking)}")


def _held_out(
    adata: AnnData | MuData, columns: list[Labels], holdout: float, sample_key: str | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cells that score, and cells that belong to either part."""
    everywhere = np.ones(adata.n_obs, bool)
    if sample_key is None:
        return stratified_holdout([c.codes for c in columns], holdout, rng, n_rows=adata.n_obs), everywhere
    samples = check.get_obs_column(adata, sample_key).astype("category")
    n = len(samples.cat.remove_unused_categories().cat.categories)
    if n < 2:
        msg = f"adata.obs[{sample_key!r}] has {n} sample(s): at least 2 are needed to score labels on other samples."
        raise ValueError(msg)
    codes = samples.cat.remove_unused_categories().cat.codes.to_numpy()
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
    texts = np.array([*label_names(columns), ""], dtype=object) if columns else np.array([""], dtype=object)
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
    if not parts:
        empty = ["feature", "source", "key", "evidence", "score", "null", "pval", "padj", "held_out", "in_name"]
        return pd.DataFrame({name: [] for name in [*empty, "holds", "text"]}), pd.DataFrame(index=features)
    rows = pd.concat(parts, ignore_index=True)
    rows["padj"] = benjamini_hochberg(rows["pval"].to_numpy())
    excess = excess_f1(rows["score"].to_numpy(), rows["null"].to_numpy())
    best = rows.sort_values("chosen_by", ascending=False, kind="stable").groupby("feature", sort=False).head(1).index
    # only the column that the cells for choosing preferred may name a feature
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
