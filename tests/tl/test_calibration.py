"""Every test that a user can call, where there is nothing to be found: how often is p at or below .05?

Cells of every feature are shuffled on their own, or gene sets drawn at random, so that all null hypotheses are true.
`benchmarks/calibration.py` does the same at length, with mixtures of known truth.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sparsesc as ssc


def shuffle_cells(adata, seed: int) -> None:
    dense = adata.obsm["X_sae"].toarray()
    order = np.argsort(np.random.default_rng(seed).random(dense.shape), axis=0)
    adata.obsm["X_sae"] = sparse.csr_matrix(np.take_along_axis(dense, order, axis=0))


def random_sets(adata, seed: int) -> dict[str, list[str]]:
    rng = np.random.default_rng(seed)
    genes = adata.var_names
    return {f"set {i}": list(rng.choice(genes, rng.integers(15, 60), replace=False)) for i in range(40)}


def association(adata, seed: int, **options) -> pd.DataFrame:
    shuffle_cells(adata, seed)
    ssc.tl.feature_association(adata, "bulk_labels", **options)
    table = adata.uns["sae"]["association"]
    # where few active cells of a label are expected, p moves in wide steps
    active = adata.obsm["X_sae"].getnnz(axis=0)[table["feature"].cat.codes]
    return table[active * table["n_cells"] / adata.n_obs >= 5]


def numeric(adata, seed: int, column: str) -> pd.DataFrame:
    shuffle_cells(adata, seed)
    # numbers of one feature are one test each: draw many of them
    for i in range(20):
        adata.obs[f"number {i}"] = np.random.default_rng([seed, i]).gamma(0.5, size=adata.n_obs)
    ssc.tl.feature_association(adata, [f"number {i}" for i in range(20)])
    table = adata.uns["sae"]["association_numeric"]
    return table.assign(pval=table[column])


def genes(adata, seed: int, method: str) -> pd.DataFrame:
    shuffle_cells(adata, seed)
    ssc.tl.feature_genes(adata, method=method, n_top=None, direction="both", progress_bar=False)
    return adata.uns["sae"]["genes"]


def terms(adata, seed: int, method: str, features=None) -> pd.DataFrame:
    ssc.tl.feature_genes(adata, progress_bar=False)
    options = {"features": features, "n_top": None, "progress_bar": False}
    ssc.tl.feature_enrichment(adata, random_sets(adata, seed), method=method, **options)
    return adata.uns["sae"]["enrichment"]


def concepts(adata, seed: int) -> pd.DataFrame:
    shuffle_cells(adata, seed)
    rng = np.random.default_rng(seed)
    for i in range(5):
        adata.obs[f"label {i}"] = rng.permutation(adata.obs["bulk_labels"].astype(str))
    ssc.tl.annotate_features(adata, label_keys=[f"label {i}" for i in range(5)])
    table = adata.uns["sae"]["annotation"]
    return table[table["source"] == "label"]


def locality(adata, seed: int) -> pd.DataFrame:
    shuffle_cells(adata, seed)
    ssc.tl.feature_locality(adata, "bulk_labels")
    table = adata.uns["sae"]["locality"]
    active = pd.Series(adata.obsm["X_sae"].getnnz(axis=0), index=adata.uns["sae"]["features"].index)
    return table[active[table["feature"].astype(str)].to_numpy() * table["n_cells"].to_numpy() / adata.n_obs >= 5]


def similarity(adata, seed: int) -> pd.DataFrame:
    shuffle_cells(adata, seed)
    ssc.tl.feature_similarity(adata, n_neighbors=63, n_genes=0)
    table = adata.uns["sae"]["similarity"]
    return table[table["feature"].astype(str) < table["neighbor"].astype(str)]


def differential(adata, seed: int) -> pd.DataFrame:
    """Samples differ in every feature, and conditions are drawn by lot."""
    rng = np.random.default_rng(seed)
    sample = np.arange(adata.n_obs) % 10
    kept = rng.random((10, 64))[sample] > rng.random((adata.n_obs, 64))
    adata.obsm["X_sae"] = sparse.csr_matrix(adata.obsm["X_sae"].toarray() * kept)
    adata.obs["sample"] = pd.Categorical([f"sample {i}" for i in sample])
    adata.obs["condition"] = pd.Categorical(np.array(["a", "b"])[rng.permutation(10) % 2][sample])
    ssc.tl.differential_features(adata, "condition", sample_key="sample")
    return adata.uns["sae"]["differential"]


def thinned(adata, seed: int) -> pd.DataFrame:
    """All cells are alike, and features come from one half of the counts that genes are tested in."""
    import scanpy as sc
    from anndata import AnnData

    rng = np.random.default_rng(seed)
    alike = AnnData(sparse.csr_matrix(rng.poisson(0.7, size=(400, 200)).astype(np.float32)))
    ssc.pp.thin_counts(alike, rng=seed)
    part = AnnData(alike.layers["thin_train"].copy())
    sc.pp.normalize_total(part)
    sc.pp.log1p(part)
    sc.pp.pca(part, n_comps=10)
    pre = np.maximum(part.obsm["X_pca"] @ rng.normal(size=(10, 30)), 0)
    pre[pre < np.partition(pre, -4, axis=1)[:, -4, None]] = 0
    alike.obsm["X_sae"] = sparse.csr_matrix(pre, dtype=np.float32)
    alike.uns["sae"] = dict(adata.uns["sae"]) | {"features": adata.uns["sae"]["features"].iloc[:30].copy()}
    ssc.tl.feature_genes(alike, split="counts", n_top=None, direction="both", progress_bar=False)
    return alike.uns["sae"]["genes"]


# The test, and how many data sets; p-values of `STEPS` move in steps, so that fewer may be at or below .05.
NULLS: dict[str, tuple[Callable[..., pd.DataFrame], int]] = {
    "association": (association, 8),
    "association, permutation": (lambda a, s: association(a, s, pvalues="permutation"), 8),
    "association, asymptotic": (lambda a, s: association(a, s, pvalues="asymptotic"), 8),
    "Spearman": (lambda a, s: numeric(a, s, "pval"), 4),
    "Pearson": (lambda a, s: numeric(a, s, "pval_pearson"), 4),
    "genes, contrast": (lambda a, s: genes(a, s, "contrast"), 1),
    "genes, correlation": (lambda a, s: genes(a, s, "correlation"), 1),
    "gene sets, ulm": (lambda a, s: terms(a, s, "ulm"), 4),
    "gene sets, ranksum": (lambda a, s: terms(a, s, "ranksum"), 4),
    "gene sets, ora": (lambda a, s: terms(a, s, "ora"), 4),
    "gene sets, gsea": (lambda a, s: terms(a, s, "gsea", list(range(40 * s, 40 * s + 20))), 1),
    "genes, split by counts": (thinned, 3),
    "concepts": (concepts, 8),
    "locality": (locality, 8),
    "similarity": (similarity, 3),
    "differential": (differential, 15),
}
STEPS = {"gene sets, ora", "concepts", "similarity"}


@pytest.mark.parametrize("name", NULLS)
def test_level(name, pbmc68k_code):
    test, repeats = NULLS[name]
    tables = [test(pbmc68k_code.copy(), seed) for seed in range(repeats)]
    p = np.concatenate([table["pval"] for table in tables])
    share = (p <= 0.05).mean()
    assert len(p) >= 500
    assert share <= 0.06
    assert share >= (0.005 if name in STEPS else 0.03)
    assert np.mean([(table["padj"] < 0.05).any() for table in tables]) <= 0.5


def test_false_discoveries_among_gene_sets_in_mixtures():
    """Random sets beside sets that hold genes which are truly higher where a feature is active."""
    false, power = {"ulm": [], "ranksum": [], "ora": []}, []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        names = np.array([f"G{g}" for g in range(500)])
        scores = rng.normal(size=(30, 500))
        net = {f"random {i}": list(rng.choice(names, 20, replace=False)) for i in range(30)}
        for f in range(15):
            planted = rng.choice(500, 20, replace=False)
            scores[f, planted] += 5
            net[f"planted {f}"] = list(dict.fromkeys([*names[planted[:10]], *rng.choice(names, 10, replace=False)]))
        adata = stored_scores(scores, names)
        for method, shares in false.items():
            ssc.tl.feature_enrichment(adata, net, method=method, n_top=None, progress_bar=False)
            table = adata.uns["sae"]["enrichment"]
            found = table[table["padj"] < 0.05]
            true = found["term"] == "planted " + found["feature"].str.removeprefix("sae_")
            shares.append(1 - true.mean() if len(found) else 0.0)
            if method == "ulm":
                power.append(true.sum() / 15)
    assert {method: np.mean(shares) <= 0.07 for method, shares in false.items()} == dict.fromkeys(false, True)
    assert np.mean(power) > 0.9


def stored_scores(scores: np.ndarray, names: np.ndarray):
    """An AnnData whose gene scores are given."""
    from anndata import AnnData

    n = len(scores)
    adata = AnnData(sparse.csr_matrix((3, len(names)), dtype=np.float32), var=pd.DataFrame(index=names))
    features = pd.DataFrame({"n_cells": np.full(n, 3)}, index=pd.Index([f"sae_{i}" for i in range(n)], name="feature"))
    asked = {"n_obs": 3, "stored": True, "method": "contrast"}
    adata.uns["sae"] = {"params": {"feature_genes": asked}, "weights": {}, "features": features}
    adata.varm["sae_genes"] = scores.T.astype(np.float32)
    return adata
