"""Tests that a user can call, where there is nothing to be found: how often is p at or below .05?

Cells of every feature are shuffled on their own, or gene sets drawn at random, so that all null hypotheses are true.
Absorption, drift, impact of gene sets, counts, latent dimensions, genes over samples and comparisons of representations
are held to the same in the tests of their modules, and mixtures of known truth are in ``test_calibration_mixtures.py``.
`benchmarks/calibration.py` does it at length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sparsesc as ssc
from sparsesc.tl.labels import _evidence


def shuffle_cells(adata, seed: int) -> None:
    dense = adata.obsm["X_sae"].toarray()
    order = np.argsort(np.random.default_rng(seed).random(dense.shape), axis=0)
    adata.obsm["X_sae"] = sparse.csr_matrix(np.take_along_axis(dense, order, axis=0))


def random_sets(adata, seed: int, n: int) -> dict[str, list[str]]:
    rng = np.random.default_rng(seed)
    genes = adata.var_names
    return {f"set {i}": list(rng.choice(genes, rng.integers(15, 60), replace=False)) for i in range(n)}


def coherent_sets(adata, seed: int) -> dict[str, list[str]]:
    """A gene, and the fourteen that vary most alike."""
    X = adata.raw.X.toarray()
    r = np.corrcoef(X.T)
    chosen = np.random.default_rng(seed).choice(len(r), 100, replace=False)
    return {f"like {adata.raw.var_names[g]}": list(adata.raw.var_names[np.argsort(-r[g])[:15]]) for g in chosen}


def enough_active(adata, table: pd.DataFrame) -> pd.DataFrame:
    """Where few active cells of a label are expected, p moves in wide steps."""
    active = pd.Series(adata.obsm["X_sae"].getnnz(axis=0), index=adata.uns["sae"]["features"].index)
    return table[active[table["feature"].astype(str)].to_numpy() * table["n_cells"].to_numpy() / adata.n_obs >= 5]


def association(adata, seed: int, **options) -> pd.DataFrame:
    shuffle_cells(adata, seed)
    ssc.tl.feature_association(adata, ["bulk_labels", "louvain", "phase"], **options)
    return enough_active(adata, adata.uns["sae"]["association"])


def numeric(adata, seed: int, column: str) -> pd.DataFrame:
    shuffle_cells(adata, seed)
    # numbers of one feature are one test each: draw many of them
    for i in range(20):
        adata.obs[f"number {i}"] = np.random.default_rng([seed, i]).gamma(0.5, size=adata.n_obs)
    ssc.tl.feature_association(adata, [f"number {i}" for i in range(20)])
    table = adata.uns["sae"]["association_numeric"]
    return table.assign(pval=table[column])


def genes(adata, seed: int, **options) -> pd.DataFrame:
    shuffle_cells(adata, seed)
    ssc.tl.feature_genes(adata, **({"n_top": None, "direction": "both", "progress_bar": False} | options))
    return adata.uns["sae"]["genes"]


def terms(adata, seed: int, method: str, features=None, n_sets: int = 160, **options) -> pd.DataFrame:
    ssc.tl.feature_genes(adata, progress_bar=False)
    options = {"features": features, "n_top": None, "progress_bar": False} | options
    ssc.tl.feature_enrichment(adata, random_sets(adata, seed, n_sets), method=method, **options)
    return adata.uns["sae"]["enrichment"]


def coherent_terms(adata, seed: int, method: str) -> pd.DataFrame:
    """Sets of genes that vary together, and features that have nothing to do with them."""
    shuffle_cells(adata, seed)
    ssc.tl.feature_genes(adata, progress_bar=False)
    options = {"null": "cells", "n_permutations": 400, "n_top": None, "progress_bar": False}
    ssc.tl.feature_enrichment(adata, coherent_sets(adata, seed), method=method, rng=seed, **options)
    return adata.uns["sae"]["enrichment"]


def concepts(adata, seed: int) -> pd.DataFrame:
    shuffle_cells(adata, seed)
    rng = np.random.default_rng(seed)
    for i in range(5):
        adata.obs[f"label {i}"] = rng.permutation(adata.obs["bulk_labels"].astype(str))
    with pytest.MonkeyPatch.context() as patch:  # smooth random labels take time and have no say in these p-values
        patch.setattr(_evidence, "smooth_null", partial(_evidence.smooth_null, n_draws=1))
        ssc.tl.annotate_features(adata, label_keys=[f"label {i}" for i in range(5)])
    table = adata.uns["sae"]["annotation"]
    return table[table["source"] == "label"]


def locality(adata, seed: int) -> pd.DataFrame:
    shuffle_cells(adata, seed)
    ssc.tl.feature_locality(adata, "bulk_labels")
    return enough_active(adata, adata.uns["sae"]["locality"])


def similarity(adata, seed: int) -> pd.DataFrame:
    shuffle_cells(adata, seed)
    ssc.tl.feature_similarity(adata, n_neighbors=63, n_genes=0)
    table = adata.uns["sae"]["similarity"]
    return table[table["feature"].astype(str) < table["neighbor"].astype(str)]


def same_label(adata, seed: int) -> pd.DataFrame:
    """Sixteen features of each of four labels, active in half of its cells."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, adata.n_obs)
    share = np.where(label[:, None] == np.arange(64) % 4, 0.5, 0.02)
    codes = rng.gamma(3, size=share.shape) * (rng.random(share.shape) < share)
    adata.obsm["X_sae"] = sparse.csr_matrix(codes.astype(np.float32))
    adata.obs["label"] = pd.Categorical(label.astype(str))
    ssc.tl.feature_association(adata, "label")
    ssc.tl.feature_similarity(adata, n_label_features=16, n_genes=0)
    return adata.uns["sae"]["same_label"]


