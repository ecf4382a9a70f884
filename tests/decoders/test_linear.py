"""Principal components and loadings: decoding undoes what made the embedding."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from sparsesc.decoders import LinearDecoder, as_decoder


@pytest.fixture
def cells(pbmc68k):
    adata = pbmc68k.raw.to_adata()  # log-normalized
    adata.var["highly_variable"] = np.arange(adata.n_vars) % 2 == 0
    sc.pp.pca(adata, n_comps=20)
    return adata


def test_components_decode_to_the_projection_of_the_matrix(cells):
    decoder = as_decoder(cells, use_rep="X_pca")
    used = cells.var["highly_variable"].to_numpy()
    X = cells.X.toarray()[:, used].astype(np.float64)
    L = cells.varm["PCs"][used].astype(np.float64)
    expected = X.mean(0) + (X - X.mean(0)) @ L @ L.T
    assert list(decoder.genes) == list(cells.var_names[used])
    assert decoder.scale == "log1p"
    np.testing.assert_allclose(decoder.decode(cells.obsm["X_pca"]), expected, atol=2e-5)


def test_means_are_those_of_the_cells_that_the_components_were_computed_on(cells):
    part = cells[:200].copy()
    whole, few = as_decoder(cells, "pca", use_rep="X_pca"), as_decoder(part, "pca", use_rep="X_pca")
    # within the span of the components, where cells differ, both say the same
    L = cells.varm["PCs"][cells.var["highly_variable"].to_numpy()]
    Z = part.obsm["X_pca"]
    np.testing.assert_allclose((few.decode(Z) - whole.decode(Z)) @ L, 0, atol=2e-4)


def test_scaled_values_are_not_taken_for_logarithms(pbmc68k):
    sc.pp.pca(pbmc68k, n_comps=10)
    assert as_decoder(pbmc68k, use_rep="X_pca").scale == "linear"


def test_corrected_embedding_is_decoded_with_a_warning(cells, monkeypatch):
    cells.obsm["X_harmony"] = cells.obsm["X_pca"] * np.linspace(0.2, 1, 20, dtype=np.float32)
    said: list[str] = []
    monkeypatch.setattr("sparsesc.decoders._resolve.warning", said.append)
    as_decoder(cells, use_rep="X_pca")
    assert said == []
    as_decoder(cells, "pca", use_rep="X_harmony")
    assert "decoded expression is approximate" in said[0]


def test_loadings_give_their_own_derivative():
    rng = np.random.default_rng(0)
    loadings = pd.DataFrame(rng.normal(size=(5, 3)), index=list("abcde"))
    decoder = LinearDecoder(loadings)
    Z, V = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    value, slope = decoder.jvp(Z, V)
    np.testing.assert_allclose(value, Z @ loadings.to_numpy().T, atol=1e-6)
    np.testing.assert_allclose(slope, V @ loadings.to_numpy().T, atol=1e-6)


def test_errors_name_what_does_not_fit(cells):
    with pytest.raises(ValueError, match=r"There is no decoder for 'X_umap'"):
        as_decoder(cells, use_rep="X_umap")
    with pytest.raises(ValueError, match=r"has 20 components, but 'X_umap' has 2 dimensions"):
        as_decoder(cells, "pca", use_rep="X_umap")
    with pytest.raises(ValueError, match=r"The only decoder with a name is 'pca', found 'scvi'"):
        as_decoder(cells, "scvi", use_rep="X_pca")
    with pytest.raises(TypeError, match=r"a torch module or a function, found int"):
        as_decoder(cells, 3, use_rep="X_pca")
    with pytest.raises(TypeError, match=r"found the class LinearDecoder"):
        as_decoder(cells, LinearDecoder, use_rep="X_pca")
    with pytest.raises(ValueError, match=r"takes 3 dimensions, but 'X_pca' has 20"):
        as_decoder(cells, pd.DataFrame(np.ones((4, 3)), index=list("abcd")), use_rep="X_pca")
    with pytest.raises(ValueError, match=r"means must be one number for each of 4 genes"):
        LinearDecoder(pd.DataFrame(np.ones((4, 3)), index=list("abcd")), np.ones(3))
    with pytest.raises(ValueError, match=r"loadings and means must be finite"):
        LinearDecoder(pd.DataFrame(np.full((4, 3), np.nan), index=list("abcd")))
    del cells.varm["PCs"]
    with pytest.raises(KeyError, match=r"Did not find adata.varm\['PCs'\]"):
        as_decoder(cells, "pca", use_rep="X_pca")
