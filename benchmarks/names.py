"""Are names of features right, and are there none where there is nothing to name?

    uv run python -m benchmarks.names [--keep FILE] [--quick]

Real cells: is the label in a name that of most cells in which the feature is on, and do the ten genes that are listed
for the feature share one with the markers of that label (Welch's t test, the 25 best)? Nothing to name: every gene is
permuted over cells on its own, before the embedding and the fit. Labels without meaning: regions of the graph of cells
drawn at random, in three degrees of smoothness, as quantiles of one field or as the largest of several. Power: features
with a right label that a name of high or medium confidence would have without the comparison with random labels, and
those of them that lose it. All through the public functions, with defaults. Writes ``benchmarks/names.md``.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy import sparse

import sparsesc as ssc

from ._keep import Kept
from ._machine import machine
from ._markdown import markdown
from .defaults import DATA, load

N_LISTED = 10
N_MARKERS = 25
STEPS = (3, 10, 30)
N_NEIGHBORS = 20
GENE_SETS = "immune_markers"
CLEAR = ["high", "medium"]


def described(adata: AnnData, labels: list[str]) -> pd.DataFrame:
    """The table of features after the calls of the README."""
    ssc.tl.fit_sae(adata, use_rep="X_pca", rng=0, progress_bar=False)
    ssc.tl.feature_genes(adata, progress_bar=False)
    sets = ssc.datasets.gene_sets(GENE_SETS)
    if adata.var_names.isin(sets["target"]).any():  # symbols of human genes
        ssc.tl.feature_enrichment(adata, sets, min_size=3, progress_bar=False)
    ssc.tl.annotate_features(adata, label_keys=labels)
    return adata.uns["sae"]["features"]


def real(adata: AnnData, label: str) -> dict[str, float]:
    """How many names there are, how many are right, and how many lose their confidence."""
    table = described(adata, [label])
    codes = adata.obsm["X_sae"].tocsc()
    labels = adata.obs[label].astype(str)
    genes = ssc.get.genes(adata)
    markers: dict[tuple[str, ...], set[str]] = {}
    majority, shared = {}, []
    for i, (feature, row) in enumerate(table.iterrows()):
        if row["where"] == "":
            continue
        union = tuple(sorted(c for c in labels.unique() if f", {c}, " in f", {row['where']}, "))
        inside = labels.isin(union).to_numpy()
        on = codes[:, [i]].toarray().ravel() > row["on_threshold"]
        majority[feature] = bool(inside[on].mean() >= 0.5)
        listed = genes.loc[genes["feature"] == feature, "gene"].head(N_LISTED)
        if len(listed):
            markers.setdefault(union, marker_genes(adata, inside))
            shared.append(not markers[union].isdisjoint(listed))
    excess = (table["where_f1"] - table["where_f1_null"]) / (1 - table["where_f1_null"])
    precision = table["where_precision"]
    clear = (table["where"] != "") & (excess >= 0.2) & (precision >= 0.5)
    right = clear & pd.Series(majority).reindex(table.index, fill_value=False)
    return shares(table) | {
        "label names": len(majority),
        "majority": float(np.mean(list(majority.values()))),
        "marker": float(np.mean(shared)),
        "lost": float((~table.loc[right, "confidence"].isin(CLEAR)).mean()),
        "labels": labels.nunique(),
    }


def marker_genes(adata: AnnData, inside: np.ndarray) -> set[str]:
    """The best genes of some cells against all others."""
    source = adata.raw if adata.raw is not None else adata
    obs = pd.DataFrame({"inside": pd.Categorical(inside.astype(str))}, index=adata.obs_names)
    cells = AnnData(source.X, obs=obs, var=pd.DataFrame(index=source.var_names))
    sc.tl.rank_genes_groups(cells, "inside", groups=["True"], method="t-test", n_genes=N_MARKERS)
    return set(cells.uns["rank_genes_groups"]["names"]["True"])


def permuted_genes(adata: AnnData, label: str) -> dict[str, float]:
    """Names of features of cells whose genes have nothing to do with each other."""
    rng = np.random.default_rng(1)
    source = adata.raw if adata.raw is not None else adata
    values = sparse.csc_matrix(source.X, copy=True)
    for start, stop in zip(values.indptr, values.indptr[1:], strict=False):
        values.indices[start:stop] = rng.permutation(values.shape[0])[: stop - start]
    cells = AnnData(sparse.csr_matrix(values), obs=adata.obs, var=pd.DataFrame(index=source.var_names))
    if cells.n_vars > 2500:
        sc.pp.highly_variable_genes(cells, n_top_genes=2000)
    sc.pp.pca(cells, n_comps=50)
    return shares(described(cells, [label]))


def regions(X: np.ndarray, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Random labels of neighboring cells, with how they were drawn."""
    from sklearn.neighbors import kneighbors_graph

    rng = np.random.default_rng([2, seed])
    graph = kneighbors_graph(X, N_NEIGHBORS, include_self=True)
    graph = ((graph + graph.T) > 0).astype(np.float64)
    walk = sparse.diags(1 / np.asarray(graph.sum(axis=1)).ravel()) @ graph
    for steps in STEPS:
        for n_labels in (4, 8):
            fields = rng.normal(size=(len(X), n_labels))
            for _ in range(steps):
                fields = walk @ fields
            fields = (fields - fields.mean(axis=0)) / fields.std(axis=0)
            yield f"quantiles, {steps} steps, {n_labels}", pd.qcut(fields[:, 0], n_labels, labels=False)
            yield f"largest, {steps} steps, {n_labels}", fields.argmax(axis=1)


