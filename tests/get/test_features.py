"""Features as an AnnData of their own: right, usable in scanpy, and never tied to the parent."""

from __future__ import annotations

from collections.abc import Mapping

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import sparsesc as ssc


def assert_same(a, b):
    """Equal values, all the way down."""
    if isinstance(a, Mapping):
        assert set(a) == set(b)
        for name in a:
            assert_same(a[name], b[name])
    elif isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
    elif sparse.issparse(a):
        assert (a != b).nnz == 0
    else:
        np.testing.assert_array_equal(a, b)


def test_cells_and_features_are_those_of_the_parent(pbmc68k_code):
    result = ssc.get.features(pbmc68k_code)
    assert sparse.isspmatrix_csr(result.X)
    assert result.X.dtype == np.float32
    assert (result.X != pbmc68k_code.obsm["X_sae"]).nnz == 0
    assert result.obs.equals(pbmc68k_code.obs)
    assert set(result.obsm) == set(pbmc68k_code.obsm)
    assert set(result.uns) == set(pbmc68k_code.uns)
    assert result.var.equals(pbmc68k_code.uns["sae"]["features"])
    assert result.var_names[3] == "sae_3"


def test_changing_the_result_never_changes_the_parent(pbmc68k_code):
    before = pbmc68k_code.copy()
    result = ssc.get.features(pbmc68k_code)
    result.X.data[:] = 7
    result.obs["bulk_labels"] = "changed"
    result.var["density"] = -1.0
    result.obsm["X_pca"][:] = 0
    result.obsm["X_sae"].data[:] = 0
    result.obsp["connectivities"].data[:] = 0
    result.uns["sae"]["weights"]["W_dec"][:] = 0
    result.uns["sae"]["features"]["density"] = -1.0
    sc.pp.neighbors(result, use_rep="X")
    sc.tl.rank_genes_groups(result, "louvain", method="wilcoxon")
    for slot in ["obs", "obsm", "obsp", "uns"]:
        assert_same(getattr(pbmc68k_code, slot), getattr(before, slot))


def test_scanpy_works_on_the_result(pbmc68k_code):
    result = ssc.get.features(pbmc68k_code)
    sc.pp.neighbors(result, use_rep="X")
    sc.tl.umap(result, maxiter=5)
    sc.tl.rank_genes_groups(result, "bulk_labels", method="wilcoxon")
    top = sc.get.rank_genes_groups_df(result, group="CD19+ B")["names"].iloc[0]
    # The first by rank test also tells the group apart by means.
    inside = result.obs["bulk_labels"].eq("CD19+ B").to_numpy()
    values = result[:, top].X.toarray().ravel()
    assert values[inside].mean() > 2 * values[~inside].mean()


def test_view_gives_its_cells_and_stays_a_view(pbmc68k_code):
    view = pbmc68k_code[pbmc68k_code.obs["bulk_labels"] == "CD19+ B"]
    result = ssc.get.features(view)
    assert view.is_view
    assert not result.is_view
    assert result.obs_names.equals(view.obs_names)
    result.obsm["X_pca"][:] = 0
    assert view.is_view
    assert np.abs(view.obsm["X_pca"]).sum() > 0


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_result_survives_a_file(pbmc68k_code, tmp_path, suffix):
    result = ssc.get.features(pbmc68k_code)
    path = tmp_path / f"features.{suffix}"
    getattr(result, f"write_{suffix}")(path)
    again = getattr(anndata, f"read_{suffix}")(path)
    assert (again.X != result.X).nnz == 0
    assert again.var_names.equals(result.var_names)


def test_missing_key_lists_what_is_fitted(pbmc68k_code):
    with pytest.raises(KeyError, match=r"No sparse autoencoder under key='other'.*Fitted here: 'sae'"):
        ssc.get.features(pbmc68k_code, "other")


def test_missing_codes_are_told(pbmc68k_code):
    del pbmc68k_code.obsm["X_sae"]
    with pytest.raises(KeyError, match="the codes of 'sae'"):
        ssc.get.features(pbmc68k_code)


def test_joint_embedding_of_a_mudata(pbmc68k_code):
    mudata = pytest.importorskip("mudata")
    few = pbmc68k_code[:, :10].copy()
    few.var_names = "few_" + few.var_names
    mdata = mudata.MuData({"rna": pbmc68k_code.copy(), "few": few})
    mdata.uns["sae"] = pbmc68k_code.uns["sae"]
    mdata.obsm["X_sae"] = pbmc68k_code.obsm["X_sae"]
    result = ssc.get.features(mdata)
    assert result.shape == (700, 64)
    assert set(result.obsm) == {"X_sae"}
