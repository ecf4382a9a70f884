from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad, read_zarr
from scipy import sparse

import sparsesc as ssc
from sparsesc.door._keys import TABLES


@pytest.fixture
def adata(pbmc68k_code):
    """An untrained code in real cells with three planted features and a dead one, and all tables."""
    adata = pbmc68k_code
    codes = adata.obsm["X_sae"].tolil()
    rng = np.random.default_rng(0)
    labels = adata.obs["bulk_labels"].to_numpy()
    for f, (label, share) in enumerate(
        [("CD19+ B", 0.95), ("CD19+ B", 0.9), ("Dendritic", 0.3), ("CD14+ Monocyte", 0.0)]
    ):
        x = np.where((labels == label) & (rng.random(700) < share), rng.uniform(3, 5, 700), 0)
        codes[:, f] = x[:, None]
    adata.obsm["X_sae"] = sparse.csr_matrix(codes, dtype=np.float32)
    ssc.tl.feature_association(adata, ["bulk_labels", "phase"])
    ssc.tl.feature_genes(adata)
    ssc.tl.feature_enrichment(adata, ssc.datasets.gene_sets("immune_markers"), min_size=3)
    return adata


def table(adata) -> pd.DataFrame:
    return adata.uns["sae"]["features"]


def said(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr("sparsesc._logging.info", lines.append)
    return lines


def test_planted_features_get_their_names(adata):
    before = table(adata).copy()
    assert ssc.tl.annotate_features(adata, label_keys="bulk_labels") is None
    found = table(adata)
    pd.testing.assert_frame_equal(found[before.columns], before)  # nothing that others wrote is touched
    b = found.iloc[0]
    assert b["name"].startswith("CD19+ B | ")
    assert b["name"].split(" | ")[1] in b["top_genes"].split(",")
    assert (b["name_source"], b["where"], b["where_key"]) == ("label+gene", "CD19+ B", "bulk_labels")
    assert b["where_n"] == 95
    assert b["where_f1"] > 0.9
    assert b["marker_genes"].split(", ")[0] == b["name"].split(" | ")[1]
    rare = found.iloc[2]  # in a third of the dendritic cells: named after them, with its recall beside it
    assert "Dendritic" in rare["name"]
    assert rare["where_precision"] == 1
    assert 0.2 < rare["where_recall"] < 0.4
    dead = found.iloc[3]
    assert (dead["name"], dead["name_source"], dead["confidence"]) == ("unknown (sae_3)", "unknown", "none")
    assert (dead["where"], dead["what"], dead["marker_genes"]) == ("", "", "")
    assert found["name"].is_unique


def test_scores_are_those_of_the_cells_in_which_a_feature_is_on(adata):
    """The threshold is written again from its definition; labels do not move it."""
    ssc.tl.annotate_features(adata, label_keys="bulk_labels", rng=0)
    named = table(adata).query("where != ''")
    codes = adata.obsm["X_sae"].toarray().astype(float)
    labels = adata.obs["bulk_labels"].astype(str).to_numpy()
    for feature, row in named.iterrows():
        x = codes[:, int(feature.removeprefix("sae_"))]
        on = x > 0.5 * (x @ x) / x.sum()
        inside = np.isin(labels, row["where"].split(", "))
        assert inside[on].mean() >= 0.5
        assert row["where_precision"] >= 0.5
        assert row["where_n"] == inside.sum()
        # held-out values are near those of all cells, and not equal to them
        assert row["where_recall"] == pytest.approx(on[inside].mean(), abs=0.3)


def test_evidence_is_tidy_and_tells_what_the_name_is_made_of(adata):
    ssc.tl.annotate_features(adata)
    evidence, found = adata.uns["sae"]["annotation"], table(adata)
    assert list(evidence.columns) == list(TABLES["annotation"].columns)
    labels = evidence[evidence["source"] == "label"]
    assert set(labels["key"]) == {"bulk_labels", "phase"}  # those of feature_association
    assert labels.groupby("feature").size().eq(2).sum() == 63
    assert labels["held_out"].all()
    assert not evidence.loc[evidence["source"] != "label", "held_out"].any()
    for feature, rows in evidence[evidence["in_name"]].groupby("feature"):
        name, source = found.loc[feature, ["name", "name_source"]]
        assert [kind for kind in ("label", "term", "gene") if kind in set(rows["source"])] == source.split("+")
        assert all(text in name for text in rows["evidence"])
    assert set(found.index[found["name_source"] == "unknown"]).isdisjoint(evidence.loc[evidence["in_name"], "feature"])
    # every gene and gene set that is listed is significant
    assert (evidence.loc[evidence["source"] != "label", "padj"] < 0.05).all()


def test_held_out_f1_does_not_see_the_cells_that_chose(adata):
    """With labels shuffled, the best label looks good where it was chosen and has no more than chance elsewhere."""
    rng = np.random.default_rng(0)
    excess = []
    for seed in range(5):
        adata.obs["shuffled"] = rng.permutation(adata.obs["bulk_labels"].astype(str))
        ssc.tl.annotate_features(adata, label_keys="shuffled", rng=seed)
        rows = adata.uns["sae"]["annotation"].query("source == 'label'")
        excess.append(rows["score"] - rows["null"])
    assert np.concatenate(excess).mean() == pytest.approx(0, abs=0.01)


def test_shuffled_cells_leave_nearly_all_features_unknown(adata):
    shares = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(adata.n_obs)
        adata.obsm["X_sae"] = adata.obsm["X_sae"][order]
        ssc.tl.feature_association(adata, "bulk_labels")
        ssc.tl.feature_genes(adata)
        ssc.tl.feature_enrichment(adata, ssc.datasets.gene_sets("immune_markers"), min_size=3)
        ssc.tl.annotate_features(adata)
        shares.append((table(adata)["name_source"] == "unknown").mean())
    assert np.mean(shares) >= 0.95


def test_shuffled_labels_name_nothing(adata):
    known = 0
    for seed in range(6):
        adata.obs["shuffled"] = np.random.default_rng(seed).permutation(adata.obs["bulk_labels"].astype(str))
        ssc.tl.annotate_features(adata, label_keys="shuffled", rng=seed)
        known += table(adata)["name_source"].str.contains("label").mean()
    assert known / 6 <= 0.01


def test_names_without_labels_without_genes_and_without_both(adata, monkeypatch):
    lines = said(monkeypatch)
    ssc.tl.annotate_features(adata, label_keys=[])
    assert lines[0].endswith("without labels (pass label_keys, or run ssc.tl.feature_association)")
    assert not table(adata)["name_source"].str.contains("label").any()
    assert "where_f1" not in table(adata)
    assert (table(adata)["where"] == "").all()
    assert set(table(adata)["confidence"]) <= {"low", "none"}
    assert table(adata)["name"].iloc[0].startswith("B cell | ")
    del adata.uns["sae"]["genes"], adata.uns["sae"]["enrichment"], adata.uns["sae"]["association"]
    ssc.tl.annotate_features(adata, label_keys="bulk_labels")
    assert "without genes (run ssc.tl.feature_genes) and without gene sets" in lines[2]
    assert table(adata)["name"].iloc[:2].tolist() == ["CD19+ B", "CD19+ B (sae_1)"]
    with pytest.raises(
        ValueError, match=r"nothing to name the features of 'sae' by: no labels .*, no genes .*, no gene"
    ):
        ssc.tl.annotate_features(adata)


def test_samples_that_chose_do_not_score(adata):
    """A label that is a marker in one donor only does not hold in the other."""
    adata.obs["donor"] = np.where(np.arange(700) % 2, "a", "b")
    codes = adata.obsm["X_sae"].tolil()
    rows = np.flatnonzero((adata.obs["bulk_labels"] == "CD19+ B").to_numpy() & (adata.obs["donor"] == "a").to_numpy())
    codes[:, 5] = 0
    codes[rows, 5] = 4.0
    adata.obsm["X_sae"] = sparse.csr_matrix(codes, dtype=np.float32)
    options = {"label_keys": "bulk_labels"}
    for rng in range(3):
        ssc.tl.annotate_features(adata, sample_key="donor", rng=rng, **options)
        assert table(adata)["where"].iloc[0] == "CD19+ B"
        assert table(adata)["where"].iloc[5] == ""
    ssc.tl.annotate_features(adata, **options)
    assert table(adata)["where"].iloc[5] == "CD19+ B"


def test_genes_of_other_cells_are_marked(adata):
    ssc.tl.feature_genes(adata, split="cells", holdout=0.5)
    ssc.tl.annotate_features(adata)
    evidence = adata.uns["sae"]["annotation"]
    assert evidence.groupby("source")["held_out"].agg(["min", "max"]).to_numpy().tolist() == [
        [True, True],
        [True, True],
        [False, False],
    ]


def test_same_rng_same_names_and_copy(adata):
    named = ssc.tl.annotate_features(adata, copy=True)
    assert "annotation" not in adata.uns["sae"]
    ssc.tl.annotate_features(adata)
    ssc.tl.annotate_features(adata)  # a second run replaces the first
    pd.testing.assert_frame_equal(table(named), table(adata))
    pd.testing.assert_frame_equal(named.uns["sae"]["annotation"], adata.uns["sae"]["annotation"])
    assert not table(adata).columns.duplicated().any()


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_survives_a_file(adata, tmp_path, ending):
    ssc.tl.annotate_features(adata)
    path = tmp_path / f"named.{ending}"
    getattr(adata, f"write_{ending}")(path)
    back = (read_h5ad if ending == "h5ad" else read_zarr)(path)
    pd.testing.assert_frame_equal(back.uns["sae"]["annotation"], adata.uns["sae"]["annotation"], check_dtype=False)
    pd.testing.assert_frame_equal(table(back), table(adata), check_dtype=False)
    assert back.uns["sae"]["params"]["annotate_features"]["min_precision"] == 0.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label_keys": "n_counts"}, ValueError, "must name columns of labels.*'n_counts'.*astype"),
        ({"label_keys": "typo"}, KeyError, r"Did not find adata.obs\['typo'\]. Available: 'bulk_labels'"),
        ({"sample_key": "one"}, ValueError, r"adata.obs\['one'\] has 1 sample"),
        ({"alpha": 0}, ValueError, "alpha must lie between 0 and 1, found 0"),
        ({"holdout": 1.0}, ValueError, "holdout must lie between 0 and 1"),
        ({"min_excess": 2}, ValueError, "min_excess must lie between 0 and 1, found 2"),
        ({"min_effect": -1}, ValueError, "min_effect must not be negative, found -1"),
        ({"min_cells": 0}, ValueError, "min_cells must be a whole number"),
        ({"min_precision": -0.1}, ValueError, "min_precision must lie between 0 and 1, found -0.1"),
        ({"key": "other"}, KeyError, "No sparse autoencoder under key='other'"),
    ],
)
def test_bad_input(adata, options, error, message):
    adata.obs["one"] = "a"
    before = table(adata).copy()
    with pytest.raises(error, match=message):
        ssc.tl.annotate_features(adata, **options)
    pd.testing.assert_frame_equal(table(adata), before)
