"""The door: each message says what is wrong, what was found and what to do."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, ImplicitModificationWarning
from scipy import sparse

from sparsesc._values import as_list, check_choice, check_positive_int, listing
from sparsesc.door import _checks as check


@pytest.fixture
def adata():
    """Ten cells with embeddings of every kind that obsm can hold."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(10, 4))
    adata = AnnData(
        sparse.csr_matrix(rng.poisson(1.0, size=(10, 6)).astype(np.float32)),
        obs=pd.DataFrame({"label": list("aabbccddee")}, index=[f"cell_{i}" for i in range(10)]),
        var=pd.DataFrame(index=[f"gene_{i}" for i in range(6)]),
    )
    adata.obsm["X_pca"] = dense
    adata.obsm["X_single"] = dense.astype(np.float32)
    adata.obsm["X_sparse"] = sparse.csr_matrix(dense)
    adata.obsm["frame"] = pd.DataFrame(dense, index=adata.obs_names, columns=list("wxyz"))
    return adata


# --- listing -------------------------------------------------------------------------------------------------------


def test_listing_counts_what_it_does_not_show():
    assert listing([]) == "none"
    assert listing(["a", "b"]) == "'a', 'b'"
    assert listing(range(100)).endswith("'11', ... (100 in all)")


# --- the object ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [pd.DataFrame(), np.zeros((2, 2)), "cells.h5ad", None])
def test_first_argument_must_be_an_anndata(wrong):
    with pytest.raises(TypeError, match=r"Expected an AnnData \(or MuData\) as first argument, found .*\."):
        check.check_adata(wrong)


def test_copy_is_another_object(adata):
    assert check.writable(adata, copy=False) is adata
    assert check.writable(adata, copy=True) is not adata


def test_view_becomes_an_actual_copy_with_a_warning(adata):
    view = adata[:5]
    with pytest.warns(ImplicitModificationWarning, match="the parent object stays as it is"):
        result = check.writable(view, copy=False)
    assert result is view
    assert not view.is_view
    view.obsm["X_pca"][:] = 0
    assert np.abs(adata.obsm["X_pca"]).min() > 0


# --- embeddings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X_pca", "X_single", "X_sparse", "frame"])
def test_every_kind_of_embedding_is_read_alike(adata, name):
    X = check.get_rep(adata, name)
    assert X.dtype == np.float32
    assert X.flags.c_contiguous
    np.testing.assert_array_equal(X, adata.obsm["X_pca"].astype(np.float32))


def test_dask_embedding_is_read(adata):
    dask = pytest.importorskip("dask.array")
    adata.obsm["X_dask"] = dask.from_array(adata.obsm["X_pca"], chunks=(3, 4))
    np.testing.assert_array_equal(check.get_rep(adata, "X_dask"), check.get_rep(adata, "X_pca"))


def test_expression_matrix_is_an_embedding(adata):
    np.testing.assert_array_equal(check.get_rep(adata, "X"), adata.X.toarray())
    with pytest.raises(KeyError, match="there is none here"):
        check.get_rep(AnnData(obs=adata.obs), "X")


def test_missing_embedding_lists_what_there_is(adata):
    with pytest.raises(KeyError, match=r"Did not find adata\.obsm\['X_scVI'\]") as error:
        check.get_rep(adata, "X_scVI")
    for part in ["'X_pca'", "'frame'", "get_latent_representation"]:
        assert part in str(error.value)


def test_name_of_the_embedding_must_be_text(adata):
    with pytest.raises(TypeError, match="use_rep must be a string, found list"):
        check.get_rep(adata, ["X_pca"])


def test_nan_and_inf_are_counted_and_found(adata):
    adata.obsm["X_pca"][3, 1] = np.nan
    adata.obsm["X_pca"][7, 2] = np.inf
    adata.obsm["X_pca"][7, 3] = -np.inf
    with pytest.raises(ValueError, match="1 NaN and 2 infinite values") as error:
        check.get_rep(adata, "X_pca")
    assert "2 of 10 cells; the first is at row 3, column 1" in str(error.value)


