"""Simulated cells in which nothing is to be found, or in which it is known what: for ``benchmarks/calibration.py``."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy import sparse

import sparsesc as ssc
from sparsesc.door._slots import feature_table

CELLS, GENES, FEATURES, LABELS, SAMPLES = 1200, 500, 40, 5, 12


@dataclass
class Draw:
    """One data set; `truth` holds the pairs (feature, target), features or targets that have something to find."""

    adata: AnnData
    net: dict[str, list[str]] = field(default_factory=dict)
    truth: set = field(default_factory=set)
    seed: int = 0
    """For tests that draw."""


def with_codes(
    adata: AnnData, codes: sparse.spmatrix, key: str = "sae", directions: np.ndarray | None = None
) -> AnnData:
    """Store a code as a fitted one; `directions` (features x dimensions) are its decoder."""
    codes = sparse.csr_matrix(codes, dtype=np.float32)
    codes.sort_indices()
    adata.obsm[f"X_{key}"] = codes
    names = [f"{key}_{i}" for i in range(codes.shape[1])]
    decoder = np.eye(codes.shape[1]) if directions is None else directions
    weights = {"W_dec": decoder, "W_enc": decoder.T}
    weights |= {
        "b_dec": np.zeros(decoder.shape[1]),
        "b_enc": np.zeros(len(decoder)),
        "threshold": np.zeros(len(decoder)),
    }
    weights = {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}
    adata.uns[key] = {
        "params": {"use_rep": "X_pca", "architecture": "topk", "k": 8, "n_features": codes.shape[1]},
        "weights": weights,
        "features": feature_table(codes, names),
    }
    return adata


def top_projections(X: np.ndarray, directions: np.ndarray, k: int) -> sparse.csr_matrix:
    """The k largest positive projections of each cell on directions (features x dimensions): an untrained code."""
    pre = np.maximum((X - X.mean(0)) @ directions.T, 0)
    pre[pre < np.partition(pre, -k, axis=1)[:, -k, None]] = 0
    return sparse.csr_matrix(pre)


def random_directions(n_features: int, d: int, rng: np.random.Generator) -> np.ndarray:
    drawn = rng.normal(size=(n_features, d))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _active(odds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Activations of features that are active with these log odds."""
    return (rng.random(odds.shape) < 1 / (1 + np.exp(-odds))) * rng.gamma(3, size=odds.shape)


def _cells(codes: np.ndarray, X: np.ndarray | None = None, names: np.ndarray | None = None, **obs: object) -> AnnData:
    n = len(codes)
    X = np.zeros((n, 1), np.float32) if X is None else X
    var = pd.DataFrame(index=[f"G{g}" for g in range(X.shape[1])] if names is None else names)
    table = pd.DataFrame(obs, index=[f"cell {i}" for i in range(n)])
    for name, values in table.items():
        table[name] = values if pd.api.types.is_float_dtype(values) else pd.Categorical(values.astype(str))
    return with_codes(AnnData(sparse.csr_matrix(X), obs=table, var=var), sparse.csr_matrix(codes))


def simulated(
    rng: np.random.Generator,
    *,
    labels: int = 0,
    genes: int = 0,
    sets: bool = False,
    modules: int = 0,
    samples: bool = False,
) -> Draw:
    """Counts, features, labels and sets without relation, but for so many features (pairs) of one kind.

    With `samples`, these differ in every feature and gene, as donors do. `modules` are groups of 20 genes that rise and
    fall together, whatever the features do.
    """
    label, sample = rng.integers(0, LABELS, CELLS), np.arange(CELLS) % SAMPLES
    odds = np.full((CELLS, FEATURES), -1.6 if samples else -2.4)
    rate = np.exp(rng.normal(-1, 1, GENES)) * rng.gamma(4, 0.25, size=(CELLS, 1))
    if samples:
        odds += rng.normal(scale=0.5, size=(SAMPLES, FEATURES))[sample]
        rate *= np.exp(rng.normal(scale=0.3, size=(SAMPLES, GENES)))[sample]
    for f in range(labels):
        odds[:, f] += np.where(label == f % LABELS, 1.2, 0)
    codes = _active(odds, rng)

    names = np.array([f"G{g}" for g in range(GENES)])
    net, truth = {f"random {i}": list(rng.choice(names, 20, replace=False)) for i in range(20)}, set()
    free = np.arange(20 * modules, GENES)
    for i in range(modules):
        rate[:, 20 * i : 20 * i + 20] *= np.exp(rng.normal(scale=0.7, size=(CELLS, 1)))
        net[f"module {i}"] = list(names[20 * i : 20 * i + 20])
    for f in range(genes):
        planted = rng.choice(free, 20, replace=False)
        rate[np.ix_(codes[:, f] > 0, planted)] *= 2.5
        if sets:
            net[f"planted {f}"] = list(dict.fromkeys([*names[planted[:8]], *rng.choice(names, 12, replace=False)]))
            truth.add((f"sae_{f}", f"planted {f}"))
        else:
            truth |= {(f"sae_{f}", gene) for gene in names[planted]}
    truth |= {f"sae_{f}" for f in range(labels)}
    X = np.log1p(rng.poisson(rate)).astype(np.float32)
    adata = _cells(codes, X, names, label=label, sample=sample, number=rng.gamma(0.5, size=CELLS))
    draw = Draw(adata, net, truth)
    if sets:
        ssc.tl.feature_genes(adata, progress_bar=False)
    return draw


