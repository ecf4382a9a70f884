from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad, read_zarr
from scipy import sparse

import sparsesc as ssc
from sparsesc.door._keys import TABLES


@pytest.fixture
def adata(pbmc68k_code):
    """Features 3 and 60 are copies, 63 is silent, and 61 and 62 share the B cells between them."""
    rng = np.random.default_rng(0)
    codes = pbmc68k_code.obsm["X_sae"].toarray()
    codes[:, 60] = codes[:, 3] * rng.uniform(0.9, 1.1, 700)
    codes[:, 63] = 0
    cells = np.flatnonzero(pbmc68k_code.obs["bulk_labels"] == "CD19+ B")
    # plasma cells among them by a marker, as a real difference to find
    marker = np.asarray(pbmc68k_code.raw[:, "MZB1"].X.todense()).ravel()[cells] > 0
    codes[:, [61, 62]] = 0
    codes[cells[marker], 61] = rng.uniform(1, 2, marker.sum())
    codes[cells[~marker], 62] = rng.uniform(1, 2, (~marker).sum())
    pbmc68k_code.obsm["X_sae"] = sparse.csr_matrix(codes)
    return pbmc68k_code


def test_table_of_neighbors(adata):
    assert ssc.tl.feature_similarity(adata, n_neighbors=4) is None
    table = adata.uns["sae"]["similarity"]
    assert list(table.columns) == list(TABLES["similarity"].columns)
    assert (table["feature"].astype(str) != table["neighbor"].astype(str)).all()
    assert table.groupby("feature", observed=True).size().max() == 4
    assert "sae_63" not in set(table["feature"]) | set(table["neighbor"])
    dense = adata.obsm["X_sae"].toarray().astype(float)
    W = adata.uns["sae"]["weights"]["W_dec"]
    for row in table.sample(15, random_state=0).itertuples():
        i, j = (int(name.split("_")[1]) for name in (row.feature, row.neighbor))
        x, y = dense[:, i], dense[:, j]
        assert row.score == row.pearson_r == pytest.approx(np.corrcoef(x, y)[0, 1])
        assert row.n_both == ((x > 0) & (y > 0)).sum()
        assert row.jaccard == pytest.approx(row.n_both / ((x > 0) | (y > 0)).sum())
        assert row.n_expected == pytest.approx((x > 0).sum() * (y > 0).sum() / 700)
        assert row.decoder_cosine == pytest.approx(W[i] @ W[j], abs=1e-5)


def test_redundant_features_form_groups(adata):
    ssc.tl.feature_similarity(adata)
    features = adata.uns["sae"]["features"]
    assert features.loc["sae_3", "group"] == features.loc["sae_60", "group"]
    assert features.loc["sae_3", "group"] in {"sae_3", "sae_60"}
    assert (features.loc["sae_3", "group_size"], features.loc["sae_63", "group_size"]) == (2, 0)
    assert features.loc["sae_63", "group"] == ""
    sizes = features[features["group"] != ""].groupby("group")["group_size"]
    assert (sizes.first() == sizes.size()).all()


@pytest.mark.parametrize("metric", ["decoder", "genes"])
def test_other_metrics(adata, metric):
    if metric == "genes":
        ssc.tl.feature_genes(adata, progress_bar=False)
    ssc.tl.feature_similarity(adata, metric=metric)
    table = adata.uns["sae"]["similarity"]
    column = {"decoder": "decoder_cosine", "genes": "gene_r"}[metric]
    np.testing.assert_array_equal(table["score"], table[column])
    if metric == "genes":
        genes = adata.varm["sae_genes"].astype(float)
        row = table.iloc[5]
        i, j = (int(row[name].split("_")[1]) for name in ("feature", "neighbor"))
        assert row["score"] == pytest.approx(np.corrcoef(genes[:, i], genes[:, j])[0, 1], abs=1e-4)
        assert adata.uns["sae"]["features"].loc["sae_3", "group_size"] >= 2


def test_pairs_with_one_label_are_redundant_or_different_biology(adata):
    ssc.tl.feature_association(adata, "bulk_labels")
    ssc.tl.feature_similarity(adata, min_label_r=0.2)
    table = adata.uns["sae"]["same_label"]
    labels = adata.uns["sae"]["features"]["label"]
    assert (labels.loc[table["feature"]].to_numpy() == table["label"]).all()
    assert (labels.loc[table["neighbor"]].to_numpy() == table["label"]).all()
    pairs = table.set_index(["feature", "neighbor"])
    split = pairs.loc[("sae_61", "sae_62") if ("sae_61", "sae_62") in pairs.index else ("sae_62", "sae_61")]
    assert (split["label"], split["relation"], split["n_both"]) == ("CD19+ B", "exclusive", 0)
    sides = {split.name[0]: split["genes"].split(","), split.name[1]: split["neighbor_genes"].split(",")}
    assert sides["sae_61"][0] == "MZB1"
    assert "MZB1" not in sides["sae_62"]
    copies = pairs[[set(p) == {"sae_3", "sae_60"} for p in pairs.index]]
    assert copies["relation"].tolist() in ([], ["redundant"])
    similar = adata.uns["sae"]["similarity"]
    row = similar[(similar["feature"] == "sae_3") & (similar["neighbor"] == "sae_60")].iloc[0]
    assert row["relation"] == "redundant"


