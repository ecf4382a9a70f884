"""Give every feature a name from all its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc import _random as random
from sparsesc._values import as_list, check_positive_int, check_share, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._obs_columns import Labels, read_columns
from sparsesc.door._slots import record
from sparsesc.stats.core._holdout import stratified_holdout
from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.features._on import on_cells

from ._evidence import SMOOTH_ALPHA, column_evidence, confidence_of, label_rows, mixed_table, refuted_by_samples
from ._names import UNKNOWN, clear_genes, gene_evidence, make_names, term_evidence

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc._random import RNGLike, SeedLike

COLUMNS = (
    "name",
    "name_source",
    "confidence",
    "where",
    "what",
    "marker_genes",
    "where_key",
    "where_n",
    "where_precision",
    "where_recall",
    "where_f1",
    "where_f1_null",
    "where_pval",
    "where_padj",
    "mixed",
    "mixed_groups",
)
_OF_LABELS = {"key": "key", "n": "n", "precision": "precision", "recall": "recall", "score": "f1", "null": "f1_null"}
_OF_LABELS |= {"pval": "pval", "padj": "padj"}
_N_GENES = 5
_N_TERMS = 3


def annotate_features(
    adata: AnnData | MuData,
    *,
    key: str = "sae",
    label_keys: str | Sequence[str] | None = None,
    sample_key: str | None = None,
    alpha: float = 0.05,
    min_precision: float = 0.5,
    min_excess: float = 0.1,
    min_effect: float = 0.5,
    min_cells: int = 5,
    holdout: float = 0.5,
    rng: SeedLike | RNGLike | None = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Give every feature one readable name, with its evidence, or "unknown" when that is weak.

    A name says *where* a feature is on and *what* is expressed there, as in "CD19+ B | CD79A". Where: a label, or up to
    three labels of one column, that most of the cells have in which the feature is on. What: its clearest gene, with a
    gene set before it where the label tells little ("ER stress: beta, alpha | HSPA5"). Features without such a label
    are named by a gene set or by genes alone. Tables that were not computed are left out, and the log says so.

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
    min_precision
        Share of the cells in which a feature is on that have its label, among the cells that did not choose it and
        among all.
    min_excess
        A label names a feature only if its held-out F1 exceeds chance by at least this share of the possible gain,
        ``(F1 - null) / (1 - null)``.
    min_effect
        Genes are named only if their mean where the feature is on is above that in silent cells by at least this many
        standard deviations.
    min_cells
        Categories with fewer cells name no feature; the log tells which. Names give the number of cells where it is
        below 20.
    holdout
        Share of the cells (or samples) that scores; the others choose.
    rng
        Draws the held-out cells or samples, and the random labels that labels are compared with.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``uns[key]["features"]``
        `name`: no two features share one, and features without evidence are called "unknown (sae_7)". A gene set stands
        for labels that are too long. `name_source`: the parts of the name (``"label+gene"``, ``"label+term+gene"``,
        ``"term+gene"``, ``"gene"``, ``"unknown"``, ...). `confidence`, ordered: see the table in the notes.
        `where`: the label or labels, separated by commas; empty where none holds. `what`: the best gene set, or two
        genes. `marker_genes`: up to 5 clear genes, first those that few other features have. Of the label:
        `where_key` (its column), `where_n` (its cells), and on the held-out cells `where_precision`, `where_recall`,
        `where_f1`, `where_f1_null` (mean F1 with shuffled labels), `where_pval`, `where_padj`. `mixed`: strong and weak
        activations are different cells, which `mixed_groups` names ("strong: epsilon; weak: endothelial").
    ``uns[key]["annotation"]``
        The evidence for names, tidy: `feature`, `source` (``"label"``, ``"term"`` or ``"gene"``), `key` (column of
        ``obs`` for labels), `evidence` (label or labels, gene set or gene), `score` (held-out F1 for labels, the score
        of their tables for the others), `null`, `pval`, `padj`, `held_out` (labels, and genes that were tested with
        `split`), `in_name`. The best label of every column, confirmed or not, up to 3 gene sets and 5 genes, the latter
        two only when they are significant.
    ``uns[key]["params"]["annotate_features"]``
        The options of the call, the tables that were `used`, and for each column of labels `smooth_pval` (see the
        notes).

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
    A feature is on in the cells whose activation is above ``features["on_threshold"]``, which no label has a say in.
    With :math:`A` these cells and :math:`C` those of a label, or of a union of labels,

    .. math:: F_1 = \frac{2\, |A \cap C|}{|A| + |C|}, \qquad
        \mathrm{excess} = \frac{F_1 - E[F_1]}{1 - E[F_1]} ,

    where :math:`E[F_1]` is the mean with shuffled labels. The union with the largest excess is chosen on some cells,
    where each further label has to add .1, and scored on others. The p-value is the exact probability of so many cells
    of the label when labels are shuffled (hypergeometric, one-sided); `where_padj` is Benjamini-Hochberg over all
    features x columns of labels. A feature that is on in four labels or more is not named after some of them.

    ============ =====================================================================================================
    `confidence` evidence
    ============ =====================================================================================================
    high         label with an excess of at least .5 and a precision of at least .7, in labels that tell more than
                 smooth random ones; `support`, where it was computed, of at least .5
    medium       the same with an excess of .2 and a precision of .5
    low          any other label that holds; gene sets or genes alone
    none         unknown
    ============ =====================================================================================================

    Cells are not independent: neighbors share labels. So each column is compared with 299 random columns of similar
    sizes that are as smooth over the graph of nearest neighbors (normal noise, averaged along the graph until neighbors
    agree as often, and cut where the fewest neighbors are parted; at most 3,000 cells). The statistic is the mean
    excess of the labels of all features, and `smooth_pval` the share of random columns that reach it. In a column that
    is not below .03, only labels with an excess that one in a thousand features has with random columns are more than
    ``"low"``. It asks whether the labels go with the code more than regions of cells that were drawn at random do, not
    whether one feature does: a region drawn at random often is a cluster, which a feature may well stand for. It is
    approximate: over seven data sets, one in eight columns of regions that were drawn in other ways was below .03, so
    that 2 to 5 % of the names after such columns had a high or medium confidence (``benchmarks/names.md``). Random
    columns that are nearly the given one (adjusted Rand index of .8) are dropped; with a few clusters of cells that are
    far apart most may be, and then `smooth_pval` is missing and does not count.

    With a table of :func:`~sparsesc.tl.differential_features` for a column of labels, only features that differ between
    its samples are named after it. Genes and gene sets name a feature only if its genes vary together more than random
    genes of equal expression (``genes_coherence_pval``), and a gene set only if at least two of the genes that carry
    its score are clear by themselves (`alpha`, `min_effect`). A feature's ten best genes are ordered by their score,
    times the share of features that do not have the gene among theirs: genes that mark everything name nothing.

    When not to trust a name: it says where a feature is on in these cells and what is expressed there, not what the
    feature does. A feature that is on in a tenth of a cell type is named after that type: look at `where_recall`. Only
    labels in your columns can become names. Cells of one sample resemble each other: give `sample_key` if labels should
    hold in new samples.

    References
    ----------
    Simon and Zou (2025), Nature Methods (InterPLM: F1 of concepts). Benjamini and Hochberg (1995), J R Stat Soc B
    57:289. Wagner and Dray (2015), Methods in Ecology and Evolution 6:1169 (random fields of equal autocorrelation).

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_genes(adata, progress_bar=False)
    >>> ssc.tl.annotate_features(adata, label_keys="bulk_labels")
    >>> features = adata.uns["sae"]["features"]
    >>> bool((features["where"] == "CD19+ B").any())
    True
    >>> list(features["confidence"].cat.categories)
    ['none', 'low', 'medium', 'high']
    """
    min_cells = check_positive_int(min_cells, name="min_cells")
    check_share(alpha, name="alpha")
    check_share(holdout, name="holdout")
    for value, name in ((min_excess, "min_excess"), (min_precision, "min_precision")):
        if not 0 <= value <= 1:
            msg = f"{name} must lie between 0 and 1, found {value!r}."
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

    embedding = _embedding(adata, key, codes) if columns else np.empty((0, 0))
    on = on_cells(codes, check.get_on_thresholds(adata, key))
    scored = [
        column_evidence(codes, on, c, held, split, embedding=embedding, min_cells=min_cells, rng=generator)
        for c in columns
    ]
    rows = label_rows(
        scored,
        features,
        alpha=alpha,
        min_precision=min_precision,
        min_excess=min_excess,
        refuted=refuted_by_samples(slot, columns, features, alpha),
    )
    support = table["support"].set_axis(features) if "support" in table else None
    others, coherent = _gene_evidence(slot, table, features, present, alpha=alpha, min_effect=min_effect)
    names = make_names(rows, others, features, confidence=confidence_of(rows, support), coherent=coherent)
    written = names.table
    if columns:
        of_labels = rows[rows["holds"]].set_index("feature")[list(_OF_LABELS)].reindex(features)
        of_labels["key"] = of_labels["key"].fillna("").astype(str)
        of_labels["n"] = of_labels["n"].fillna(0).astype(int)
        written = written.join(of_labels.rename(columns={a: f"where_{b}" for a, b in _OF_LABELS.items()}))
        written = written.join(mixed_table(scored, features))
    table = table.drop(columns=[name for name in COLUMNS if name in table])
    table = table.join(written.set_axis(table.index))
    smooth_pval = np.array([c.null.pval for c in scored])
    options = {
        "label_keys": [column.name for column in columns],
        "sample_key": sample_key,
        "alpha": alpha,
        "min_precision": min_precision,
        "min_excess": min_excess,
        "min_effect": min_effect,
        "min_cells": min_cells,
        "holdout": holdout,
        "rng": random.describe(rng),
        "used": ([_keys.LABELS] if columns else []) + present,
        "smooth_pval": smooth_pval,
    }
    tables = {_keys.FEATURES: table, _keys.ANNOTATION: names.evidence}
    out = record(adata, key, "annotate_features", tables, options, copy=copy)
    _report(table, key)
    _report_labels(columns, smooth_pval, min_cells=min_cells)
    return out