def test_values_beyond_single_precision_are_infinite(adata):
    adata.obsm["X_pca"][0, 0] = 1e300
    with pytest.raises(ValueError, match="0 NaN and 1 infinite"):
        check.get_rep(adata, "X_pca")


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (np.array([["a", "b"]]), TypeError, "must hold numbers, found dtype"),
        (np.array([[1j, 2]]), TypeError, "must hold real numbers"),
        (np.zeros(3), ValueError, re.escape("must be two-dimensional (cells x dimensions), found shape (3,)")),
        (pd.DataFrame({"a": ["x"], "b": [1]}), TypeError, "columns that are not numeric: 'a'"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(values, error, message):
    with pytest.raises(error, match=message):
        check.to_float_matrix(values, name="obsm")


# --- slots of an autoencoder ---------------------------------------------------------------------------------------


def test_missing_autoencoder_lists_the_fitted(pbmc68k_code):
    with pytest.raises(KeyError, match=r"did not find adata.uns\['other'\]. Fitted here: 'sae'. Run ssc.tl.fit_sae"):
        check.get_sae_slot(pbmc68k_code, "other")
    with pytest.raises(KeyError, match=r"adata.uns\['pca'\] holds something else"):
        check.get_sae_slot(pbmc68k_code, "pca")


def test_codes_are_sorted_rows(pbmc68k_code):
    shuffled = pbmc68k_code.obsm["X_sae"].tocsc()
    pbmc68k_code.obsm["X_sae"] = shuffled
    codes = check.get_codes(pbmc68k_code, "sae")
    assert sparse.isspmatrix_csr(codes)
    assert codes.dtype == np.float32
    assert codes.has_sorted_indices


def test_taken_slots_are_refused_and_own_slots_are_not(pbmc68k_code):
    assert check.check_key_free(pbmc68k_code, "sae").codes == "X_sae"
    assert check.check_key_free(pbmc68k_code, "new").codes == "X_new"
    with pytest.raises(ValueError, match=r"key_added='pca' would overwrite uns\['pca'\] and obsm\['X_pca'\]"):
        check.check_key_free(pbmc68k_code, "pca")
    with pytest.raises(ValueError, match=r"would overwrite obsm\['X_umap'\]"):
        check.check_key_free(pbmc68k_code, "umap")


@pytest.mark.parametrize("key", ["", "a/b", None, 3])
def test_keys_that_cannot_be_stored_are_refused(pbmc68k_code, key):
    with pytest.raises(ValueError, match="key_added must be a non-empty string without '/'"):
        check.check_key_free(pbmc68k_code, key)


def test_missing_table_names_the_function_that_makes_it(pbmc68k_code):
    with pytest.raises(KeyError, match=r"Run ssc.tl.feature_association first"):
        check.get_table(pbmc68k_code, "sae", "association")
    pbmc68k_code.uns["sae"]["association"] = pd.DataFrame({"feature": []})
    with pytest.raises(ValueError, match="is empty"):
        check.get_table(pbmc68k_code, "sae", "association")


def test_tables_are_copies(pbmc68k_code):
    table = check.get_feature_table(pbmc68k_code, "sae")
    table["density"] = -1.0
    assert pbmc68k_code.uns["sae"]["features"]["density"].min() >= 0


def test_features_by_name_or_position(pbmc68k_code):
    assert check.feature_names(pbmc68k_code, "sae_3", "sae") == ["sae_3"]
    assert check.feature_names(pbmc68k_code, ["sae_3", 1, 3, np.int64(5)], "sae") == ["sae_3", "sae_1", "sae_5"]


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        ("sae_99", KeyError, "Did not find feature 'sae_99' of 'sae'. Closest: 'sae_9'"),
        (64, KeyError, "Feature 64 of 'sae' is out of range: there are 64"),
        (-1, KeyError, "out of range"),
        ([], ValueError, "No features given"),
        ([1.5], TypeError, "strings or positions, found float"),
        ([True], TypeError, "found bool"),
    ],
)
def test_unknown_features_are_told(pbmc68k_code, features, error, message):
    with pytest.raises(error, match=message):
        check.feature_names(pbmc68k_code, features, "sae")


# --- options and columns -------------------------------------------------------------------------------------------


def test_unknown_choice_lists_the_choices():
    check_choice("ulm", ["ulm", "ora"], name="method")
    with pytest.raises(ValueError, match=r"Unknown method: 'mlm'. Choose one of 'ulm', 'ora'"):
        check_choice("mlm", ["ulm", "ora"], name="method")


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "3", None])
def test_counts_must_be_whole_and_positive(wrong):
    with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
        check_positive_int(wrong, name="k")


def test_counts_become_plain_int():
    assert type(check_positive_int(np.int64(3), name="k")) is int


def test_missing_column_lists_the_columns(adata):
    with pytest.raises(KeyError, match=r"Did not find adata.obs\['donor'\]. Available: 'label'"):
        check.get_obs_column(adata, "donor")


def test_one_name_or_several():
    assert as_list("a") == ["a"]
    assert as_list(["a", "b", "a"]) == ["a", "b"]


# --- expression ----------------------------------------------------------------------------------------------------


def test_raw_comes_first_as_in_scanpy(pbmc68k):
    matrix, names = check.get_expression(pbmc68k)
    assert matrix.shape == pbmc68k.raw.shape
    assert names.equals(pbmc68k.raw.var_names)
    assert check.get_expression(pbmc68k, use_raw=False)[0] is pbmc68k.X


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": "counts"}, KeyError, r"Did not find adata.layers\['counts'\]. Available: none"),
        ({"use_raw": True}, ValueError, "adata.raw is None"),
        ({"use_raw": True, "layer": "counts"}, ValueError, "exclude each other"),
    ],
)
def test_missing_expression_is_told(adata, options, error, message):
    with pytest.raises(error, match=message):
        check.get_expression(adata, **options)


def test_no_expression_at_all_is_told(adata):
    adata.X = None
    with pytest.raises(ValueError, match=r"adata.X is None"):
        check.get_expression(adata)


def test_repeated_gene_names_are_listed(adata):
    adata.var_names = ["A", "B", "B", "C", "C", "D"]
    with pytest.raises(ValueError, match=r"Gene names repeat \(2 of them\): 'B', 'C'.*var_names_make_unique"):
        check.get_expression(adata)


def test_genes_need_one_modality(adata):
    mudata = pytest.importorskip("mudata")
    mdata = mudata.MuData({"rna": adata})
    check.check_adata(mdata)
    with pytest.raises(TypeError, match=r"pass mdata\['rna'\] \(found modalities 'rna'\)"):
        check.get_expression(mdata)


def test_view_of_a_mudata_is_refused(adata):
    mudata = pytest.importorskip("mudata")
    with pytest.raises(ValueError, match="This MuData is a view"):
        check.writable(mudata.MuData({"rna": adata})[:5], copy=False)
