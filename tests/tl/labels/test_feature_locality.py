from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse, stats

import sparsesc as ssc
from sparsesc.door._keys import TABLES

LOCALITY_COLUMNS = list(TABLES["locality"].columns)


@pytest.fixture
def adata(pbmc68k_code):
    """Feature 0 is of B cells, 1 of both kinds of cytotoxic cells, 2 of all cells alike, 63 silent."""
    rng = np.random.default_rng(0)
    labels = pbmc68k_code.obs["bulk_labels"]
    codes = pbmc68k_code.obsm["X_sae"].toarray()
    share = [labels == "CD19+ B", labels.isin(["CD56+ NK", "CD8+ Cytotoxic T"]), np.full(700, 0.85), np.zeros(700)]
    for feature, active in zip([0, 1, 2, 63], share, strict=True):
        codes[:, feature] = np.where(rng.random(700) < active.astype(float), rng.uniform(1, 1.5, 700), 0)
    pbmc68k_code.obsm["X_sae"] = sparse.csr_matrix(codes)
    return pbmc68k_code


def test_table_is_tidy_and_agrees_with_others(adata):
    assert ssc.tl.feature_locality(adata, "bulk_labels") is None
    table = adata.uns["sae"]["locality"]
    assert list(table.columns[: len(LOCALITY_COLUMNS)]) == LOCALITY_COLUMNS
    assert len(table) == 64 * 10
    labels, codes = adata.obs["bulk_labels"], adata.obsm["X_sae"].toarray().astype(float)
    for row in table.sample(20, random_state=0).itertuples():
        x, member = codes[:, int(row.feature.split("_")[1])], (labels == row.category).to_numpy()
        assert (row.mean_in, row.mean_out) == pytest.approx((x[member].mean(), x[~member].mean()))
        assert row.n_cells == member.sum()
        assert row.stronger == (row.padj < 0.05 and row.mean_in >= 2 * row.mean_out)
        if np.isfinite(row.fold_high):
            assert row.fold_low < row.mean_in / row.mean_out < row.fold_high
    np.testing.assert_allclose(table["padj"], stats.false_discovery_control(table["pval"]), rtol=1e-9)
    ssc.tl.feature_association(adata, "bulk_labels")
    np.testing.assert_allclose(table["pval"], adata.uns["sae"]["association"]["pval"])


def test_words_for_features(adata):
    ssc.tl.feature_locality(adata, "bulk_labels", min_cells=15)
    features = adata.uns["sae"]["features"]
    assert features.loc[["sae_0", "sae_1", "sae_2", "sae_63"], "locality"].tolist() == [
        "local",
        "regional",
        "global",
        "",
    ]
    assert features.loc["sae_0", "locality_categories"] == "CD19+ B"
    assert set(features.loc["sae_1", "locality_categories"].split("; ")) == {"CD56+ NK", "CD8+ Cytotoxic T"}
    assert features.loc["sae_2", "locality_categories"] == ""
    assert features.loc[["sae_0", "sae_1", "sae_2", "sae_63"], "breadth"].tolist() == pytest.approx(
        [1, 2, 10, 0], abs=0.1
    )
    assert set(features["locality"]) <= {"local", "regional", "global", "unclear", ""}


def test_nothing_is_local_among_shuffled_labels(adata):
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(5):
        adata.obs["shuffled"] = adata.obs["bulk_labels"].to_numpy()[rng.permutation(700)]
        ssc.tl.feature_locality(adata, "shuffled")
        found += adata.uns["sae"]["features"]["locality"].isin(["local", "regional"]).sum()
    assert found <= 1


def test_cells_without_a_label_are_left_out(adata):
    adata.obs["some"] = adata.obs["bulk_labels"].where(adata.obs["bulk_labels"] != "Dendritic")
    ssc.tl.feature_locality(adata, "some")
    known = adata[adata.obs["some"].notna()].copy()
    ssc.tl.feature_locality(known, "some")
    pd.testing.assert_frame_equal(adata.uns["sae"]["locality"], known.uns["sae"]["locality"])


def test_round_trip(adata, tmp_path):
    ssc.tl.feature_locality(adata, "phase")
    path = tmp_path / "x.h5ad"
    small = AnnData(obs=adata.obs, uns={"sae": adata.uns["sae"]})
    small.write_h5ad(path)
    back = read_h5ad(path)
    pd.testing.assert_frame_equal(ssc.get.locality(back), ssc.get.locality(adata), check_dtype=False)
    assert set(ssc.get.locality(back, ["sae_3", 7])["feature"]) == {"sae_3", "sae_7"}


def test_copy_and_repeat(adata):
    other = ssc.tl.feature_locality(adata, "bulk_labels", copy=True)
    assert "locality" not in adata.uns["sae"]
    ssc.tl.feature_locality(other, "phase")
    assert other.uns["sae"]["locality"]["category"].nunique() == 3
    assert list(other.uns["sae"]["features"].columns).count("locality") == 1
    assert other.uns["sae"]["params"]["feature_locality"]["groupby"] == "phase"


@pytest.mark.parametrize(
    ("groupby", "options", "error", "message"),
    [
        ("nothing", {}, KeyError, r"Did not find adata.obs\['nothing'\]"),
        ("n_counts", {}, TypeError, r"adata.obs\['n_counts'\] holds numbers"),
        ("bulk_labels", {"key": "other"}, KeyError, "No sparse autoencoder under key='other'"),
        ("bulk_labels", {"alpha": 0.7}, ValueError, "alpha must lie between 0 and 0.5, found 0.7"),
        ("bulk_labels", {"min_fold": 1}, ValueError, "min_fold must be larger than 1"),
        ("bulk_labels", {"min_cells": 0}, ValueError, "min_cells must be a whole number of at least 1"),
    ],
)
def test_bad_input(adata, groupby, options, error, message):
    with pytest.raises(error, match=message):
        ssc.tl.feature_locality(adata, groupby, **options)
    assert "locality" not in adata.uns["sae"]