def _embedding(adata: AnnData | MuData, key: str, codes: sparse.csr_matrix) -> np.ndarray:
    """The embedding that was fitted, or what the code keeps of it."""
    slot = check.get_sae_slot(adata, key)
    use_rep = slot[_keys.PARAMS].get("use_rep")
    if isinstance(use_rep, str) and use_rep in adata.obsm:
        return check.get_rep(adata, use_rep)
    return np.asarray(codes @ np.asarray(slot[_keys.WEIGHTS]["W_dec"], dtype=np.float32))


def _gene_evidence(
    slot: Mapping[str, Any],
    table: pd.DataFrame,
    features: pd.Index,
    present: list[str],
    *,
    alpha: float,
    min_effect: float,
) -> tuple[list[pd.DataFrame], set[str]]:
    """Evidence of gene sets and genes, and the features that they may name."""
    clear, how = None, slot[_keys.PARAMS].get("feature_genes", {})
    if _keys.GENES in present:
        genes, correlation = pd.DataFrame(slot[_keys.GENES]), how.get("method") == "correlation"
        clear = clear_genes(genes, alpha=alpha, min_effect=min_effect, correlation=correlation)
    others = []
    if _keys.ENRICHMENT in present:
        terms = pd.DataFrame(slot[_keys.ENRICHMENT])
        others.append(term_evidence(terms, clear, alpha=alpha, n=_N_TERMS, features=features))
    if clear is not None:
        others.append(gene_evidence(clear, n=_N_GENES, features=features, held_out=bool(how.get("split"))))
    if _keys.GENES_COHERENCE_PVAL not in table:
        return others, set(features)
    padj = benjamini_hochberg(table[_keys.GENES_COHERENCE_PVAL].to_numpy(dtype=np.float64))  # NaN: not tested
    return others, set(features[padj < alpha])


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


def _report(table: pd.DataFrame, key: str) -> None:
    levels = table["confidence"].value_counts()
    known = int((table["name_source"] != UNKNOWN).sum())
    _logging.info(
        f"annotate_features: {known} of {len(table)} features have a name ({levels['high']} of high, "
        f"{levels['medium']} of medium, {levels['low']} of low confidence); added uns['{key}']['{_keys.ANNOTATION}'] "
        f"and columns to uns['{key}']['{_keys.FEATURES}']"
    )


def _report_labels(columns: list[Labels], smooth_pval: np.ndarray, *, min_cells: int) -> None:
    """Say which labels can name nothing, and which columns tell no more than random ones."""
    for column, p in zip(columns, smooth_pval, strict=True):
        few = [f"{c} (n={n})" for c, n in zip(column.categories, column.sizes, strict=True) if n < min_cells]
        if few:
            _logging.warning(
                f"Labels of {column.name!r} with fewer than {min_cells} cells name no feature: {listing(few)}."
            )
        if p >= SMOOTH_ALPHA:
            _logging.warning(
                f"The labels of {column.name!r} tell no more of the features than random labels do that are as smooth "
                f"over the cells (p = {p:.2g}): names after them have a low confidence."
            )
