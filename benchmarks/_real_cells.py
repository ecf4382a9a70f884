"""Real cells with codes, labels or gene sets that have nothing to do with them: for ``benchmarks/calibration.py``."""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy import sparse

import sparsesc as ssc
from benchmarks._known_truth import Draw, random_directions, top_projections, with_codes


@cache
def real_cells() -> AnnData:
    """700 blood cells with an untrained code of their principal components."""
    adata = ssc.datasets.pbmc68k_reduced()
    directions = random_directions(64, adata.obsm["X_pca"].shape[1], np.random.default_rng(0))
    return with_codes(adata, top_projections(adata.obsm["X_pca"], directions, 8), directions=directions)


def shuffled(adata: AnnData, rng: np.random.Generator) -> AnnData:
    """The cells of each feature shuffled on their own."""
    adata = adata.copy()
    dense = adata.obsm["X_sae"].toarray()
    order = np.argsort(rng.random(dense.shape), axis=0)
    return with_codes(adata, sparse.csr_matrix(np.take_along_axis(dense, order, axis=0)))


def shuffled_cells(rng: np.random.Generator) -> Draw:
    """Real expression, real labels, features of shuffled cells."""
    return Draw(shuffled(real_cells(), rng))


def five_samples(rng: np.random.Generator) -> Draw:
    """Features of shuffled cells, in samples drawn by lot."""
    draw = shuffled_cells(rng)
    draw.adata.obs["sample"] = pd.Categorical(rng.integers(0, 5, draw.adata.n_obs).astype(str))
    return draw


def meaningless_numbers(rng: np.random.Generator) -> Draw:
    """Numbers with a long tail, features of shuffled cells."""
    adata = shuffled(real_cells(), rng)
    for i in range(5):
        adata.obs[f"number {i}"] = rng.gamma(0.5, size=adata.n_obs)
    return Draw(adata)


def meaningless_labels(rng: np.random.Generator) -> Draw:
    """Labels drawn by lot, and real codes."""
    adata = real_cells()[np.sort(rng.permutation(700)[:200])].copy()
    for i in range(8):
        adata.obs[f"label {i}"] = pd.Categorical(rng.choice(list("abc"), adata.n_obs))
    return Draw(adata)


@cache
def real_scores() -> AnnData:
    adata = real_cells().copy()
    ssc.tl.feature_genes(adata, progress_bar=False)
    return adata


def sets_at_random(genes: np.ndarray, n: int, rng: np.random.Generator) -> dict[str, list[str]]:
    return {f"set {i}": list(rng.choice(genes, rng.integers(10, 60), replace=False)) for i in range(n)}


def random_sets(rng: np.random.Generator) -> Draw:
    """Real gene scores of real codes; sets of genes drawn at random."""
    adata = real_scores()
    return Draw(adata.copy(), sets_at_random(adata.raw.var_names.to_numpy(), 40, rng))


def highly_expressed_sets(rng: np.random.Generator) -> Draw:
    """Real gene scores of real codes; sets drawn at random from the upper tenth of genes by mean expression."""
    adata = real_scores()
    genes = adata.raw.var_names[np.argsort(-np.asarray(adata.raw.X.mean(0)).ravel())[: adata.raw.n_vars // 10]]
    return Draw(adata.copy(), sets_at_random(genes.to_numpy(), 40, rng))


def recoded(X: sparse.spmatrix, names: pd.Index, rng: np.random.Generator) -> Draw:
    """An untrained code of the principal components of these values."""
    adata = AnnData(sparse.csr_matrix(X), var=pd.DataFrame(index=names))
    sc.pp.pca(adata, n_comps=50)
    directions = random_directions(64, 50, rng)
    return Draw(with_codes(adata, top_projections(adata.obsm["X_pca"], directions, 8), directions=directions))


def permuted_genes(rng: np.random.Generator) -> Draw:
    """Each gene of the real cells permuted over them on its own, before components and code."""
    columns = real_cells().raw.X.tocsc()
    n = columns.shape[0]
    rows = np.concatenate([np.sort(rng.permutation(n)[:k]) for k in np.diff(columns.indptr)])
    permuted = sparse.csc_matrix((columns.data, rows, columns.indptr), shape=columns.shape)
    return recoded(permuted, real_cells().raw.var_names, rng)


@cache
def _real_depths() -> np.ndarray:
    return np.asarray(ssc.datasets.pbmc3k().X.sum(1)).ravel()


def cells_alike(rng: np.random.Generator, *, depth: str) -> Draw:
    """Counts of 1,000 cells of one profile (1,000 genes) at real or widely different depths, in two halves.

    The code is that of the half for fitting.
    """
    totals = rng.choice(_real_depths(), 1000) if depth == "real" else 2000 * np.exp(rng.normal(size=1000))
    profile = rng.gamma(0.5, size=1000)
    adata = AnnData(sparse.csr_matrix(rng.poisson(np.outer(totals, profile / profile.sum())).astype(np.float32)))
    ssc.pp.thin_counts(adata, rng=rng)
    for name in ("thin_train", "thin_test"):
        part = AnnData(adata.layers[name].copy())
        sc.pp.normalize_total(part, target_sum=1e4)
        sc.pp.log1p(part)
        adata.layers[f"log_{name}"] = part.X
    code = recoded(adata.layers["log_thin_train"], adata.var_names, rng).adata
    return Draw(with_codes(adata, code.obsm["X_sae"]))


@cache
def gene_modules() -> dict[str, list[str]]:
    """Genes of the real cells grouped by how they vary (k-means), and the marker sets of the package."""
    from sklearn.cluster import KMeans

    raw = real_cells().raw
    X = raw.X.toarray().T
    X = (X - X.mean(1, keepdims=True)) / X.std(1, keepdims=True)
    found = KMeans(40, n_init=1, random_state=0).fit_predict(X)
    modules = {f"module {i}": list(raw.var_names[found == i]) for i in range(40)}
    table = ssc.datasets.gene_sets("immune_markers")
    return table.groupby("source")["target"].agg(list).to_dict() | {n: g for n, g in modules.items() if len(g) >= 6}


def coherent_sets(rng: np.random.Generator) -> Draw:
    """Features of shuffled cells against sets of genes that vary together."""
    draw = shuffled_cells(rng)
    draw.net = gene_modules()
    ssc.tl.feature_genes(draw.adata, progress_bar=False)
    return draw


@cache
def _go_cells() -> AnnData:
    adata = ssc.datasets.pbmc3k()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=2000)
    adata = adata[:, adata.var["highly_variable"]].copy()
    sc.pp.pca(adata)
    directions = random_directions(64, 50, np.random.default_rng(0))
    return with_codes(adata, top_projections(adata.obsm["X_pca"], directions, 8), directions=directions)


def go_sets(rng: np.random.Generator) -> Draw:
    """Features of shuffled cells against GO's biological processes, where the folder of data sets is there."""
    draw = Draw(shuffled(_go_cells(), rng))
    path = f"{os.environ['SPARSESC_DATA_DIR']}/genesets/GO_BP_human_orgHsegdb_3.16.symbols.gmt"
    table = ssc.datasets.gene_sets(path)
    draw.net = table.groupby("source")["target"].agg(list).to_dict()
    ssc.tl.feature_genes(draw.adata, progress_bar=False)
    return draw
