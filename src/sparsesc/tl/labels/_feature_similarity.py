from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._values import check_choice, check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.stats.features._coactivation import CoActivation
from sparsesc.stats.features._neighbors import CosineOfRows, Neighbors, PearsonOfColumns, Similarity, neighbors

from ._same_label import PairGenes, compare_same_label, label_cells, sure_labels

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

METRICS = ("activation", "decoder", "genes")
_MIN_SCORES = {"activation": 0.7, "decoder": 0.8, "genes": 0.9}
COLUMNS = ("group", "group_size")
_GIB = 2**30


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
    """The most similar features of each feature, groups of redundant ones, and pairs that share a label or should not.

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
        Neighbours to list for each feature; it is never its own neighbour, and only positive similarities count.
    min_score
        Similarity from which two features count as redundant. ``None``: 0.7 for activations, 0.8 for decoders, 0.9 for
        genes. Similar activations must also have `padj` below 0.05: one strong cell in common is not enough.
    min_label_r
        Features count as labelled when their label holds on held-out cells with at least this Pearson r
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
        ``"redundant"`` (by `min_score`, with the same label or one of them unlabelled), ``"cross-label"`` (by
        `min_score`, but with another label: candidates for features with several meanings) or ``"related"``.
    ``uns[key]["features"]``
        `group`: the feature that represents a group of redundant ones (each member is similar to it from `min_score`
        on; its own name when it is alone, empty for silent features); `group_size`.
    ``uns[key]["same_label"]``
        When there are labels that two features share: `label`, `feature`, `neighbor`, `score` (of `metric`),
        `pearson_r`, `pearson_r_within` (among the cells of the label), `n_both`, `n_expected` (within), `pval`, `padj`
        (over all pairs of this table), `relation`: ``"redundant"`` (`score` from `min_score` on), ``"overlapping"`` or
        ``"exclusive"`` (active in the same, or in different, cells of the label more often than by chance, `padj` below
        0.05) or ``"independent"``; and with `n_genes` the genes that are higher where only one of both is active among
        the cells of the label, `genes` and `neighbor_genes` (`padj` below 0.05 over all pairs x genes; empty with fewer
        than ten such cells on either side).
    ``uns[key]["params"]["feature_similarity"]``
        What was asked.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or ``metric="genes"`` without gene scores.
    ValueError
        If fewer than two features are active, or an option is out of its range.

    Notes
    -----
    Genes of ``"exclusive"`` pairs tell whether two features with one label are different biology (states of one type)
    or an arbitrary cut through it. As codes come from the same expression, these p-values rank genes; they do not
    confirm that the two kinds of cells exist.

    When not to use it: the test of co-activation asks whether two features are independent. Related ones never are, and
    with many cells nearly all pairs differ from independence, also because an encoder with a budget lets features
    compete. Judge redundancy by `score`. Decoder directions of an untrained code are similar by chance in an embedding
    of few dimensions (the standard deviation of the cosine is 1 over the root of the number of dimensions).

    References
    ----------
    Fisher (1935), J R Stat Soc 98:39. Benjamini and Hochberg (1995), J R Stat Soc B 57:289.
    """
    check_choice(metric, METRICS, name="metric")
    n_neighbors = check_positive_int(n_neighbors, name="n_neighbors")
    n_label_features = check_positive_int(n_label_features, name="n_label_features")
    min_score = _MIN_SCORES[metric] if min_score is None else min_score
    for name, value in {"min_score": min_score, "min_label_r": min_label_r}.items():
        if not 0 < value <= 1:
            msg = f"{name} must lie between 0 and 1, found {value!r}."
            raise ValueError(msg)
    if not max_memory > 0:
        msg = f"max_memory must be a positive number of GiB, found {max_memory!r}."
        raise ValueError(msg)
    if n_genes != 0:
        n_genes = check_positive_int(n_genes, name="n_genes")
    codes = check.get_codes(adata, key)
    table = check.get_feature_table(adata, key)
    activity = CoActivation(codes)
    if activity.n_pairs == 0:
        n_alive = int((activity.sizes > 0).sum())
        msg = f"{n_alive} of the {len(table)} features of {key!r} are active in any cell: there is nothing to compare."
        raise ValueError(msg)
    max_bytes = max_memory * _GIB
    others = open_similarities(adata, key, needed=metric)
    found = neighbors(activity, others.get(metric), n_top=n_neighbors, threshold=float(min_score), max_bytes=max_bytes)
    pairs = _pair_table(found, activity, others, table.index, max_bytes)
    labels = sure_labels(table, min_label_r)
    if labels is not None:
        pairs = pairs.assign(**_relations(found, labels))
    same = None
    if labels is not None:
        cells = label_cells(adata, key, set(labels) - {""})
        expression = PairGenes.open(adata, layer, use_raw, n_genes, max_bytes) if n_genes and cells else None
        same = compare_same_label(
            codes,
            table,
            labels,
            cells,
            score=lambda members: similarity_among(adata, key, metric, members),
            threshold=float(min_score),
            n_features=n_label_features,
            expression=expression,
        )
    table = table.drop(columns=[c for c in COLUMNS if c in table])
    names = table.index.astype(str).to_numpy(dtype=object)
    table["group"] = pd.Series(np.where(found.leader >= 0, names[found.leader], ""), index=table.index, dtype=str)
    table["group_size"] = np.where(
        found.leader >= 0, np.bincount(found.leader[found.leader >= 0], minlength=len(names))[found.leader], 0
    )

    adata = check.writable(adata, copy=copy)
    slot = adata.uns[key]
    slot.pop(_keys.SAME_LABEL, None)
    slot[_keys.SIMILARITY] = pairs
    if same is not None and len(same):
        slot[_keys.SAME_LABEL] = same
    slot[_keys.FEATURES] = table
    asked: dict[str, Any] = {
        "metric": metric,
        "n_neighbors": n_neighbors,
        "min_score": float(min_score),
        "min_label_r": float(min_label_r),
        "n_label_features": n_label_features,
        "n_genes": n_genes,
        "n_tests": found.n_tests,
    }
    slot[_keys.PARAMS] = dict(slot[_keys.PARAMS]) | {"feature_similarity": asked}
    _report(table, pairs, same, key=key, metric=metric, threshold=float(min_score))
    return adata if copy else None