def differential(adata, seed: int, design: str = "groups") -> pd.DataFrame:
    """Samples differ in every feature, and conditions are drawn by lot."""
    rng = np.random.default_rng(seed)
    sample = np.arange(adata.n_obs) % 10
    share = rng.random((10, 64))
    condition = rng.permutation(10) % 2
    covariates = None
    if design == "age":  # which matters, and goes with the condition
        age = rng.normal(size=10) + condition
        share = 1 / (1 + np.exp(-np.outer(age, rng.normal(size=64)) - rng.normal(scale=0.5, size=(10, 64))))
        adata.obs["age"], covariates = age[sample], "age"
    of_cell = rng.integers(0, 2, adata.n_obs) if design == "pairs" else condition[sample]
    kept = share[sample] > rng.random((adata.n_obs, 64))
    adata.obsm["X_sae"] = sparse.csr_matrix(adata.obsm["X_sae"].toarray() * kept)
    adata.obs["sample"] = pd.Categorical([f"sample {i}" for i in sample])
    adata.obs["condition"] = pd.Categorical(np.array(["a", "b"])[of_cell])
    ssc.tl.differential_features(adata, "condition", sample_key="sample", covariates=covariates)
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


def steered(adata, seed: int) -> pd.DataFrame:
    """What the components make of a feature, against random sets of genes."""
    net = random_sets(adata, seed, 48)  # the table holds the best 50
    few = {"doses": (1.0,), "n_controls": 1, "n_scored": 20}
    ssc.tl.steer(adata, adata.uns["sae"]["features"].index[seed], mode="ablate", net=net, **few)
    return adata.uns["sae"]["steering"]["enrichment"]


def batches(adata, seed: int, column: str = "pval") -> pd.DataFrame:
    """Batches drawn by lot."""
    adata.obs["batch"] = np.random.default_rng([seed, 1]).choice(["a", "b"], adata.n_obs)
    few = {"n_permutations": 39, "n_controls": 0, "n_scored": 100, "progress_bar": False}
    ssc.tl.suppress_features(adata, batch_key="batch", bio_keys="phase", rng=seed, **few)
    table = adata.uns["sae"]["suppression"]["features"]
    return table.assign(pval=table[column])