def numbers_of_features(rng: np.random.Generator) -> Draw:
    """A number that grows with the activation of some features."""
    draw = simulated(rng)
    dense = draw.adata.obsm["X_sae"][:, :10].toarray()
    draw.adata.obs["number"] += 0.15 * dense.sum(1)
    draw.truth = {f"sae_{f}" for f in range(10)}
    return draw


def coactive(rng: np.random.Generator) -> Draw:
    """Ten pairs of features of which the second is more often active where the first is."""
    dense = _active(np.full((CELLS, FEATURES), -2.4), rng)
    truth = set()
    for f in range(0, 20, 2):
        together = (dense[:, f] > 0) & (rng.random(CELLS) < 0.4)
        dense[together, f + 1] = rng.gamma(3, size=together.sum())
        truth.add(tuple(sorted((f"sae_{f}", f"sae_{f + 1}"))))
    return Draw(_cells(dense), truth=truth)


def of_one_label(rng: np.random.Generator, *, related: bool = False) -> Draw:
    """Eight features of each label, active in half of its cells; two of each label in the same ones, if `related`."""
    label = rng.integers(0, LABELS, CELLS)
    codes = _active(np.where(label[:, None] == np.arange(FEATURES) % LABELS, 0.0, -4.0), rng)
    truth = set()
    for f in range(LABELS if related else 0):
        member = label == f
        together = member & (rng.random(CELLS) < 0.4)
        codes[:, f + LABELS] = np.where(together, codes[:, f], codes[:, f + LABELS])
        truth.add(tuple(sorted((f"sae_{f}", f"sae_{f + LABELS}"))))
    draw = Draw(_cells(codes, label=label), truth=truth)
    ssc.tl.feature_association(draw.adata, "label")
    return draw