def open_similarities(
    adata: AnnData | MuData, key: str, *, needed: str, features: np.ndarray | slice = slice(None)
) -> dict[str, Similarity]:
    """Similarities other than that of activations, as far as there is something to compute them from."""
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
    """Similarity of a few features with each other, given by position."""
    if metric == "activation":
        return CoActivation(check.get_codes(adata, key)[:, features]).pearson(0, len(features))
    return open_similarities(adata, key, needed=metric, features=features)[metric](0, len(features))


def _pair_table(
    found: Neighbors, activity: CoActivation, others: dict[str, Similarity], features: pd.Index, max_bytes: float
) -> pd.DataFrame:
    sizes = activity.sizes.astype(np.float64)
    one, two = sizes[found.feature], sizes[found.neighbor]
    names = features.astype(str).rename(None)
    data: dict[str, Any] = {
        "feature": pd.Categorical.from_codes(found.feature, categories=names),
        "neighbor": pd.Categorical.from_codes(found.neighbor, categories=names),
        "rank": found.rank,
        "score": found.score,
        "pearson_r": found.pearson_r,
        "jaccard": found.n_both / np.maximum(one + two - found.n_both, 1.0),
        "n_both": found.n_both,
        "n_expected": one * two / activity.n,
        "pval": found.pval,
        "padj": found.padj,
        "decoder_cosine": _listed(others["decoder"], found, activity, max_bytes),
    }
    if "genes" in others:
        data["gene_r"] = _listed(others["genes"], found, activity, max_bytes)
    return pd.DataFrame(data)


def _listed(similarity: Similarity, found: Neighbors, activity: CoActivation, max_bytes: float) -> np.ndarray:
    """A similarity of the listed pairs, which are sorted by feature."""
    out = np.empty(len(found.feature))
    for start, stop in activity.blocks(max_bytes):
        rows = slice(*np.searchsorted(found.feature, [start, stop]))
        out[rows] = similarity(start, stop)[found.feature[rows] - start, found.neighbor[rows]]
    return out


def _relations(found: Neighbors, labels: np.ndarray) -> dict[str, Any]:
    one, two = labels[found.feature], labels[found.neighbor]
    differ = (one != two) & (one != "") & (two != "")
    relation = np.where(~found.similar, "related", np.where(differ, "cross-label", "redundant"))
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
        msg += f"; {int((pairs['relation'] == 'cross-label').sum())} cross-label neighbours"
    if same is not None and len(same):
        counts = same["relation"].value_counts()
        shown = ", ".join(f"{int(n)} {name}" for name, n in counts.items() if n)
        msg += f"; pairs with the same label: {shown}"
    _logging.info(f"{msg}; added uns['{key}']['{_keys.SIMILARITY}'] and columns to uns['{key}']['{_keys.FEATURES}']")