def smooth_labels(adata: AnnData, *, quick: bool) -> dict[str, float]:
    """Names after labels without meaning, on the fit of :func:`real`."""
    found = []
    for seed in range(1 if quick else 3):
        for how, labels in regions(adata.obsm["X_pca"], seed):
            adata.obs["region"] = pd.Categorical([f"region {i}" for i in labels])
            ssc.tl.annotate_features(adata, label_keys="region", rng=seed)
            pval = adata.uns["sae"]["params"]["annotate_features"]["smooth_pval"][0]
            found.append({"how": how, "pval": pval, **shares(adata.uns["sae"]["features"])})
            if quick:
                break
    table = pd.DataFrame(found)
    table["clear"] = table["high"] + table["medium"]
    return {
        "n": len(table),
        "clear": float(table["clear"].mean()),
        "most": float(table["clear"].max()),
        "columns": float((table["clear"] > 0.05).mean()),
        "passed": float((table["pval"] < 0.03).mean()),
        "below .05": float((table["pval"] <= 0.05).mean()),
    }


def shares(table: pd.DataFrame) -> dict[str, float]:
    levels = table["confidence"].value_counts(normalize=True)
    return {name: float(levels[name]) for name in ("high", "medium", "low")} | {
        "named": float((table["name_source"] != "unknown").mean())
    }


def measure(name: str, *, quick: bool) -> dict[str, object]:
    """All of the above for one data set."""
    adata = load(name)[0]
    label = DATA[name][1]
    row: dict[str, object] = {"cells": adata.n_obs} | real(adata, label)
    row |= {f"smooth {key}": value for key, value in smooth_labels(adata, quick=quick).items()}
    row |= {f"permuted {key}": value for key, value in permuted_genes(adata, label).items()}
    return row


TEXT = """
*Named*: share of the features. *Majority*: share of the label names that are those of most cells in which the feature
is on. *Marker*: share of them of which one of the ten listed genes is among the 25 best of the label. *Permuted*: share
of features that are named, by anything, when the genes of the same cells are permuted. *Smooth*: share of features with
a name of high or medium confidence after random labels, regions of the graph: the mean over 36 columns. *p < .03*:
share of these columns with a `smooth_pval` below .03, which names of more than low confidence need. *Lost*: share of
right label names of high or medium confidence that the comparison with random labels takes away.

The random columns here are drawn in other ways than those that `annotate_features` compares with: with these regions,
`smooth_pval` is too small (one column in eight is below .03). Some regions are what a feature stands for, by chance.

Before names had nulls of this kind (the best label by its F1, any gene of a small p-value), 126 of 128 features of
permuted genes had a name, and with random labels as smooth as regions 8 to 15 of 128 names were of high and 51 to 73 of
medium confidence.
"""


def report(rows: dict[str, dict]) -> str:
    """Markdown."""
    lines = ["# Are the names right?", "", f"Command: `uv run python -m benchmarks.names`. Machine: {machine()}.", ""]
    lines += TEXT.strip().splitlines()
    head = "data set | cells | labels | named | label names | high | medium"
    head += " | majority | marker | permuted | smooth | p < .03 | lost"
    told = ("majority", "marker", "permuted named", "smooth clear", "smooth passed", "lost")
    body = []
    for name, row in rows.items():
        shares = [row[key] for key in told]
        levels = [f"{row[key]:.2f}" for key in ("high", "medium")]
        counts = [f"{row['named']:.2f}", f"{row['label names']}", *levels]
        body.append(" | ".join([name, f"{row['cells']:,}", f"{row['labels']}", *counts, *(f"{s:.3f}" for s in shares)]))
    return "\n".join([*lines, *markdown(head, body)]) + "\n"


def main() -> None:
    """Measure every data set that is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, help="file of results, one a line; what is in it is not run again")
    parser.add_argument("--only", default="", help="data sets whose name holds this text; nothing is written")
    parser.add_argument("--quick", action="store_true", help="the cells that come with scanpy, nothing written")
    options = parser.parse_args()
    kept = Kept(None if options.quick else options.keep)
    names = [next(iter(DATA))] if options.quick or not os.environ.get("SPARSESC_DATA_DIR") else list(DATA)
    names = [name for name in names if options.only in name]
    for name in names:
        if name not in kept:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kept.add(name, measure(name, quick=options.quick))
        print(name, {key: round(value, 3) for key, value in kept[name].items()}, flush=True)
    if not (options.quick or options.only):
        Path(__file__).with_suffix(".md").write_text(report({name: kept[name] for name in names}))


if __name__ == "__main__":
    main()