def detectors(rng: np.random.Generator, *, n_labels: int = 8, absorbed: int = 0) -> Draw:
    """A feature of each label misses a tenth of its cells; another is active in as many, or in just these."""
    n = 200
    label = np.repeat(np.arange(n_labels), n)
    codes = np.where(rng.random((len(label), 4 * n_labels)) < 0.01, 0.2, 0.0)
    codes[:, : 2 * n_labels] = 0
    for t in range(n_labels):
        cells = np.flatnonzero(label == t)
        missed = rng.permutation(cells)[: n // 10]
        codes[cells, 2 * t] = rng.uniform(1, 2, n)
        codes[missed, 2 * t] = 0
        other = missed if t < absorbed else rng.permutation(cells)[: n // 10]
        codes[other, 2 * t + 1] = rng.uniform(0.5, 1, n // 10)
    draw = Draw(_cells(codes, label=label), truth={str(t) for t in range(absorbed)})
    # detectors and absorbers of a label point the same way
    directions = np.vstack([np.repeat(np.eye(n_labels), 2, axis=0), rng.normal(size=(2 * n_labels, n_labels))])
    with_codes(draw.adata, draw.adata.obsm["X_sae"], directions=directions)
    return draw


def donors(rng: np.random.Generator, design: str, *, changed: int = 0) -> Draw:
    """Samples that differ in how often features are active, by lot or (some features) by condition.

    Designs: ``"groups"``, 6 against 6 samples; ``"few"``, 3 against 3; ``"three"``, 3 conditions of 4 samples;
    ``"pairs"``, both conditions in each of 12 samples; ``"age"``, 6 against 6, of other ages, which matter to all
    features; ``"types"``, 6 against 6 with cells of two types; ``"two"``, 2 against 2; ``"shift"``, 6 against 6 with
    cells of two types, one of which is more frequent in a condition.
    """
    n_samples = {"two": 4, "few": 6}.get(design, SAMPLES)
    sample = np.arange(CELLS) % n_samples
    of_sample = rng.permutation(np.arange(n_samples) % (3 if design == "three" else 2))
    condition = rng.integers(0, 2, CELLS) if design == "pairs" else of_sample[sample]
    cell_type = rng.integers(0, 2, CELLS)
    if design == "shift":
        share = np.clip(rng.beta(8, 8, size=n_samples) + np.where(of_sample > 0, 0.12, -0.12), 0.05, 0.95)
        cell_type = (rng.random(CELLS) < share[sample]).astype(int)
    age = rng.normal(size=n_samples) + 1.5 * of_sample
    odds = -1.6 + rng.normal(scale=0.5, size=(n_samples, FEATURES))[sample]
    if design == "pairs":  # and differ in how they respond
        odds += rng.normal(scale=0.3, size=(2 * n_samples, FEATURES))[2 * sample + condition]
    if design == "age":
        odds += np.outer(age, rng.normal(scale=0.5, size=FEATURES))[sample]
    if design in ("types", "shift"):
        odds += rng.normal(size=(2, FEATURES))[cell_type]
    odds[:, :changed] += 1.5 * (condition > 0)[:, None]
    obs = {"sample": sample, "condition": condition, "type": cell_type, "age": age[sample]}
    codes = _active(odds, rng)
    adata = _cells(codes, **obs)
    adata.obsm["X_pca"] = (codes + rng.normal(scale=0.3, size=codes.shape)).astype(np.float32)
    return Draw(adata, truth={f"sae_{f}" for f in range(changed)})


def circular(rng: np.random.Generator, *, genes: int = 0) -> Draw:
    """Features from the counts that are tested: of all counts ("sae"), and of one part of them ("thinned").

    All cells are alike, or of two kinds that differ in so many genes up and as many down; other genes are the same.
    """
    kind = np.arange(600) % 2
    rate = np.full((600, 300), 0.7)
    rate[kind == 0, :genes] *= 3
    rate[kind == 1, genes : 2 * genes] *= 3
    names = np.array([f"G{g}" for g in range(rate.shape[1])])
    adata = AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), var=pd.DataFrame(index=names))
    adata.obs["sample"] = pd.Categorical(rng.integers(0, 6, 600).astype(str))
    ssc.pp.thin_counts(adata, rng=rng)
    for key, layer in (("sae", None), ("thinned", "thin_train")):
        part = AnnData(adata.X.copy() if layer is None else adata.layers[layer].copy(), var=adata.var)
        sc.pp.normalize_total(part)
        sc.pp.log1p(part)
        sc.pp.pca(part, n_comps=10)
        if layer is None:
            adata.layers["log"] = part.X
        with_codes(adata, top_projections(part.obsm["X_pca"], random_directions(FEATURES, 10, rng), 4), key)
    return Draw(adata, truth=set(names[: 2 * genes]))


def batches(rng: np.random.Generator, *, n_features: int = FEATURES, changed: int = 0) -> Draw:
    """Features that follow the label, batches with other shares of the labels; some features also know the batch."""
    label = rng.integers(0, LABELS, CELLS)
    batch = (rng.random(CELLS) < np.linspace(0.25, 0.75, LABELS)[label]).astype(int)
    odds = -2.0 + rng.normal(size=(LABELS, n_features))[label]
    odds[:, :changed] += 1.5 * batch[:, None]
    adata = _cells(_active(odds, rng), label=label, batch=batch)
    adata.obsm["X_pca"] = adata.obsm["X_sae"].toarray() @ np.asarray(adata.uns["sae"]["weights"]["W_dec"])
    return Draw(adata, truth={f"sae_{f}" for f in range(changed)})


def latents(rng: np.random.Generator, *, changed: int = 0) -> Draw:
    """200 latent dimensions in which samples differ; by condition only some of them do."""
    sample = np.repeat(np.arange(20), 20)
    condition = rng.permutation(np.arange(20) % 2)[sample]
    Z = rng.normal(size=(len(sample), 200)) + rng.normal(size=(20, 200))[sample]
    Z[:, :changed] += 2.5 * condition[:, None]
    adata = _cells(np.ones((len(sample), 1)), sample=sample, condition=condition)
    adata.obsm["X_own"] = Z
    return Draw(adata, truth={f"z_{i}" for i in range(changed)})


def loadings(rng: np.random.Generator, *, planted: int = 0, samples: bool = False, changed: int = 0) -> Draw:
    """Principal components with loadings drawn by lot; so many have larger ones in a gene set of their own.

    With `samples`, saliency differs from cell to cell, and more so between samples; conditions are those of samples,
    and so many components have twice the saliency in one of them.
    """
    n = SAMPLES * 10
    sample = np.arange(n) % SAMPLES
    condition = rng.permutation(np.arange(SAMPLES) % 2)[sample]
    counts = rng.poisson(np.exp(rng.normal(-0.5, 1, GENES)), size=(n, GENES)).astype(np.float32)
    names = np.array([f"G{g}" for g in range(GENES)])
    adata = _cells(np.ones((n, 1)), counts, names, sample=sample, condition=condition)
    weights = rng.standard_t(5, size=(GENES, FEATURES))
    net = {f"random {i}": list(rng.choice(names, rng.integers(10, 40), replace=False)) for i in range(60)}
    truth = set()
    for i in range(planted):
        genes = rng.choice(GENES, 20, replace=False)
        weights[genes, i] *= 2.5
        net[f"planted {i}"] = list(names[genes])
        truth.add((f"PC{i + 1}", f"planted {i}"))
    adata.obsm["X_pca"], adata.varm["PCs"] = rng.normal(size=(n, FEATURES)), weights
    ssc.tl.saliency(adata, "pca", progress_bar=False)
    if samples:  # components have the same saliency in all cells
        pairs = adata.uns["saliency"]["pairs"]
        position = adata.obs_names.get_indexer(pairs["cells"])[pairs["cell"]]
        of_sample = rng.normal(size=(SAMPLES, FEATURES, FEATURES))[sample[position], pairs["unit"]]
        of_unit = rng.normal(size=(FEATURES, FEATURES))[pairs["unit"]]
        nodes = of_unit + 0.5 * of_sample + rng.normal(size=of_unit.shape)
        nodes[(pairs["unit"] < changed) & (condition[position] == 1)] *= 2
        pairs["nodes"] = nodes.astype(np.float32)
        truth = {f"PC{i + 1}" for i in range(changed)}
    return Draw(adata, net, truth)


def decoded(rng: np.random.Generator, *, planted: int = 20) -> Draw:
    """Features that move cells along dimensions with loadings drawn by lot; so many dimensions have a gene set."""
    names = np.array([f"G{g}" for g in range(GENES)])
    weights = rng.standard_t(5, size=(GENES, FEATURES))
    net = {f"random {i}": list(rng.choice(names, 20, replace=False)) for i in range(40 - planted)}
    truth = set()
    for i in range(planted):
        genes = rng.choice(GENES, 20, replace=False)
        weights[genes[:10], i] -= 3  # what goes away with the feature
        net[f"planted {i}"] = list(names[genes])
        truth.add((f"sae_{i}", f"planted {i}"))
    codes = _active(np.full((200, FEATURES), -1.0), rng)
    draw = Draw(_cells(codes, np.ones((200, GENES), np.float32), names), net, truth)
    draw.adata.obsm["X_pca"], draw.adata.varm["PCs"] = codes.astype(np.float32), weights
    return draw


def strangers(rng: np.random.Generator, n: int = 60) -> Draw:
    """Samples of which one condition has some cells of an unknown kind."""
    draw = donors(rng, "groups")
    of_query = draw.adata.obs["condition"] == draw.adata.obs["condition"].cat.categories[1]
    cells = rng.choice(np.flatnonzero(of_query), n, replace=False)
    draw.adata.obsm["X_pca"][cells] -= 0.6  # a way that no feature points
    draw.truth = set(draw.adata.obs_names[cells])
    return draw


def unpaired(rng: np.random.Generator) -> Draw:
    """Two embeddings that have nothing to do with one another."""
    draw = Draw(_cells(np.ones((400, 1))))
    draw.adata.obsm["X_a"], draw.adata.obsm["X_b"] = rng.gamma(0.5, size=(2, 400, 20)).astype(np.float32)
    return draw


def gene_counts(rng: np.random.Generator, *, alike: str, other: int = 0) -> Draw:
    """Counts of 200 genes that follow the simpler model (``"poisson"`` or ``"nb"``), but for so many of them."""
    rate = np.exp(rng.normal(-0.5, 1, 200)) * rng.gamma(8, 1 / 8, size=(600, 1))
    if alike == "nb":
        rate *= rng.gamma(3, 1 / 3, size=rate.shape)
        rate[:, :other] *= rng.random((600, other)) < 0.6
    else:
        rate[:, :other] *= rng.gamma(3, 1 / 3, size=(600, other))
    return Draw(_cells(np.ones((600, 1)), rng.poisson(rate).astype(np.float32)), truth={f"G{g}" for g in range(other)})
