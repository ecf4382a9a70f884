"""Genes of features by derivatives through a decoder."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch

import sparsesc as ssc


@pytest.fixture
def cells(pbmc68k_code):
    return pbmc68k_code


def test_linear_decoder_gives_loadings_of_the_feature(cells):
    W = cells.uns["sae"]["weights"]["W_dec"]
    loadings = pd.DataFrame(
        np.random.default_rng(0).normal(size=(40, 50)), index=[*cells.var_names[:39], "not measured here"]
    )
    ssc.tl.feature_genes(cells, method="decoder", decoder=loadings, n_top=5)
    expected = (loadings.to_numpy() @ W.T / np.log(2)).astype(np.float32)
    np.testing.assert_allclose(cells.varm["sae_genes"][:39], expected[:39], atol=1e-5)
    assert (cells.varm["sae_genes"][39:] == 0).all()
    table = ssc.get.genes(cells, "sae_3")
    order = np.argsort(-expected[:, 3])[:5]
    assert list(table["gene"]) == list(loadings.index[order])
    np.testing.assert_allclose(table["score"], expected[order, 3], atol=1e-5)
    codes = cells.obsm["X_sae"][:, [3]].data
    np.testing.assert_allclose(table["logfc"], expected[order, 3] * codes.mean(), rtol=1e-4)
    assert table["pval"].isna().all()
    assert table["padj"].isna().all()
    assert cells.uns["sae"]["features"].loc["sae_3", "top_genes"].split(",") == list(table["gene"])


def test_derivative_through_a_network_agrees_with_finite_differences(cells):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(50, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6)).double()
    decoder = ssc.decoders.TorchDecoder(module, cells.var_names[:6])
    few = cells[:90].copy()  # fewer active cells than are drawn: the mean is over all of them
    ssc.tl.feature_genes(few, method="decoder", decoder=decoder, n_top=None, direction="both", min_cells=2)
    Z, W = few.obsm["X_pca"].astype(np.float64), few.uns["sae"]["weights"]["W_dec"][5]
    active = few.obsm["X_sae"][:, [5]].toarray().ravel()
    rows = active > 0
    rise = (decoder.decode(Z[rows] + 1e-4 * W) - decoder.decode(Z[rows] - 1e-4 * W)) / 2e-4 / np.log(2)
    np.testing.assert_allclose(few.varm["sae_genes"][:6, 5], rise.mean(0), atol=1e-3 * np.abs(rise).max())
    table = ssc.get.genes(few, "sae_5").set_index("gene").loc[decoder.genes]
    effect = rise * active[rows, None]
    np.testing.assert_allclose(table["logfc"], effect.mean(0), atol=1e-3)
    np.testing.assert_allclose(table["sd"], effect.std(0), atol=1e-3)
    assert (table["n_cells"] == rows.sum()).all()


def test_it_stands_beside_the_contrast_and_feeds_gene_sets(pbmc68k):
    cells = pbmc68k
    sc.pp.pca(cells, n_comps=20)  # components of the matrix that is here
    ssc.tl.fit_sae(cells, use_rep="X_pca", n_features=32, k=4, max_steps=100, progress_bar=False)
    ssc.tl.feature_genes(cells, use_raw=False, progress_bar=False)
    contrast = cells.varm["sae_genes"].copy()
    ssc.tl.feature_genes(cells, method="decoder", progress_bar=False)
    table = ssc.get.genes(cells, "sae_0")
    np.testing.assert_allclose(table["score_contrast"], contrast[cells.var_names.get_indexer(table["gene"]), 0])
    # what the decoder says and how cells differ agree, since both are about these cells
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(cells.varm["sae_genes"].T, contrast.T, strict=True) if b.any()]
    assert np.mean(r) > 0.3
    net = {"top": list(table["gene"][:10]), "rest": list(cells.var_names[:100])}
    ssc.tl.feature_enrichment(cells, net)
    assert ssc.get.enrichment(cells, "sae_0")["term"].iloc[0] == "top"


def test_same_seed_same_effects(cells):
    options = {"method": "decoder", "decoder": lambda Z: np.tanh(Z[:, :1]) * np.ones((1, cells.n_vars)), "n_top": 3}
    one, two = (ssc.tl.feature_genes(cells, rng=1, copy=True, **options) for _ in range(2))
    assert (one.varm["sae_genes"] == two.varm["sae_genes"]).all()
    assert "sae_genes" not in cells.varm


def test_bad_input_is_told_at_the_door(cells):
    def fails(match, **kwargs):
        with pytest.raises(ValueError, match=match):
            ssc.tl.feature_genes(cells, **({"method": "decoder", "decoder": "pca"} | kwargs))

    fails("decoder belongs to method='decoder', found method='contrast'", method="contrast")
    fails("compares no cells: split='counts'", split="counts")
    fails("keeps its effects in varm", store=False)
    fails("is active in at least min_cells=700", min_cells=700)
    fails("sample_key .* does not go with method='decoder'", sample_key="phase")
    elsewhere = pd.DataFrame(np.ones((3, 50)), index=["x", "y", "z"])
    fails(r"None of the decoder's genes \('x', 'y', 'z'\) is in adata.var_names", decoder=elsewhere)
