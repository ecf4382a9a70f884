"""Tests that a user can call, in mixtures where it is known what is to be found: false discoveries, and power.

Levels without anything to be found are in ``test_calibration.py`` and in the tests of the functions, mixtures of gene
sets there, and those of impact and of crosscoders in the tests of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import sparsesc as ssc

type Tested = tuple[np.ndarray, np.ndarray]
"""For each test: adjusted p, and whether there is something to find."""


def cells(codes: np.ndarray, X: np.ndarray | None = None, directions: np.ndarray | None = None, **obs) -> AnnData:
    """A code as it is stored by a fit; `directions` (features x dimensions) are its decoder."""
    n, n_features = codes.shape
    X = np.zeros((n, 1)) if X is None else X
    var = pd.DataFrame(index=[f"G{g}" for g in range(X.shape[1])])
    adata = AnnData(sparse.csr_matrix(X, dtype=np.float32), var=var)
    for name, values in obs.items():
        numbers = np.issubdtype(values.dtype, np.floating)
        adata.obs[name] = values if numbers else pd.Categorical(values.astype(str))
    W = np.eye(n_features) if directions is None else directions
    nothing = np.zeros(n_features)
    sae = ssc.nn.SparseAutoencoder(W.T, nothing, W, np.zeros(W.shape[1]), nothing)
    adata.obsm["X_emb"] = (codes @ W).astype(np.float32)
    ssc.tl.apply_sae(adata, sae, use_rep="X_emb")
    adata.obsm["X_sae"] = sparse.csr_matrix(codes.astype(np.float32))
    table = adata.uns["sae"]["features"]
    table["n_cells"] = (codes > 0).sum(0)
    table["density"], table["dead"] = table["n_cells"] / n, table["n_cells"] == 0
    return adata


def activity(odds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Features that are active with these log odds."""
    return (rng.random(odds.shape) < 1 / (1 + np.exp(-odds))) * rng.gamma(3, size=odds.shape)


def number_of(column: pd.Series) -> np.ndarray:
    return column.astype(str).str.extract(r"(\d+)", expand=False).astype(int).to_numpy()


def first(table: pd.DataFrame, n: int, column: str = "feature") -> Tested:
    """Something is to be found in the first so many features (or genes)."""
    return table["padj"].to_numpy(), number_of(table[column]) < n


# -- mixtures ---------------------------------------------------------------------------------------------------------


def labeled(rng: np.random.Generator) -> AnnData:
    """Thirty features, of which the first ten know the label and the number."""
    label = rng.integers(0, 3, 900)
    odds = np.full((900, 30), -1.5)
    odds[:, :10] += np.where(label[:, None] == np.arange(10) % 3, 1.5, 0)
    codes = activity(odds, rng)
    return cells(codes, label=label, number=0.3 * codes[:, :10].sum(1) + rng.gamma(2, size=900))


def association(rng: np.random.Generator) -> Tested:
    adata = labeled(rng)
    ssc.tl.feature_association(adata, "label")
    return first(adata.uns["sae"]["association"], 10)


def numbers(rng: np.random.Generator) -> Tested:
    adata = labeled(rng)
    ssc.tl.feature_association(adata, "number")
    return first(adata.uns["sae"]["association_numeric"], 10)


def locality(rng: np.random.Generator) -> Tested:
    adata = labeled(rng)
    ssc.tl.feature_locality(adata, "label")
    return first(adata.uns["sae"]["locality"], 10)


def concepts(rng: np.random.Generator) -> Tested:
    adata = labeled(rng)
    ssc.tl.annotate_features(adata, label_keys="label")
    table = adata.uns["sae"]["annotation"]
    return first(table[table["source"] == "label"], 10)


def differential(rng: np.random.Generator) -> Tested:
    """Twelve samples that differ in all features, of two conditions that differ in eight."""
    sample = np.arange(720) % 12
    condition = (rng.permutation(12) % 2)[sample]
    odds = -1.6 + rng.normal(scale=0.5, size=(12, 30))[sample]
    odds[:, :8] += 1.5 * condition[:, None]
    adata = cells(activity(odds, rng), sample=sample, condition=condition)
    ssc.tl.differential_features(adata, "condition", sample_key="sample")
    return first(adata.uns["sae"]["differential"], 8)


