from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import sparsesc as ssc
from sparsesc.stats import benjamini_hochberg

N_CELLS, N_GENES = 500, 250
FIT = {"use_rep": "X_pca", "n_features": 32, "k": 4, "max_steps": 200, "progress_bar": False}


def fitted(counts, layer=None):
    """Normalized, principal components, features; from counts that the features alone may see, if there are such."""
    adata = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    adata.var_names = [f"g{i}" for i in range(adata.n_vars)]
    adata = adata[adata.X.sum(1) > 0, adata.X.sum(0) > 3].copy()
    if layer:
        ssc.pp.thin_counts(adata)
        adata.X = adata.layers["thin_train"].copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=20)
    ssc.tl.fit_sae(adata, **FIT)
    return adata


def coherence_of(adata, **options):
    ssc.tl.feature_genes(adata, progress_bar=False, **options)
    table = adata.uns["sae"]["features"]
    return table["genes_coherence"].dropna(), table["genes_coherence_pval"].dropna().to_numpy()


def profile(rng):
    return rng.gamma(0.5, 1, N_GENES) + 0.01


@pytest.mark.parametrize("depth_sd", [0.35, 1.0])
@pytest.mark.parametrize("split", [None, "counts"])
def test_cells_that_are_all_alike(depth_sd, split):
    """They differ in depth alone; genes were chosen, embedded and grouped in the very cells that are tested."""
    rng = np.random.default_rng(0)
    expected = profile(rng)
    depth = 1000 * np.exp(depth_sd * rng.normal(size=N_CELLS))
    adata = fitted(rng.poisson(np.outer(depth, expected / expected.sum())), layer=split)
    _, p = coherence_of(adata, split=split)
    assert len(p) > 16
    assert (p <= 0.05).mean() <= 0.05
    assert (benjamini_hochberg(p) <= 0.05).mean() <= 0.05


@pytest.mark.parametrize("split", [None, "cells"])
def test_genes_of_real_cells_that_are_permuted_one_by_one(split):
    raw = sc.datasets.pbmc68k_reduced().raw.to_adata()
    columns = raw.X.tocsc()
    rng = np.random.default_rng(0)
    n = raw.n_obs
    rows = np.concatenate([np.sort(rng.permutation(n)[:k]) for k in np.diff(columns.indptr)])
    permuted = sparse.csc_matrix((columns.data, rows, columns.indptr), shape=columns.shape).tocsr()
    found = {}
    for name, matrix in (("real", raw.X), ("permuted", permuted)):
        adata = ad.AnnData(sparse.csr_matrix(matrix), var=pd.DataFrame(index=raw.var_names))
        sc.pp.pca(adata, n_comps=30)
        ssc.tl.fit_sae(adata, **FIT)
        found[name] = coherence_of(adata, split=split, holdout=0.5 if split else None)
    assert (benjamini_hochberg(found["permuted"][1]) <= 0.05).mean() <= 0.05
    assert (benjamini_hochberg(found["real"][1]) <= 0.05).mean() > 0.7
    assert found["real"][0].median() > 0.1 > 0.05 > found["permuted"][0].abs().median()


def test_a_planted_program_and_where_it_is_read(tmp_path):
    """One program of 12 genes: the features that it drives are coherent, on counts, in files and with donors too."""
    rng = np.random.default_rng(1)
    expected = np.tile(profile(rng), (N_CELLS, 1))
    expected[:200, :12] *= 6
    expected[:200, :12] += 1
    depth = 1500 * np.exp(0.35 * rng.normal(size=N_CELLS))
    counts = rng.poisson(depth[:, None] * expected / expected.sum(1, keepdims=True))
    adata = fitted(counts, layer="thin")
    adata.obs["donor"] = pd.Categorical([f"d{i % 4}" for i in range(adata.n_obs)])
    for options in ({}, {"split": "counts"}, {"sample_key": "donor"}, {"method": "correlation"}):
        coherence_of(adata, **options)
        genes = adata.uns["sae"]["genes"]
        program = (
            genes[genes["rank"] <= 10]
            .groupby("feature")["gene"]
            .agg(lambda names: np.isin(list(names), [f"g{i}" for i in range(12)]).mean())
        )
        table = adata.uns["sae"]["features"].loc[program.index]
        driven = table[program > 0.7]
        assert len(driven) >= 1
        assert (driven["genes_coherence_pval"] <= 0.01).all()
        assert (driven["genes_coherence"] > 0.05).all()
    before = coherence_of(adata)[1]
    dense = adata.copy()
    dense.X = adata.X.toarray()
    np.testing.assert_allclose(coherence_of(dense)[1], before, rtol=1e-6)
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    np.testing.assert_allclose(coherence_of(backed)[1], before, rtol=1e-6)


def test_two_genes_have_no_coherence(pbmc68k_code):
    ssc.tl.feature_genes(pbmc68k_code, progress_bar=False)
    assert pbmc68k_code.uns["sae"]["features"]["genes_coherence"].notna().all()
    ssc.tl.feature_genes(pbmc68k_code, n_top=2, progress_bar=False)
    assert pbmc68k_code.uns["sae"]["features"]["genes_coherence"].isna().all()


def test_coherence_of_other_genes_does_not_stay(pbmc68k_code):
    """A decoder gives other genes, which were not correlated."""
    adata = pbmc68k_code
    ssc.tl.feature_genes(adata, progress_bar=False)
    ssc.tl.feature_genes(adata, method="decoder", progress_bar=False)
    assert not [name for name in adata.uns["sae"]["features"] if "coherence" in name]
