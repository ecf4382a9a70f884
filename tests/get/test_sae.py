"""The autoencoder rebuilt from an AnnData, also after a file."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

import sparsesc as ssc


@pytest.mark.parametrize("suffix", [None, "h5ad", "zarr"])
def test_rebuilt_autoencoder_gives_the_stored_codes(pbmc68k_code, tmp_path, suffix):
    adata = pbmc68k_code
    if suffix is not None:
        getattr(adata, f"write_{suffix}")(tmp_path / f"cells.{suffix}")
        adata = getattr(anndata, f"read_{suffix}")(tmp_path / f"cells.{suffix}")
    model = ssc.get.sae(adata)
    assert (model.n_dimensions, model.n_features, model.architecture, model.k) == (50, 64, "topk", 8)
    codes = model.encode(adata.obsm["X_pca"])
    assert codes.nnz == adata.obsm["X_sae"].nnz
    np.testing.assert_array_equal(codes.indices, adata.obsm["X_sae"].indices)
    np.testing.assert_allclose(codes.data, adata.obsm["X_sae"].data, rtol=1e-4, atol=1e-5)
    first = ssc.get.sae(pbmc68k_code).encode(pbmc68k_code.obsm["X_pca"])
    np.testing.assert_array_equal(codes.data, first.data)


def test_weights_are_copies(pbmc68k_code):
    ssc.get.sae(pbmc68k_code).W_dec[:] = 0
    assert np.abs(pbmc68k_code.uns["sae"]["weights"]["W_dec"]).sum() > 0


def test_metadata_survive_the_folder(pbmc68k_code, tmp_path):
    pbmc68k_code.write_h5ad(tmp_path / "cells.h5ad")
    ssc.get.sae(anndata.read_h5ad(tmp_path / "cells.h5ad")).save(tmp_path / "model")
    metadata = ssc.nn.SparseAutoencoder.load(tmp_path / "model").metadata
    assert metadata["use_rep"] == "X_pca"
    assert metadata["k"] == 8


def test_k_is_for_topk_only(pbmc68k_code):
    pbmc68k_code.uns["sae"]["params"]["architecture"] = "batchtopk"
    assert ssc.get.sae(pbmc68k_code).k is None


def test_incomplete_weights_are_told(pbmc68k_code):
    del pbmc68k_code.uns["sae"]["weights"]["threshold"]
    with pytest.raises(KeyError, match="lacks threshold"):
        ssc.get.sae(pbmc68k_code)


def test_another_kind_of_slot_is_told(pbmc68k_code):
    pbmc68k_code.uns["other"] = {"a": 1}
    with pytest.raises(KeyError, match=r"adata.uns\['other'\] holds something else"):
        ssc.get.sae(pbmc68k_code, "other")