def genes(rng: np.random.Generator, *, samples: bool = False, **options) -> Tested:
    """Eight features with ten genes each that are higher where they are active; samples differ in all genes."""
    sample = np.arange(600) % 8
    codes = activity(np.full((600, 15), -1.5), rng)
    rate = np.exp(rng.normal(-0.5, 1, 150)) * rng.gamma(4, 0.25, size=(600, 1))
    if samples:
        rate = rate * np.exp(rng.normal(scale=0.3, size=(8, 150)))[sample]
        options["sample_key"] = "sample"
    planted = np.zeros((15, 150), bool)
    for f in range(8):
        planted[f, rng.choice(150, 10, replace=False)] = True
        rate[np.ix_(codes[:, f] > 0, planted[f])] *= 3
    adata = cells(codes, np.log1p(rng.poisson(rate)), sample=sample)
    few = {"n_top": None, "direction": "both", "quantile": 0.0, "store": False, "progress_bar": False}
    ssc.tl.feature_genes(adata, **few, **options)
    table = adata.uns["sae"]["genes"]
    return table["padj"].to_numpy(), planted[number_of(table["feature"]), number_of(table["gene"])]


def similarity(rng: np.random.Generator) -> Tested:
    """Eight pairs of features of which the second is more often active where the first is."""
    codes = activity(np.full((900, 30), -2.0), rng)
    for f in range(0, 16, 2):
        together = (codes[:, f] > 0) & (rng.random(900) < 0.4)
        codes[together, f + 1] = rng.gamma(3, size=together.sum())
    adata = cells(codes)
    ssc.tl.feature_similarity(adata, n_neighbors=29, n_genes=0)
    table = adata.uns["sae"]["similarity"]
    one, two = number_of(table["feature"]), number_of(table["neighbor"])
    pairs = (one // 2 == two // 2) & (one < 16)
    return table["padj"].to_numpy()[one < two], pairs[one < two]


def of_one_label(rng: np.random.Generator, X: np.ndarray | None = None) -> AnnData:
    """Eight features of each of four labels, active in half of its cells, of which two are so in the same ones."""
    label = np.arange(1000) % 4
    codes = activity(np.where(label[:, None] == np.arange(32) % 4, 0.0, -4.0), rng)
    for f in range(4):
        together = (label == f) & (rng.random(1000) < 0.5)
        codes[together, f + 4] = codes[together, f]
    adata = cells(codes, X, label=label)
    ssc.tl.feature_association(adata, "label")
    return adata


def same_label(rng: np.random.Generator) -> Tested:
    adata = of_one_label(rng)
    ssc.tl.feature_similarity(adata, n_genes=0)
    table = adata.uns["sae"]["same_label"]
    one, two = number_of(table["feature"]), number_of(table["neighbor"])
    return table["padj"].to_numpy(), (np.minimum(one, two) < 4) & (np.abs(one - two) == 4)


def absorption(rng: np.random.Generator) -> Tested:
    """Detectors of twelve labels miss a tenth of their cells: by chance, or (four) because another feature has them."""
    n, n_labels = 150, 12
    label = np.repeat(np.arange(n_labels), n)
    codes = np.where(rng.random((len(label), 4 * n_labels)) < 0.01, 0.2, 0.0)
    codes[:, : 2 * n_labels] = 0
    for t in range(n_labels):
        of_label = np.flatnonzero(label == t)
        missed, others = rng.permutation(of_label).reshape(-1, 15)[:2]
        codes[of_label, 2 * t] = rng.uniform(1, 2, n)
        codes[missed, 2 * t] = 0
        codes[missed if t < 4 else others, 2 * t + 1] = rng.uniform(0.5, 1, 15)
    directions = np.vstack([np.repeat(np.eye(n_labels), 2, axis=0), rng.normal(size=(2 * n_labels, n_labels))])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    adata = cells(codes, directions=directions, label=label)
    ssc.tl.feature_absorption(adata, "label", min_gain=0.1)
    return first(adata.uns["sae"]["absorption"], 4, "category")


def of_query(rng: np.random.Generator, *, changed: int = 0, strangers: int = 0) -> AnnData:
    """Six samples beside six others: some features are more frequent, or some cells of an unknown kind."""
    sample = np.arange(720) % 12
    odds = -1.6 + rng.normal(scale=0.4, size=(12, 30))[sample]
    odds[sample >= 6, :changed] += 1.5
    codes = activity(odds, rng)
    X = codes + rng.normal(scale=0.3, size=codes.shape)
    adata = cells(codes, sample=sample)
    adata.obsm["X_emb"] = X.astype(np.float32)
    control, query = (adata[part].copy() for part in (sample < 6, sample >= 6))
    query.obsm["X_emb"][:strangers] -= 0.6  # a way that no feature points
    one, nothing = np.eye(30), np.zeros(30)
    sae = ssc.nn.SparseAutoencoder(one, nothing, one, nothing, np.full(30, 0.8), metadata={"use_rep": "X_emb"})
    ssc.tl.apply_sae(query, sae, control=control, sample_key="sample")
    return query


def drift(rng: np.random.Generator) -> Tested:
    return first(of_query(rng, changed=8).uns["sae"]["drift"], 8)


def left_over(rng: np.random.Generator) -> Tested:
    """Residuals of cells have no adjusted p of their own: it is made here."""
    query = of_query(rng, strangers=60)
    return ssc.stats.benjamini_hochberg(query.obs["sae_residual_pval"].to_numpy()), np.arange(query.n_obs) < 60


def batches(rng: np.random.Generator) -> Tested:
    """Batches with other shares of the labels; eight of thirty features also know the batch."""
    label = rng.integers(0, 3, 800)
    batch = (rng.random(800) < np.array([0.25, 0.5, 0.75])[label]).astype(int)
    odds = -1.5 + rng.normal(size=(3, 30))[label]
    odds[:, :8] += 1.5 * batch[:, None]
    adata = cells(activity(odds, rng), label=label, batch=batch)
    few = {"n_permutations": 39, "n_controls": 0, "n_scored": 100, "progress_bar": False}
    ssc.tl.suppress_features(adata, batch_key="batch", bio_keys="label", bio_margin=0, **few)
    return first(adata.uns["sae"]["suppression"]["features"], 8)


class Positions:
    """A model that does nothing, for tests of what its latent dimensions hold."""

    def project(self, adata: AnnData) -> np.ndarray:
        return adata.obsm["X_own"]

    def get_log_likelihood(self, adata: AnnData, *, latent: np.ndarray) -> np.ndarray:
        return np.zeros(len(latent))


def latents(rng: np.random.Generator) -> Tested:
    """Twenty samples differ in 60 dimensions, and their conditions in twelve of these."""
    sample = np.repeat(np.arange(20), 15)
    condition = rng.permutation(np.arange(20) % 2)[sample]
    Z = rng.normal(size=(300, 60)) + rng.normal(size=(20, 60))[sample]
    Z[:, :12] += 2.5 * condition[:, None]
    adata = cells(np.ones((300, 1)), sample=sample, condition=condition)
    adata.obsm["X_own"] = Z
    options = {"n_permutations": 399, "sample_key": "sample", "progress_bar": False}
    ssc.tl.latent_diagnostics(adata, Positions(), "condition", **options)
    return first(adata.uns["latent_diagnostics"]["dependence"], 12, "dimension")


def counts(rng: np.random.Generator, family: str) -> Tested:
    """A quarter of 80 genes is overdispersed, or has excess zeros beyond the overdispersion of all."""
    rate = np.exp(rng.normal(0.3, 0.7, 80)) * rng.gamma(8, 1 / 8, size=(400, 1))
    if family == "zinb":
        rate = rate * rng.gamma(3, 1 / 3, size=rate.shape)
        rate[:, :20] *= rng.random((400, 20)) < 0.6
    else:
        rate[:, :20] *= rng.gamma(3, 1 / 3, size=(400, 20))
    adata = cells(np.ones((400, 1)), rng.poisson(rate))
    ssc.tl.count_diagnostics(adata, progress_bar=False)
    table = adata.uns["count_diagnostics"]["genes"]
    return table[f"padj_{family}"].to_numpy(), number_of(table.index.to_series()) < 20


def steering(rng: np.random.Generator) -> Tested:
    """A feature moves cells along loadings drawn by lot; half of the genes of six sets in 40 have larger ones."""
    weights = rng.standard_t(5, size=(300, 4))
    names = np.array([f"G{g}" for g in range(300)])
    net = {f"set {i}": list(rng.choice(names, 20, replace=False)) for i in range(40)}
    for i in range(6):
        weights[[int(name[1:]) for name in net[f"set {i}"][:10]], 0] -= 3
    adata = cells(activity(np.full((40, 4), 0.0), rng), np.ones((40, 300)))
    few = {"doses": (1.0,), "n_controls": 1, "n_scored": 20, "decoder": pd.DataFrame(weights, index=names)}
    ssc.tl.steer(adata, "sae_0", mode="ablate", net=net, **few)
    return first(adata.uns["sae"]["steering"]["enrichment"], 6, "term")


@dataclass(frozen=True)
class Mixture:
    """Draws with something to find, how many, and the share of it that should be found."""

    test: Callable[[np.random.Generator], Tested]
    n: int
    power: float


MIXTURES = {
    "association": Mixture(association, 8, 0.9),
    "numbers": Mixture(numbers, 8, 0.9),
    "locality": Mixture(locality, 8, 0.9),
    "concepts": Mixture(concepts, 8, 0.9),
    "differential": Mixture(differential, 12, 0.8),
    "genes, contrast": Mixture(genes, 6, 0.9),
    "genes, correlation": Mixture(lambda rng: genes(rng, method="correlation"), 6, 0.85),
    "genes, samples": Mixture(lambda rng: genes(rng, samples=True), 6, 0.7),
    "similarity": Mixture(similarity, 8, 0.9),
    "same label": Mixture(same_label, 6, 0.9),
    "absorption": Mixture(absorption, 3, 0.9),
    "drift": Mixture(drift, 8, 0.85),
    "left over": Mixture(left_over, 5, 0.9),
    "batches": Mixture(batches, 4, 0.6),
    "latent dimensions": Mixture(latents, 6, 0.85),
    "counts, overdispersion": Mixture(lambda rng: counts(rng, "nb"), 4, 0.7),
    "counts, excess zeros": Mixture(lambda rng: counts(rng, "zinb"), 4, 0.25),
    "steering": Mixture(steering, 12, 0.6),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_false_discoveries_and_power(name):
    """Nominal is .05; two points more for what few draws leave open."""
    mixture = MIXTURES[name]
    false, power = [], []
    for seed in range(mixture.n):
        padj, true = mixture.test(np.random.default_rng([7, seed]))
        found = padj < 0.05
        false.append((found & ~true).sum() / max(found.sum(), 1))
        power.append(found[true].mean())
    assert np.mean(false) <= 0.07
    assert np.mean(power) >= mixture.power


def test_level_of_what_is_left_over_of_cells():
    shares = [(of_query(np.random.default_rng([8, i])).obs["sae_residual_pval"] <= 0.05).mean() for i in range(20)]
    assert 0.03 <= np.mean(shares) <= 0.06


def test_genes_of_pairs_of_one_label():
    """Nothing is listed for features that go with no gene, and little else than what was planted."""
    nothing, false, found = [], [], 0
    for seed in range(3):
        rng = np.random.default_rng([9, seed])
        adata = of_one_label(rng)
        rate = np.exp(rng.normal(-0.5, 1, 120)) * rng.gamma(4, 0.25, size=(1000, 1))
        planted = {f"sae_{f}": {f"G{g}" for g in range(10 * f, 10 * f + 10)} for f in range(8, 12)}
        for changed in (False, True):
            if changed:
                for f in range(8, 12):
                    active = adata.obsm["X_sae"][:, f].toarray().ravel() > 0
                    rate[np.ix_(active, range(10 * f, 10 * f + 10))] *= 4
            expressed = AnnData(
                sparse.csr_matrix(np.log1p(rng.poisson(rate)), dtype=np.float32),
                obs=adata.obs,
                var=pd.DataFrame(index=[f"G{g}" for g in range(120)]),
                uns=adata.uns,
                obsm=adata.obsm,
            )
            ssc.tl.feature_similarity(expressed, n_genes=50)  # all that are significant
            table = expressed.uns["sae"]["same_label"]
            listed = [
                (feature, gene)
                for one, names in (("feature", "genes"), ("neighbor", "neighbor_genes"))
                for feature, text in zip(table[one], table[names], strict=True)
                for gene in text.split(",")
                if gene
            ]
            if changed:
                true = [gene in planted.get(feature, ()) for feature, gene in listed]
                false.append(1 - np.mean(true))
                found += len(set(listed))
            else:
                nothing.append(len(listed) > 0)
    assert not any(nothing)
    assert np.mean(false) <= 0.07
    assert found >= 60
