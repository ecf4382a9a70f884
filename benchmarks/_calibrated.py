"""The tests that ``benchmarks/calibration.py`` looks at, called as users call them, and the data sets for each.

A test is added by one entry of ``TESTS``. ``FAMILIES`` names data sets without and with something to find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

import numpy as np
import pandas as pd
from anndata import AnnData

import sparsesc as ssc
from benchmarks._known_truth import (
    FEATURES,
    Draw,
    batches,
    circular,
    coactive,
    decoded,
    detectors,
    donors,
    gene_counts,
    latents,
    loadings,
    numbers_of_features,
    of_one_label,
    simulated,
    strangers,
    unpaired,
)
from benchmarks._labels_of_donors import labels_of_donors
from benchmarks._real_cells import (
    cells_alike,
    coherent_sets,
    five_samples,
    go_sets,
    highly_expressed_sets,
    meaningless_labels,
    meaningless_numbers,
    permuted_genes,
    random_sets,
    shuffled_cells,
)
from sparsesc.tl.labels import _evidence


@dataclass(frozen=True)
class Family:
    """Data sets of one kind, and how many of them."""

    null: Callable[[np.random.Generator], Draw]
    """Nothing is to be found."""
    n_permutations: int
    mixture: Callable[[np.random.Generator], Draw] | None = None
    """Something is, and it is known what."""
    n_mixture: int = 20
    needs_data: bool = False
    """Whether it reads cells or gene sets that do not come with the dependencies."""


def _samples(design: str, n_permutations: int, changed: int = 10) -> Family:
    return Family(
        lambda rng: donors(rng, design), n_permutations, lambda rng: donors(rng, design, changed=changed), 100
    )


def _programs(rng: np.random.Generator) -> Draw:
    """Ten of the features raise 20 genes each: these are to be found as features whose genes vary together."""
    draw = simulated(rng, genes=10)
    draw.truth = {feature for feature, _ in draw.truth}
    return draw


def _donors(shuffled: bool) -> Family:
    return Family(
        lambda rng: labels_of_donors(rng, shuffled=shuffled),
        125 if shuffled else 250,
        lambda rng: labels_of_donors(rng, shuffled=shuffled, changed=10),
        50,
    )


FAMILIES: dict[str, Family] = {
    "labels": Family(shuffled_cells, 50, lambda rng: simulated(rng, labels=10)),
    "labels, best of many": Family(shuffled_cells, 320, lambda rng: simulated(rng, labels=10)),
    "labels, all features together": Family(meaningless_labels, 230),
    "categories": Family(lambda rng: detectors(rng, n_labels=40), 500, lambda rng: detectors(rng, absorbed=4)),
    "pairs of features": Family(shuffled_cells, 22, coactive),
    "pairs of features of a label": Family(of_one_label, 150, lambda rng: of_one_label(rng, related=True)),
    "numbers": Family(meaningless_numbers, 64, numbers_of_features),
    "genes": Family(shuffled_cells, 40, lambda rng: simulated(rng, genes=10), 30),
    "genes, five samples": Family(five_samples, 20),
    "effects of features": Family(random_sets, 18, decoded),
    "random gene sets": Family(random_sets, 40, lambda rng: simulated(rng, genes=20, sets=True)),
    "gene sets that vary together": Family(
        coherent_sets, 40, lambda rng: simulated(rng, genes=20, sets=True, modules=10), 60
    ),
    "sets of highly expressed genes": Family(
        highly_expressed_sets, 40, lambda rng: simulated(rng, genes=20, sets=True)
    ),
    "permuted genes": Family(permuted_genes, 20, _programs),
    "cells alike, real depths": Family(lambda rng: cells_alike(rng, depth="real"), 10, needs_data=True),
    "cells alike, depths of sd 1": Family(lambda rng: cells_alike(rng, depth="wide"), 10),
    "GO sets": Family(go_sets, 3, needs_data=True),
    "samples that differ": _samples("groups", 250),
    "2 against 2 samples": _samples("two", 250),
    "3 against 3 samples": _samples("few", 250),
    "three conditions": _samples("three", 125),
    "both conditions in each sample": _samples("pairs", 250),
    "samples of other ages": _samples("age", 250),
    "samples with two cell types": _samples("types", 125),
    "samples with other shares of types": _samples("shift", 250),
    "types shuffled within donors": _donors(True),
    "labels whose shares differ by donor": _donors(False),
    "cells of samples that differ": Family(lambda rng: donors(rng, "groups"), 50, strangers),
    "samples that differ, genes": Family(
        lambda rng: simulated(rng, samples=True), 40, lambda rng: simulated(rng, genes=10, samples=True), 30
    ),
    "batches": Family(lambda rng: batches(rng, n_features=200), 100, lambda rng: batches(rng, changed=10), 10),
    "loadings": Family(loadings, 10, lambda rng: loadings(rng, planted=20), 40),
    "loadings of samples": Family(
        lambda rng: loadings(rng, samples=True), 10, lambda rng: loadings(rng, samples=True, changed=10), 10
    ),
    "embeddings without relation": Family(unpaired, 100),
    "latent dimensions": Family(latents, 100, lambda rng: latents(rng, changed=20)),
    "Poisson counts": Family(
        lambda rng: gene_counts(rng, alike="poisson"), 100, lambda rng: gene_counts(rng, alike="poisson", other=40)
    ),
    "NB counts": Family(
        lambda rng: gene_counts(rng, alike="nb"), 100, lambda rng: gene_counts(rng, alike="nb", other=40)
    ),
    "features of the counts tested": Family(circular, 40, lambda rng: circular(rng, genes=20), 30),
}


@dataclass(frozen=True)
class Test:
    """A test: which data sets it is tried on, and how it is called."""

    family: str
    run: Callable[[Draw], pd.DataFrame]
    """Gives `feature`, `target`, `pval` and, unless it is Benjamini-Hochberg of all rows, `padj`; `call`, if many."""
    holds: bool = True
    """Whether it is meant to hold its level in this family; others are shown because people use them."""
    share: float = 1.0
    """Of the data sets of the family: fewer where it is slow, more where each has few p-values."""
    mixtures: bool = True
    """Whether the mixtures of the family have something to find for it."""


# -- the tests --------------------------------------------------------------------------------------------------------


def label_of(draw: Draw) -> str:
    return "label" if "label" in draw.adata.obs else "bulk_labels"


def association(draw: Draw, column: str = "", **options: str) -> pd.DataFrame:
    ssc.tl.feature_association(draw.adata, column or label_of(draw), **options)
    return draw.adata.uns["sae"]["association"].rename(columns={"category": "target"})


def numeric(draw: Draw, pval: str) -> pd.DataFrame:
    ssc.tl.feature_association(draw.adata, [c for c in draw.adata.obs if c.startswith("number")])
    table = draw.adata.uns["sae"]["association_numeric"]
    return pd.DataFrame({"feature": table["feature"], "target": "number", "pval": table[pval]})


def label_names(draw: Draw) -> pd.DataFrame:
    with patch.object(_evidence, "smooth_null", partial(_evidence.smooth_null, n_draws=1)):  # no part of these p-values
        ssc.tl.annotate_features(draw.adata, label_keys=label_of(draw))
    table = draw.adata.uns["sae"]["annotation"]
    return table[table["source"] == "label"].rename(columns={"evidence": "target"})


def genes(draw: Draw, *, key: str = "sae", **options: object) -> pd.DataFrame:
    keep = {"n_top": None, "direction": "both", "store": False, "progress_bar": False}  # all tests, not the best
    ssc.tl.feature_genes(draw.adata, key=key, **(keep | options))
    return draw.adata.uns[key]["genes"].rename(columns={"gene": "target"})


def coherence(draw: Draw) -> pd.DataFrame:
    """Whether the best genes of a feature vary together."""
    ssc.tl.feature_genes(draw.adata, progress_bar=False)
    table = draw.adata.uns["sae"]["features"].rename(columns={"genes_coherence_pval": "pval"})
    return table.dropna(subset="pval").rename_axis("feature").reset_index().assign(target="coherence")


def terms(draw: Draw, method: str = "ulm", **options: object) -> pd.DataFrame:
    keep = {"n_top": None, "min_size": 5, "progress_bar": False, "rng": draw.seed}
    ssc.tl.feature_enrichment(draw.adata, draw.net, method=method, **(keep | options))
    return draw.adata.uns["sae"]["enrichment"].rename(columns={"term": "target"})


def steered(draw: Draw) -> pd.DataFrame:
    """Gene sets of what a decoder makes of a feature, one feature at a time."""
    tables = []
    for feature in draw.adata.uns["sae"]["features"].index[:32]:
        few = {"doses": (1.0,), "n_controls": 1, "n_scored": 50}
        ssc.tl.steer(draw.adata, feature, mode="ablate", net=draw.net, **few)
        found = draw.adata.uns["sae"]["steering"]["enrichment"].rename(columns={"term": "target"})
        tables.append(found.assign(feature=feature, call=feature))
    return pd.concat(tables)


def locality(draw: Draw) -> pd.DataFrame:
    ssc.tl.feature_locality(draw.adata, label_of(draw))
    return draw.adata.uns["sae"]["locality"].rename(columns={"category": "target"})


def absorption(draw: Draw) -> pd.DataFrame:
    # by default, a feature that takes a tenth of a label over is called a part of it
    ssc.tl.feature_absorption(draw.adata, "label", min_gain=0.1)
    table = draw.adata.uns["sae"]["absorption"].rename(columns={"category": "target"})
    return table.assign(feature="all")


def representations(draw: Draw) -> pd.DataFrame:
    codes = draw.adata.obsm["X_sae"]
    labels = [c for c in draw.adata.obs if c.startswith("label ")]
    options = {"n_permutations": 19, "progress_bar": False, "rng": draw.seed}
    found = ssc.tl.compare_representations(draw.adata, {"some": codes[:, :16]}, labels, **options)
    steps = found["metric"].astype(str).str.startswith(("singular", "coverage"))  # scores with few values
    copies = found["metric"].astype(str).str.endswith("_distinct")
    found = found[~steps & ~copies]
    return found.assign(
        feature=found["representation"].astype(str) + found["label_key"].astype(str), target=found["metric"]
    )


def coactivation(draw: Draw) -> pd.DataFrame:
    ssc.tl.feature_similarity(draw.adata, n_neighbors=100, n_genes=0)
    table = draw.adata.uns["sae"]["similarity"].rename(columns={"neighbor": "target"})
    return table[table["feature"].astype(str) < table["target"].astype(str)]  # each pair once


def within_label(draw: Draw) -> pd.DataFrame:
    ssc.tl.feature_similarity(draw.adata, n_genes=0)
    table = draw.adata.uns["sae"]["same_label"]
    pairs = np.sort(table[["feature", "neighbor"]].to_numpy(dtype=object), axis=1)
    return table.assign(feature=pairs[:, 0], target=pairs[:, 1])


def differential(draw: Draw, **options: object) -> pd.DataFrame:
    ssc.tl.differential_features(draw.adata, "condition", sample_key="sample", **options)
    return draw.adata.uns["sae"]["differential"].rename(columns={"measure": "target"})


def about_batches(draw: Draw, *, held_out: bool = False) -> pd.DataFrame:
    few = {"n_permutations": 39, "n_controls": 1, "n_scored": 200, "progress_bar": False}
    ssc.tl.suppress_features(draw.adata, batch_key="batch", bio_keys="label", bio_margin=0, **few)
    table = draw.adata.uns["sae"]["suppression"]["features"].assign(target="batch")
    if held_out:  # nothing adjusts these: they are looked at for features that were chosen
        table = table.drop(columns=["pval", "padj"]).rename(columns={"pval_heldout": "pval"})
    return table.dropna(subset="pval")


class Positions:
    """A model that does nothing, for tests of what its latent dimensions hold."""

    def project(self, adata: object) -> np.ndarray:
        return adata.obsm["X_own"]

    def get_log_likelihood(self, adata: object, *, latent: np.ndarray) -> np.ndarray:
        return np.zeros(len(latent))


def impact(draw: Draw, contrast: bool) -> pd.DataFrame:
    options = {"n_permutations": 200, "progress_bar": False}
    if contrast:
        options |= {"n_permutations": 100, "groupby": "condition", "sample_key": "sample"}
    ssc.tl.geneset_impact(draw.adata, draw.net, **options)
    table = ssc.get.geneset_impact(draw.adata, table="contrast" if contrast else "impact")
    return table.rename(columns={"unit": "feature", "term": "target"})


def reference_and_query(draw: Draw) -> AnnData:
    """The second condition compared with the first one, in a code whose features are the dimensions of the cells."""
    adata = draw.adata
    one, nothing, threshold = np.eye(FEATURES), np.zeros(FEATURES), np.full(FEATURES, 0.8)
    sae = ssc.nn.SparseAutoencoder(one, nothing, one, nothing, threshold, metadata={"use_rep": "X_pca"})
    of_query = (adata.obs["condition"] == adata.obs["condition"].cat.categories[1]).to_numpy()
    query, control = adata[of_query].copy(), adata[~of_query].copy()
    ssc.tl.apply_sae(query, sae, control=control, sample_key="sample")
    return query


def drift(draw: Draw) -> pd.DataFrame:
    return reference_and_query(draw).uns["sae"]["drift"].assign(target="query")


def left_over(draw: Draw) -> pd.DataFrame:
    query = reference_and_query(draw)
    return pd.DataFrame({"feature": "all", "target": query.obs_names, "pval": query.obs["sae_residual_pval"]})


def pairing(draw: Draw) -> pd.DataFrame:
    few = {"n_features": 256, "k": 16, "max_steps": 30, "validation": 0.5, "n_controls": 0, "progress_bar": False}
    ssc.tl.fit_crosscoder(draw.adata, use_reps=["X_a", "X_b"], **few)
    table = draw.adata.uns["sae"]["features"].dropna(subset="pairing_pval").reset_index(names="feature")
    return table.rename(columns={"pairing_pval": "pval", "pairing_padj": "padj"}).assign(target="pairing")


def dependence(draw: Draw, sample_key: str | None) -> pd.DataFrame:
    options = {"n_permutations": 399, "progress_bar": False, "sample_key": sample_key}
    ssc.tl.latent_diagnostics(draw.adata, Positions(), "condition", **options)
    table = draw.adata.uns["latent_diagnostics"]["dependence"]
    return table.rename(columns={"dimension": "feature", "key": "target"})


def count_families(draw: Draw, against: str) -> pd.DataFrame:
    ssc.tl.count_diagnostics(draw.adata, progress_bar=False)
    table = draw.adata.uns["count_diagnostics"]["genes"]
    found = {
        "feature": "all",
        "target": table.index,
        "pval": table[f"pval_{against}"],
        "padj": table[f"padj_{against}"],
    }
    return pd.DataFrame(found)


def half_of_two_sided(draw: Draw) -> pd.DataFrame:
    """Mann-Whitney of gene sets as scFeatureLens publishes it: half the two-sided p, and no correction over tests."""
    table = terms(draw, "ranksum", null="genes")
    return table.assign(pval=table["pval"] / 2, padj=table["pval"] / 2)


def _rows() -> dict[str, Test]:
    together = "gene sets that vary together"
    own = "features of the counts tested"
    differ = "samples that differ"
    tests = {
        "association: Mann-Whitney (AUROC), default": Test("labels", association),
        "association: Mann-Whitney, permutation": Test("labels", lambda d: association(d, pvalues="permutation")),
        "association: Mann-Whitney, asymptotic": Test("labels", lambda d: association(d, pvalues="asymptotic"), False),
        "association: Spearman, default": Test("numbers", lambda d: numeric(d, "pval")),
        "association: Pearson, default": Test("numbers", lambda d: numeric(d, "pval_pearson")),
        "association: Spearman, asymptotic": Test("numbers", lambda d: numeric(d, "pval_asymptotic"), False),
        "association: Pearson, asymptotic": Test("numbers", lambda d: numeric(d, "pval_pearson_asymptotic"), False),
        "annotation: labels on held-out cells": Test("labels, best of many", label_names),
        "locality: Mann-Whitney": Test("labels", locality),
        "absorption: missed and absorbed cells": Test("categories", absorption),
        "similarity: co-activation": Test("pairs of features", coactivation),
        "similarity: co-activation within a label": Test("pairs of features of a label", within_label),
        "representations: 19 permutations": Test("labels, all features together", representations),
        "genes: contrast, default": Test("genes", genes),
        "genes: contrast, 100 silent cells drawn": Test("genes", lambda d: genes(d, n_silent=100)),
        "genes: contrast, Welch's t": Test("genes", lambda d: genes(d, pvalues="parametric"), False),
        "genes: correlation, default": Test("genes", lambda d: genes(d, method="correlation")),
        "genes: correlation, t": Test("genes", lambda d: genes(d, method="correlation", pvalues="parametric"), False),
        "genes: 50 chosen in half of the cells, tested in others": Test(
            "genes", lambda d: genes(d, split="cells", holdout=0.5, n_top=50)
        ),
        "genes: split by counts": Test(own, lambda d: genes(d, key="thinned", split="counts")),
        "genes: split by counts, samples as replicates": Test(
            own, lambda d: genes(d, key="thinned", split="counts", sample_key="sample", quantile=0.0)
        ),
        "genes: split by cells": Test(own, lambda d: genes(d, layer="log", split="cells", holdout=0.5), False),
        "genes: all cells choose and test": Test(own, lambda d: genes(d, layer="log"), False),
        "genes: samples as replicates": Test(
            "samples that differ, genes", lambda d: genes(d, quantile=0.0, sample_key="sample")
        ),
        "genes: samples as replicates, real cells": Test(
            "genes, five samples", lambda d: genes(d, sample_key="sample")
        ),
        "genes: samples as replicates, plain t, real cells": Test(
            "genes, five samples", lambda d: genes(d, sample_key="sample", skew_guard=0), False
        ),
        "genes: cells as replicates": Test("samples that differ, genes", lambda d: genes(d, quantile=0.0), False),
        "gene sets: steering, ulm": Test("effects of features", steered),
        "scFeatureLens' Mann-Whitney, as published": Test("random gene sets", half_of_two_sided, False),
        "gene sets: ulm, t": Test("random gene sets", lambda d: terms(d, pvalues="parametric", null="genes"), False),
    }
    alike = {"cells alike, real depths": "real depths", "cells alike, depths of sd 1": "depths of sd 1"}
    for family, short in alike.items():
        tests[f"genes: split by counts, {short}"] = Test(family, lambda d: genes(d, split="counts"))
        tests[f"genes: split by counts, correlation, {short}"] = Test(
            family, lambda d: genes(d, split="counts", method="correlation")
        )
        tests[f"genes: split by counts, log-normalized, {short}"] = Test(
            family, lambda d: genes(d, split="counts", layer="log_thin_test"), False
        )
        tests[f"genes: coherence, {short}"] = Test(family, coherence)
    tests["genes: coherence, default"] = Test("permuted genes", coherence)
    # Random sets are what tests that shuffle genes are made for; sets of real genes vary together, and highly expressed
    # ones have scores of their own.
    high = "sets of highly expressed genes"
    for method in ("ulm", "ranksum", "ora"):
        name = f"gene sets: {method}"
        tests[f"{name}, default"] = Test("random gene sets", lambda d, m=method: terms(d, m))
        tests[f"{name}, default, coherent sets"] = Test(together, lambda d, m=method: terms(d, m))
        tests[f"{name}, default, highly expressed sets"] = Test(high, lambda d, m=method: terms(d, m))
        tests[f"{name}, null of expression, coherent sets"] = Test(
            together, lambda d, m=method: terms(d, m, null="expression"), False
        )
        tests[f"{name}, null of genes"] = Test("random gene sets", lambda d, m=method: terms(d, m, null="genes"))
        tests[f"{name}, null of genes, coherent sets"] = Test(
            together, lambda d, m=method: terms(d, m, null="genes"), False
        )
        tests[f"{name}, null of genes, highly expressed sets"] = Test(
            high, lambda d, m=method: terms(d, m, null="genes"), False
        )
    tests["gene sets: gsea, default"] = Test("random gene sets", lambda d: terms(d, "gsea"), share=0.2)  # slow
    tests["gene sets: ulm, default, GO sets"] = Test("GO sets", terms)
    tests["gene sets: ulm, null of genes, GO sets"] = Test("GO sets", lambda d: terms(d, null="genes"), False)
    for labels in ("types shuffled within donors", "labels whose shares differ by donor"):
        tests[f"association: within donors, {labels}"] = Test(labels, lambda d: association(d, strata="sample"))
        tests[f"association: donors as replicates, {labels}"] = Test(
            labels, lambda d: association(d, sample_key="sample")
        )
        tests[f"association: all cells together, {labels}"] = Test(labels, association, False)
    designs = {
        differ: {},
        "2 against 2 samples": {},
        "3 against 3 samples": {},
        "three conditions": {},
        "both conditions in each sample": {},
        "samples of other ages": {"covariates": "age"},
        "samples with two cell types": {"groupby": "type"},
        "samples with other shares of types": {"groupby": "type"},
    }
    for design, options in designs.items():
        tests[f"conditions: {design}"] = Test(design, lambda d, o=options: differential(d, **o))
    tests["batches: information of features, 39 permutations"] = Test("batches", about_batches)
    tests["batches: information in held-out cells, 39 permutations"] = Test(
        "batches", lambda d: about_batches(d, held_out=True), mixtures=False
    )
    tests["drift: features, samples as replicates"] = Test(differ, drift, share=2)
    tests["drift: what is left over of a cell"] = Test("cells of samples that differ", left_over)
    tests["impact of gene sets on units: random sets"] = Test("loadings", lambda d: impact(d, contrast=False))
    tests["impact of gene sets on units: conditions"] = Test("loadings of samples", lambda d: impact(d, contrast=True))
    tests["crosscoder: pairing of features"] = Test("embeddings without relation", pairing)
    tests["latent dimensions: samples as units"] = Test("latent dimensions", lambda d: dependence(d, "sample"))
    tests["latent dimensions: cells as units"] = Test("latent dimensions", lambda d: dependence(d, None), False)
    tests["counts: overdispersion"] = Test("Poisson counts", lambda d: count_families(d, "nb"))
    tests["counts: excess zeros"] = Test("NB counts", lambda d: count_families(d, "zinb"))
    tests["conditions: plain t"] = Test(differ, lambda d: differential(d, moderate=False))
    tests["conditions: plain t, 3 against 3"] = Test("3 against 3 samples", lambda d: differential(d, moderate=False))
    tests["conditions: plain t, 2 against 2"] = Test("2 against 2 samples", lambda d: differential(d, moderate=False))
    tests["conditions: types taken together"] = Test("samples with other shares of types", differential, False)
    tests["conditions: ages left out"] = Test("samples of other ages", differential, False)
    tests["conditions: cells as replicates"] = Test(differ, lambda d: association(d, "condition"), False)
    return tests


TESTS = _rows()