def test_similar_features_with_other_labels_are_pointed_out(adata):
    ssc.tl.feature_association(adata, "bulk_labels")
    features = adata.uns["sae"]["features"]
    features.loc[["sae_3", "sae_60"], "label"] = ["CD19+ B", "CD56+ NK"]
    features.loc[["sae_3", "sae_60"], "label_r_heldout"] = 0.9
    ssc.tl.feature_similarity(adata)
    table = ssc.get.similarity(adata, "sae_60")
    row = table[table["neighbor"] == "sae_3"].iloc[0]
    assert (row["label"], row["neighbor_label"], row["relation"]) == ("CD56+ NK", "CD19+ B", "cross-label")
    adata.uns["sae"]["features"].loc["sae_60", "label_r_heldout"] = 0.1  # not sure: no contradiction
    ssc.tl.feature_similarity(adata)
    table = ssc.get.similarity(adata, "sae_60")
    assert table[table["neighbor"] == "sae_3"]["relation"].tolist() == ["redundant"]


def test_labels_of_several_columns(adata):
    ssc.tl.feature_association(adata, ["bulk_labels", "phase"])
    ssc.tl.feature_similarity(adata, min_label_r=0.2, n_genes=0)
    table = ssc.get.similarity(adata, "sae_61", table="same_label")
    assert set(table["label"]) == {"bulk_labels: CD19+ B"}
    assert "genes" not in table
    assert ("sae_61" == table[["feature", "neighbor"]]).any(axis=1).all()


@pytest.mark.parametrize("fmt", ["h5ad", "zarr"])
def test_round_trip(adata, tmp_path, fmt):
    ssc.tl.feature_association(adata, "bulk_labels")
    ssc.tl.feature_similarity(adata, min_label_r=0.2)
    path = tmp_path / f"x.{fmt}"
    small = AnnData(obs=adata.obs[[]], uns={"sae": adata.uns["sae"]})
    getattr(small, f"write_{fmt}")(path)
    back = {"h5ad": read_h5ad, "zarr": read_zarr}[fmt](path)
    for table in ("neighbors", "same_label"):
        pd.testing.assert_frame_equal(
            ssc.get.similarity(back, table=table), ssc.get.similarity(adata, table=table), check_dtype=False
        )
    assert back.uns["sae"]["features"]["group"].tolist() == adata.uns["sae"]["features"]["group"].tolist()


def test_copy_leaves_the_original_alone(adata):
    before = adata.uns["sae"]["features"].copy()
    other = ssc.tl.feature_similarity(adata, copy=True)
    assert "similarity" in other.uns["sae"]
    assert "similarity" not in adata.uns["sae"]
    pd.testing.assert_frame_equal(adata.uns["sae"]["features"], before)


def test_mudata(adata):
    from mudata import MuData

    mdata = MuData({"rna": adata[:, :3].copy()})
    mdata.obsm["X_sae"], mdata.uns["sae"] = adata.obsm["X_sae"], adata.uns["sae"]
    mdata.obs["bulk_labels"] = adata.obs["bulk_labels"]
    ssc.tl.feature_association(mdata, "bulk_labels")
    ssc.tl.feature_similarity(mdata, min_label_r=0.2)
    assert "genes" not in mdata.uns["sae"]["same_label"]
    with pytest.raises(TypeError, match="Genes need one modality"):
        ssc.tl.feature_similarity(mdata, layer="counts")


def test_memory_changes_nothing(adata):
    ssc.tl.feature_similarity(adata)
    whole = adata.uns["sae"]["similarity"]
    ssc.tl.feature_similarity(adata, max_memory=48 * 64 * 14 / 2**30)
    blocks = adata.uns["sae"]["similarity"]
    pd.testing.assert_frame_equal(blocks.drop(columns="padj"), whole.drop(columns="padj"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "cosine"}, ValueError, "Unknown metric: 'cosine'. Choose one of 'activation', 'decoder', 'genes'"),
        ({"metric": "genes"}, KeyError, r"Did not find adata.varm\['sae_genes'\].*Run ssc.tl.feature_genes"),
        ({"key": "other"}, KeyError, "No sparse autoencoder under key='other'"),
        ({"n_neighbors": 0}, ValueError, "n_neighbors must be a whole number of at least 1"),
        ({"n_label_features": 1.5}, ValueError, "n_label_features must be a whole number"),
        ({"n_genes": -1}, ValueError, "n_genes must be a whole number"),
        ({"min_score": 2}, ValueError, "min_score must lie between 0 and 1, found 2"),
        ({"min_label_r": 0}, ValueError, "min_label_r must lie between 0 and 1, found 0"),
        ({"max_memory": 0}, ValueError, "max_memory must be a positive number of GiB"),
    ],
)
def test_bad_input(adata, options, error, message):
    before = set(adata.uns["sae"])
    with pytest.raises(error, match=message):
        ssc.tl.feature_similarity(adata, **options)
    assert set(adata.uns["sae"]) == before


def test_nothing_to_compare(adata):
    adata.obsm["X_sae"] = adata.obsm["X_sae"] * 0
    with pytest.raises(ValueError, match="0 of the 64 features of 'sae' are active in any cell"):
        ssc.tl.feature_similarity(adata)
