from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._values import check_choice, check_memory, check_positive_int, check_share
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._slots import record
from sparsesc.stats.features._coactivation import CoActivation
from sparsesc.stats.features._neighbors import CosineOfRows, Neighbors, PearsonOfColumns, Similarity, neighbors

from ._same_label import Expression, cells_of_labels, compare_same_label, sure_labels

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

METRICS = ("activation", "decoder", "genes")
_MIN_SCORES = {"activation": 0.7, "decoder": 0.8, "genes": 0.9}
COLUMNS = ("group", "group_size")
MATRIX_SIZE = 512
"""Features whose similarities with each other are all stored, for plots."""


def feature_similarity(
    adata: AnnData | MuData,
    *,
    key: str = "sae",
    metric: Literal["activation", "decoder", "genes"] = "activation",
    n_neighbors: int = 10,
    min_score: float | None = None,
    min_label_r: float = 0.3,
    n_label_features: int = 10,
    n_genes: int = 5,
    layer: str | None = None,
    use_raw: bool | None = None,
    max_memory: float = 0.5,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Find the most similar features of each feature, groups of redundant ones, and pairs that share a label.

    Similarities are computed block by block; features x features are never held as a whole.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder.
    key
        Name of the sparse autoencoder.
    metric
        ``"activation"``: Pearson r of activations over all cells (0 for features that are independent, however many
        cells they are active in). ``"decoder"``: cosine of the directions in the embedding. ``"genes"``: Pearson r of
        the gene scores in ``varm`` (of :func:`feature_genes`).
    n_neighbors
        Neighbors to list for each feature, other than itself; only positive similarities count.
    min_score
        Similarity from which two features count as redundant. ``None``: 0.7 for activations, 0.8 for decoders, 0.9 for
        genes. Similar activations must also have `padj` below 0.05: one strong cell in common is not enough.
    min_label_r
        Features count as labeled when their label holds on held-out cells with at least this Pearson r
        (`label_r_heldout` of :func:`feature_association`).
    n_label_features
        Features of each label to compare with each other, those with the largest `label_r_heldout`.
    n_genes
        Genes to name on either side of two features with the same label; 0: none, and expression is not read.
    layer, use_raw
        Expression for `n_genes`, as in :func:`feature_genes`.
    max_memory
        Working memory in GiB, beyond the data and the results.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``uns[key]["similarity"]``
        Table, most similar first within each feature: `feature`, `neighbor`, `rank`, `score` (of `metric`), `pearson_r`
        (of activations), `jaccard` (of active cells), `n_both` (cells in which both are active), `n_expected` (if they
        were independent), `pval` (of `n_both`, exact and two-sided: the central version of Fisher's test), `padj`
        (Benjamini-Hochberg over all pairs of features that are active, listed or not), `decoder_cosine`, and `gene_r`
        when gene scores are stored. With labels also `label`, `neighbor_label` (empty unless sure) and `relation`:
        ``"redundant"`` (by `min_score`, with the same label or one of them unlabeled), ``"cross-label"`` (by
        `min_score`, but with another label: candidates for features with several meanings) or ``"related"``.
    ``uns[key]["features"]``
        `group`: the feature that represents a group of redundant ones (each member has at least `min_score` with it;
        the name of the feature itself when it is alone, empty for silent features); `group_size`.
    ``uns[key]["similarity_matrix"]``
        ``values``, the similarities of `features` with each other (a square array), for plots: of all features, or of
        the 512 in the most similar pairs where there are more.
    ``uns[key]["same_label"]``
        When there are labels that two features share: `label`, `feature`, `neighbor`, `score` (of `metric`),
        `pearson_r`, `pearson_r_within` (among the cells of the label), `n_both`, `n_expected` (within), `pval`, `padj`
        (over all pairs of this table), `relation`: ``"redundant"`` (`score` of at least `min_score`),
        ``"overlapping"`` or ``"exclusive"`` (active in the same, or in different, cells of the label more often than by
        chance, `padj` below 0.05) or ``"independent"``; and with `n_genes` the genes that are higher where only one of
        both is active among the cells of the label, `genes` and `neighbor_genes` (`padj` below 0.05 over all pairs x
        genes; empty with fewer than ten such cells on either side).
    ``uns[key]["params"]["feature_similarity"]``
        The options of the call, and the number of tests.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or ``metric="genes"`` without gene scores.
    ValueError
        If fewer than two features are active, or an option is out of its range.

    See Also
    --------
    sparsesc.get.similarity : the tables of this function.
    sparsesc.pl.similarity : draw similar features side by side.
    sparsesc.tl.feature_absorption : categories that several features share.

    Notes
    -----
    With the activations :math:`z_i` of feature :math:`i` over all cells, their standard deviation :math:`\sigma_i`, the
    decoder direction :math:`w_i` and the gene scores :math:`g_i`, the three metrics are

    .. math:: r_{ij} = \frac{\mathrm{cov}(z_i, z_j)}{\sigma_i\, \sigma_j}, \qquad
        \frac{w_i \cdot w_j}{\lVert w_i \rVert\, \lVert w_j \rVert}, \qquad
        \mathrm{corr}(g_i, g_j) .

    Genes of ``"exclusive"`` pairs show whether two features with one label are different biology (states of one type)
    or an arbitrary cut through it. As codes come from the same expression, these p-values rank genes; they do not
    confirm that the two kinds of cells exist.

    When not to use it: the test of co-activation is a test of independence. Related features never are independent, and
    with many cells nearly all pairs differ from independence, also because an encoder with a budget lets features
    compete. Judge redundancy by `score`. Decoder directions of an untrained code are similar by chance in an embedding
    of few dimensions (the standard deviation of the cosine is 1 over the root of the number of dimensions).

    References
    ----------
    Fisher (1935), J R Stat Soc 98:39. Benjamini and Hochberg (1995), J R Stat Soc B 57:289.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_similarity(adata, n_neighbors=3)
    >>> pairs = ssc.get.similarity(adata, "sae_3")
    >>> len(pairs) <= 3
    True
    >>> list(pairs.columns[:4])
    ['feature', 'neighbor', 'rank', 'score']
    """
    check_choice(metric, METRICS, name="metric")
    n_neighbors = check_positive_int(n_neighbors, name="n_neighbors")
    n_label_features = check_positive_int(n_label_features, name="n_label_features")
    min_score = _MIN_SCORES[metric] if min_score is None else check_share(min_score, name="min_score", or_most=True)
    min_label_r = check_share(min_label_r, name="min_label_r", or_most=True)
    max_bytes = check_memory(max_memory)
    if n_genes != 0:
        n_genes = check_positive_int(n_genes, name="n_genes")
    codes = check.get_codes(adata, key)
    table = check.get_feature_table(adata, key)
    activity = CoActivation(codes)
    if activity.n_pairs == 0:
        n_alive = int((activity.sizes > 0).sum())
        msg = f"{n_alive} of the {len(table)} features of {key!r} are active in any cell: there is nothing to compare."
        raise ValueError(msg)
    others = open_similarities(adata, key, needed=metric)
    nearest = neighbors(activity, others.get(metric), n_top=n_neighbors, threshold=min_score, max_bytes=max_bytes)
    pairs = _pair_table(nearest, activity, others, table.index, max_bytes)
    labels, same = sure_labels(table, min_label_r), None
    if labels is not None:
        pairs = pairs.assign(**_relations(nearest, labels))
        cells = cells_of_labels(adata, key, set(labels) - {""})
        expression = Expression.open(adata, layer, use_raw, n_genes, max_bytes) if n_genes and cells else None
        same = compare_same_label(
            codes,
            table,
            labels,
            cells,
            score=lambda members: similarity_among(adata, key, metric, members),
            threshold=min_score,
            n_features=n_label_features,
            expression=expression,
        )
    table = table.drop(columns=[c for c in COLUMNS if c in table])
    names = table.index.astype(str).to_numpy(dtype=object)
    leader, alive = nearest.leader, nearest.leader >= 0
    table["group"] = pd.Series(np.where(alive, names[leader], ""), index=table.index, dtype=str)
    table["group_size"] = np.where(alive, np.bincount(leader[alive], minlength=len(names))[leader], 0)
    shown = _most_similar(nearest, len(names))
    tables = {
        _keys.SIMILARITY: pairs,
        _keys.SIMILARITY_MATRIX: {"features": names[shown], "values": similarity_among(adata, key, metric, shown)},
        _keys.SAME_LABEL: same,
        _keys.FEATURES: table,
    }
    options = {
        "metric": metric,
        "n_neighbors": n_neighbors,
        "min_score": min_score,
        "min_label_r": min_label_r,
        "n_label_features": n_label_features,
        "n_genes": n_genes,
        "n_tests": nearest.n_tests,
    }
    out = record(adata, key, "feature_similarity", tables, options, copy=copy)
    _report(table, pairs, same, key=key, metric=metric, threshold=min_score)
    return out


def _most_similar(nearest: Neighbors, n_features: int) -> np.ndarray:
    """All features, or those of the most similar pairs."""
    if n_features <= MATRIX_SIZE:
        return np.arange(n_features)
    order = np.argsort(-nearest.score, kind="stable")
    pairs = np.stack([nearest.feature, nearest.neighbor], axis=1)[order]
    return np.array(list(dict.fromkeys(pairs.ravel().tolist()))[:MATRIX_SIZE])


def open_similarities(
    adata: AnnData | MuData, key: str, *, needed: str, features: np.ndarray | slice = slice(None)
) -> dict[str, Similarity]:
    """The similarities that can be computed, besides that of activations."""
    decoder = np.asarray(check.get_sae_slot(adata, key)[_keys.WEIGHTS]["W_dec"])[features]
    out: dict[str, Similarity] = {"decoder": CosineOfRows(decoder)}
    slot = _keys.sae_keys(key).genes
    if slot in getattr(adata, "varm", {}):
        out["genes"] = PearsonOfColumns(np.asarray(adata.varm[slot])[:, features])
    elif needed == "genes":
        msg = (
            f"Did not find adata.varm[{slot!r}], the gene scores of {key!r}. "
            "Run ssc.tl.feature_genes(adata, store=True) first."
        )
        raise KeyError(msg)
    return out


def similarity_among(adata: AnnData | MuData, key: str, metric: str, features: np.ndarray) -> np.ndarray:
    """Similarities between a few features, given by position."""
    if metric == "activation":
        return CoActivation(check.get_codes(adata, key)[:, features]).pearson(0, len(features))
    return open_similarities(adata, key, needed=metric, features=features)[metric](0, len(features))


def _pair_table(
    nearest: Neighbors, activity: CoActivation, others: dict[str, Similarity], features: pd.Index, max_bytes: float
) -> pd.DataFrame:
    sizes = activity.sizes.astype(np.float64)
    one, two = sizes[nearest.feature], sizes[nearest.neighbor]
    names = features.astype(str).rename(None)
    data: dict[str, Any] = {
        "feature": pd.Categorical.from_codes(nearest.feature, categories=names),
        "neighbor": pd.Categorical.from_codes(nearest.neighbor, categories=names),
        "rank": nearest.rank,
        "score": nearest.score,
        "pearson_r": nearest.pearson_r,
        "jaccard": nearest.n_both / np.maximum(one + two - nearest.n_both, 1.0),
        "n_both": nearest.n_both,
        "n_expected": one * two / activity.n,
        "pval": nearest.pval,
        "padj": nearest.padj,
        "decoder_cosine": _listed(others["decoder"], nearest, activity, max_bytes),
    }
    if "genes" in others:
        data["gene_r"] = _listed(others["genes"], nearest, activity, max_bytes)
    return pd.DataFrame(data)


def _listed(similarity: Similarity, nearest: Neighbors, activity: CoActivation, max_bytes: float) -> np.ndarray:
    """A similarity of the listed pairs, which are sorted by feature."""
    out = np.empty(len(nearest.feature))
    for start, stop in activity.blocks(max_bytes):
        rows = slice(*np.searchsorted(nearest.feature, [start, stop]))
        out[rows] = similarity(start, stop)[nearest.feature[rows] - start, nearest.neighbor[rows]]
    return out


def _relations(nearest: Neighbors, labels: np.ndarray) -> dict[str, Any]:
    one, two = labels[nearest.feature], labels[nearest.neighbor]
    differ = (one != two) & (one != "") & (two != "")
    relation = np.where(~nearest.similar, "related", np.where(differ, "cross-label", "redundant"))
    return {
        "label": pd.Categorical(one),
        "neighbor_label": pd.Categorical(two),
        "relation": pd.Categorical(relation, categories=["redundant", "cross-label", "related"]),
    }


def _report(
    table: pd.DataFrame, pairs: pd.DataFrame, same: pd.DataFrame | None, *, key: str, metric: str, threshold: float
) -> None:
    redundant = int((table["group_size"] > 1).sum())
    groups = table.loc[table["group_size"] > 1, "group"].nunique()
    msg = f"feature_similarity ({metric}): {redundant} features in {groups} groups of similarity >= {threshold:g}"
    if "relation" in pairs:
        msg += f"; {int((pairs['relation'] == 'cross-label').sum())} cross-label neighbors"
    if same is not None:
        counts = same["relation"].value_counts()
        shown = ", ".join(f"{int(n)} {name}" for name, n in counts.items() if n)
        msg += f"; pairs with the same label: {shown}"
    _logging.info(f"{msg}; added uns['{key}']['{_keys.SIMILARITY}'] and columns to uns['{key}']['{_keys.FEATURES}']")