def pairing(adata, seed: int) -> pd.DataFrame:
    """Two embeddings without relation."""
    few = adata[:300].copy()
    few.obsm["X_a"], few.obsm["X_b"] = np.random.default_rng(seed).gamma(0.5, size=(2, 300, 16)).astype(np.float32)
    options = {"n_features": 128, "k": 12, "max_steps": 20, "validation": 0.5, "n_controls": 0, "progress_bar": False}
    ssc.tl.fit_crosscoder(few, use_reps=["X_a", "X_b"], **options)
    table = few.uns["sae"]["features"].dropna(subset="pairing_pval")
    return table.rename(columns={"pairing_pval": "pval", "pairing_padj": "padj"})


# The test, and how many data sets.
NULLS: dict[str, tuple[Callable[..., pd.DataFrame], int]] = {
    "association": (association, 8),
    "association, permutation": (lambda a, s: association(a, s, pvalues="permutation"), 8),
    "association, asymptotic": (lambda a, s: association(a, s, pvalues="asymptotic"), 8),
    "Spearman": (lambda a, s: numeric(a, s, "pval"), 4),
    "Pearson": (lambda a, s: numeric(a, s, "pval_pearson"), 4),
    "concepts": (concepts, 8),
    "locality": (locality, 8),
    "similarity": (similarity, 4),
    "same label": (same_label, 10),
    "genes, contrast": (genes, 1),
    "genes, silent cells drawn": (lambda a, s: genes(a, s, n_silent=100, rng=s), 1),
    "genes, correlation": (lambda a, s: genes(a, s, method="correlation"), 1),
    "genes, chosen in other cells": (lambda a, s: genes(a, s, split="cells", holdout=0.5, n_top=50), 3),
    "genes, split by counts": (thinned, 3),
    "gene sets, ulm": (lambda a, s: terms(a, s, "ulm"), 2),
    "gene sets, ranksum": (lambda a, s: terms(a, s, "ranksum"), 2),
    "gene sets, ora": (lambda a, s: terms(a, s, "ora"), 2),
    "gene sets, gsea": (lambda a, s: terms(a, s, "gsea", list(range(12)), n_sets=60), 1),
    "gene sets, ulm, null of genes": (lambda a, s: terms(a, s, "ulm", null="genes"), 2),
    "coherent gene sets, ulm, null of cells": (lambda a, s: coherent_terms(a, s, "ulm"), 2),
    "coherent gene sets, ranksum, null of cells": (lambda a, s: coherent_terms(a, s, "ranksum"), 2),
    "coherent gene sets, ora, null of cells": (lambda a, s: coherent_terms(a, s, "ora"), 2),
    "gene sets of decoded effects": (steered, 16),
    "batches": (batches, 15),
    "batches, held-out cells": (lambda a, s: batches(a, s, "pval_heldout"), 15),
    "pairing": (pairing, 7),
    "differential": (differential, 20),
    "differential, pairs": (lambda a, s: differential(a, s, "pairs"), 20),
    "differential, age in the model": (lambda a, s: differential(a, s, "age"), 20),
}
STEPS = {"gene sets, ora", "coherent gene sets, ora, null of cells", "concepts", "similarity", "same label"}
"""Their p-values move in steps, so that fewer may be at or below .05."""
TAILS = {"association, asymptotic"}
"""Known to be too small far below .05: their level holds, their discoveries do not."""


@pytest.mark.parametrize("name", NULLS)
def test_level(name, pbmc68k_code):
    test, repeats = NULLS[name]
    tables = [test(pbmc68k_code.copy(), seed) for seed in range(repeats)]
    p = np.concatenate([table["pval"].dropna() for table in tables])
    share = (p <= 0.05).mean()
    assert len(p) >= 500
    assert share <= 0.06
    assert share >= (0.005 if name in STEPS else 0.03)
    if name not in TAILS:
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
            ssc.tl.feature_enrichment(adata, net, method=method, null="genes", n_top=None, progress_bar=False)
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
