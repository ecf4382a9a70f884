"""Suppression: the arithmetic, batch features that are known, composition that is no batch effect, and who chooses."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse
from sklearn.neighbors import KNeighborsClassifier

import sparsesc as ssc
from sparsesc.door._obs_columns import read_labels
from sparsesc.tl.act._removal import BatchSplit, rank_features

TYPES, BATCH_FEATURES, NOISE = [0, 1, 2, 3], [4, 5], list(range(6, 16))


def simulated(*, effect: float, n: int = 480, seed: int = 0) -> anndata.AnnData:
    """Four types and three batches of unlike composition; in two batches a feature is on that looks like a type's."""
    rng = np.random.default_rng(seed)
    batch = rng.integers(0, 3, n)
    share = np.array([[4, 2, 1, 1], [1, 4, 2, 1], [1, 1, 3, 3]]) / 8
    kind = np.array([rng.choice(4, p=share[b]) for b in batch])
    Z = np.zeros((n, 16))
    Z[np.arange(n), kind] = 2 + 0.5 * rng.random(n)
    for b, feature in enumerate(BATCH_FEATURES):
        Z[batch == b, feature] = effect * (1 + 0.3 * rng.random((batch == b).sum()))
    Z[:, NOISE] = np.where(rng.random((n, 10)) < 0.25, rng.gamma(2, 0.5, (n, 10)), 0)
    W = np.eye(16)
    W[4], W[5] = (W[0] - W[1]) / np.sqrt(2), (W[2] - W[3]) / np.sqrt(2)  # a shift that changes who is nearest
    X = Z @ W + 1 + 0.2 * rng.normal(size=(n, 16))
    adata = anndata.AnnData(sparse.csr_matrix((n, 1), dtype=np.float32))
    adata.obs["batch"] = pd.Categorical([f"b{i}" for i in batch])
    adata.obs["kind"] = pd.Categorical([f"type {i}" for i in kind])
    adata.obsm["X_emb"] = X.astype(np.float32)
    model = ssc.nn.SparseAutoencoder(W.T, np.zeros(16), W, np.ones(16), np.zeros(16), architecture="batchtopk")
    ssc.tl.apply_sae(adata, model, use_rep="X_emb")
    adata.obsm["X_sae"] = sparse.csr_matrix(Z.astype(np.float32))  # as if it had been encoded without error
    return adata


@pytest.fixture(scope="module")
def suppressed():
    adata = simulated(effect=4)
    ssc.tl.suppress_features(adata, batch_key="batch", bio_keys="kind", progress_bar=False)
    return adata


@pytest.fixture
def cells():
    return simulated(effect=4, n=240)


def found(adata, *args, **kwargs):
    """Tables of a quick call."""
    kwargs = {"n_permutations": 39, "n_controls": 1, "progress_bar": False, **kwargs}
    ssc.tl.suppress_features(adata, *args, **kwargs)
    return adata.uns["sae"]["suppression"]


def gone(tables):
    table = tables["features"]
    return sorted(int(name.removeprefix("sae_")) for name in table.loc[table["suppressed"], "feature"])


def test_cells_move_by_the_difference_of_decoded_codes_and_the_error_stays(pbmc68k_code):
    adata = pbmc68k_code
    X, Z, model = adata.obsm["X_pca"].copy(), adata.obsm["X_sae"].toarray(), ssc.get.sae(adata)
    for scale in (0.0, 0.4):
        tables = found(adata, ["sae_3", 7], factor=scale)
        new = Z.copy()
        new[:, [3, 7]] *= scale
        clean = adata.obsm["X_pca_clean"]
        np.testing.assert_allclose(clean, X + model.decode(new) - model.decode(Z), atol=1e-4)
        np.testing.assert_allclose(clean - model.decode(new), X - model.decode(Z), atol=1e-4)
        assert clean.dtype == np.float32
        assert (clean[(Z[:, [3, 7]] == 0).all(1)] == X[(Z[:, [3, 7]] == 0).all(1)]).all()
    assert (adata.obsm["X_pca"] == X).all()
    assert set(tables) == {"features"}
    assert list(tables["features"]["feature"][:2]) == ["sae_3", "sae_7"]
    assert gone(tables) == [3, 7]
    found(adata, 5, key_added="other")
    assert adata.obsm["other"].shape == X.shape


def test_batch_features_go_and_types_and_noise_stay(suppressed):
    tables = suppressed.uns["sae"]["suppression"]
    assert gone(tables) == BATCH_FEATURES
    table = tables["features"].set_index("feature")
    batch = [f"sae_{i}" for i in BATCH_FEATURES]
    types = [f"sae_{i}" for i in TYPES]
    assert (table.loc[batch, ["padj", "pval_heldout"]] <= 0.01).all(axis=None)
    # on in one batch of three: its shares make the entropy of the split off batch
    assert table.loc[batch, "information"].between(0.3, 0.65).all()
    np.testing.assert_allclose(table.loc[batch, "information_heldout"], table.loc[batch, "information"], atol=0.1)
    assert (table.loc[batch, "bio_share"] < 0.1).all()
    assert (table.loc[types, "bio_share"] > 0.2).all()
    others = [f"sae_{i}" for i in TYPES + NOISE]
    assert table.loc[others, "information"].abs().max() < 0.08  # noise of 240 cells
    assert (table.loc[others, "padj"] > 0.05).all()


def test_transfer_improves_and_controls_do_not(suppressed):
    scores = suppressed.uns["sae"]["suppression"]["transfer"].groupby("state")["accuracy"].mean()
    assert scores["before"] < 0.85
    assert scores["after"] > 0.98
    assert scores["random_features"] < scores["before"] + 0.02
    assert scores["matched_features"] < scores["before"] + 0.02
    assert scores["batch_means"] > 0.95  # the shift is linear here: means undo it as well


def test_transfer_is_that_of_an_independent_implementation(suppressed):
    """The same split, by the same draws; the vote by hand."""
    tables = suppressed.uns["sae"]["suppression"]
    labels, batches = read_labels(suppressed, "kind"), read_labels(suppressed, "batch")
    held = BatchSplit.read(batches, [labels], 0.5, np.random.default_rng(0)).held
    transfer = tables["transfer"]
    for state, rep in (("before", "X_emb"), ("after", "X_emb_clean")):
        rows = transfer[transfer["state"] == state].set_index("batch")
        for code, name in enumerate(batches.categories):
            X, y, other = suppressed.obsm[rep], labels.codes, batches.codes != code
            vote = KNeighborsClassifier(15).fit(X[other], y[other])
            asked = held & ~other
            assert rows.loc[name, "accuracy"] == pytest.approx(vote.score(X[asked], y[asked]))
            assert rows.loc[name, "n_cells"] == asked.sum()
            moved = np.linalg.norm(X[asked] - suppressed.obsm["X_emb"][asked], axis=1).mean()
            assert rows.loc[name, "norm"] == pytest.approx(moved, abs=1e-5)
    draws = transfer.groupby("state")["draw"].nunique().to_dict()
    assert draws == {"before": 1, "after": 1, "random_features": 5, "matched_features": 5, "batch_means": 1}


def test_composition_is_a_batch_effect_only_without_labels():
    adata = simulated(effect=0)
    tables = found(adata, batch_key="batch", bio_keys="kind")
    assert gone(tables) == []
    np.testing.assert_array_equal(adata.obsm["X_emb_clean"], adata.obsm["X_emb"])
    assert set(tables["transfer"]["state"]) == {"before", "after", "batch_means"}
    marginal = found(adata, batch_key="batch")
    assert set(gone(marginal)) & set(TYPES)
    assert "transfer" not in marginal
    assert marginal["features"]["bio_information"].isna().all()


def test_lost_biology_is_said(monkeypatch):
    messages: list[str] = []
    monkeypatch.setattr("sparsesc._logging.warning", messages.append)
    adata = simulated(effect=0)
    found(adata, batch_key="batch", bio_keys="kind")
    assert not [m for m in messages if "bio_keys:" in m or "transfer" in m]
    messages.clear()
    found(adata, batch_key="batch")
    assert "No bio_keys: all that differs between batches of 'batch' counts as batch" in messages[0]
    assert "without label_keys nothing shows what was lost" in messages[0]
    messages.clear()
    transfer = found(adata, TYPES, batch_key="batch", label_keys="kind")["transfer"].groupby("state")["accuracy"].mean()
    assert transfer["after"] < transfer["before"] - 0.05
    assert "without label_keys" not in messages[0]
    assert (
        f"worse without these features ({transfer['before']:.3f} before, {transfer['after']:.3f} after)" in messages[-1]
    )


def test_a_transfer_with_nothing_to_gain_is_said(monkeypatch):
    messages: list[str] = []
    monkeypatch.setattr("sparsesc._logging.warning", messages.append)
    adata = simulated(effect=0)
    tables = found(adata, 15, batch_key="batch", bio_keys="kind")
    assert tables["transfer"].query("state == 'before'")["accuracy"].mean() >= 0.95
    assert "cannot show that suppression helps" in messages[-1]
    messages.clear()
    found(simulated(effect=4), batch_key="batch", bio_keys="kind")  # it helps here
    assert not messages


def test_batches_without_meaning_touch_nothing():
    """In about one of twenty data sets any feature at all may go."""
    touched = []
    for seed in range(40):
        adata = simulated(effect=4, n=160, seed=seed)
        rng = np.random.default_rng([seed, 1])  # a stream of its own: the simulation's began with its batches
        adata.obs["random"] = rng.choice(["a", "b"], 160)
        tables = found(adata, batch_key="random", bio_keys="kind", n_controls=0, bio_margin=0)
        touched.append(bool(gone(tables)))
    assert np.mean(touched) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)


def test_judging_cells_do_not_choose(suppressed):
    labels, batches = read_labels(suppressed, "kind"), read_labels(suppressed, "batch")
    cells = BatchSplit.read(batches, [labels], 0.5, np.random.default_rng(0))
    options = {"labeled": True, "bio_margin": 1.0, "alpha": 0.05, "n_levels": 3, "min_cells": 10, "n_permutations": 19}
    changed = cells.batches.copy()
    changed[cells.held] = np.random.default_rng(1).permutation(changed[cells.held])
    results = [
        rank_features(suppressed.obsm["X_sae"], c, rng=np.random.default_rng(2), **options)
        for c in (cells, replace(cells, batches=changed))
    ]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    for column in ("information", "padj", "bio_share"):
        np.testing.assert_array_equal(results[0][0][column], results[1][0][column])
    assert results[1][0]["information_heldout"].max() < 0.1 < results[0][0]["information_heldout"].max()
    # and both halves have all batches of all types
    for rows in (cells.held, ~cells.held):
        assert pd.crosstab(labels.codes[rows], batches.codes[rows]).shape == (4, 3)
        assert (pd.crosstab(labels.codes[rows], batches.codes[rows]) > 0).all(axis=None)


def test_number_of_features(cells):
    assert len(gone(found(cells, batch_key="batch", bio_keys="kind", n_suppressed=1))) == 1
    assert gone(found(cells, batch_key="batch", bio_keys="kind", n_suppressed="transfer")) == BATCH_FEATURES
    # types in one batch each: without their features transfer is worse, so none goes
    adata = simulated(effect=0, n=240)
    Z = adata.obsm["X_sae"].toarray()
    first = (adata.obs["batch"] == "b0").to_numpy()
    Z[:, 6:10] = np.where(first[:, None], Z[:, :4], 0)
    Z[:, :4] = np.where(first[:, None], 0, Z[:, :4])
    W = adata.uns["sae"]["weights"]["W_dec"].copy()
    W[6:10] = W[:4]  # they mean the same as those of the other batches
    adata.uns["sae"]["weights"]["W_dec"] = W
    adata.obsm["X_sae"], adata.obsm["X_emb"] = sparse.csr_matrix(Z), Z.astype(np.float32) @ W
    harmful = found(adata, batch_key="batch", bio_keys="kind", bio_margin=0)
    assert len(gone(harmful)) >= 4
    scores = harmful["transfer"].groupby("state")["accuracy"].mean()
    assert scores["after"] < scores["before"] - 0.3
    assert gone(found(adata, batch_key="batch", bio_keys="kind", bio_margin=0, n_suppressed="transfer")) == []


def test_cells_without_labels_are_cleaned_all_the_same(cells):
    cells.obs["kind"] = cells.obs["kind"].astype(object).where(np.arange(240) % 5 > 0)
    tables = found(cells, batch_key="batch", bio_keys="kind")
    asked = cells.uns["sae"]["params"]["suppress_features"]
    assert asked["n_choosing"] + asked["n_judging"] == 192
    assert gone(tables) == BATCH_FEATURES
    moved = (cells.obsm["X_emb_clean"] != cells.obsm["X_emb"]).any(1)
    assert moved[::5].any()
    np.testing.assert_array_equal(moved, (cells.obs["batch"] != "b2").to_numpy())


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_result_survives_a_file(suppressed, tmp_path, suffix):
    path = tmp_path / f"cells.{suffix}"
    getattr(suppressed, f"write_{suffix}")(path)
    back = getattr(anndata, f"read_{suffix}")(path)
    for table in ("features", "transfer"):
        pd.testing.assert_frame_equal(
            ssc.get.suppression(back, table=table), ssc.get.suppression(suppressed, table=table), check_dtype=False
        )
    assert list(back.uns["sae"]["params"]["suppress_features"]["bio_keys"]) == ["kind"]
    np.testing.assert_array_equal(back.obsm["X_emb_clean"], suppressed.obsm["X_emb_clean"])


def test_same_seed_same_bits_and_copy_leaves_the_original(cells):
    options = {"batch_key": "batch", "bio_keys": "kind", "n_scored": 50, "n_controls": 2, "n_permutations": 19}
    one, two = (ssc.tl.suppress_features(cells, rng=3, copy=True, progress_bar=False, **options) for _ in range(2))
    for table in ("features", "transfer"):
        pd.testing.assert_frame_equal(ssc.get.suppression(one, table=table), ssc.get.suppression(two, table=table))
    assert one.uns["sae"]["suppression"]["transfer"].query("state == 'before'")["n_cells"].sum() == 50
    assert "suppression" not in cells.uns["sae"]
    assert "X_emb_clean" not in cells.obsm


def test_what_cannot_be_told_apart_is_refused_or_said(cells, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("sparsesc._logging.warning", said.append)
    cells.obs["own"] = cells.obs["batch"].astype(str) + cells.obs["kind"].astype(str)
    with pytest.raises(ValueError, match="batch and biology cannot be separated"):
        found(cells, batch_key="batch", bio_keys="own")
    assert said == []
    cells.obs["mostly"] = np.where(np.arange(240) < 170, cells.obs["own"], "shared")
    found(cells, batch_key="batch", bio_keys="mostly", n_suppressed=1)
    assert "of the cells have labels of 'mostly' that several batches of 'batch' share" in said[0]
    said.clear()
    found(cells, batch_key="batch", bio_keys="kind", label_keys="own")
    assert said == ["No label of 'own' is in two batches: it is not transferred."]


def test_bad_input_is_told_at_the_door(cells):
    def fails(error, match, *args, **kwargs):
        with pytest.raises(error, match=match):
            ssc.tl.suppress_features(cells, *args, **kwargs)

    both = {"batch_key": "batch", "bio_keys": "kind"}
    fails(ValueError, "Nothing says what to suppress: name features, or give batch_key")
    fails(ValueError, r"bio_keys='kind' needs batch_key", "sae_1", bio_keys="kind")
    fails(KeyError, "Did not find feature 'sae_x'", "sae_x")
    fails(KeyError, r"Did not find adata.obs\['donor'\]", batch_key="donor")
    fails(KeyError, "No sparse autoencoder under key='other'", "sae_1", key="other")
    fails(ValueError, "bio_margin must be a number of at least 0", bio_margin=-1, **both)
    fails(ValueError, "factor must be at least 0 and below 1", "sae_1", factor=1)
    fails(ValueError, "alpha must lie between 0 and 1", alpha=0, **both)
    fails(ValueError, "holdout must lie between 0 and 1", holdout=1, **both)
    fails(ValueError, "n_suppressed must be a whole number", n_suppressed=0, **both)
    fails(ValueError, "n_suppressed must be a whole number", n_suppressed="all", **both)
    fails(ValueError, "n_suppressed='transfer' needs labels", batch_key="batch", n_suppressed="transfer")
    fails(ValueError, "n_neighbors must be a whole number", n_neighbors=0, **both)
    fails(ValueError, "would overwrite what the autoencoder works on", "sae_1", key_added="X_emb")
    fails(ValueError, "non-empty string without '/'", "sae_1", key_added="a/b")
    fails(ValueError, "Unknown scib metric: 'kbet'", scib="kbet", **both)
    cells.obs["one"], cells.obs["score"] = "b0", np.random.default_rng(0).random(240)
    fails(ValueError, r"adata.obs\['one'\] has 1 batches", batch_key="one")
    fails(TypeError, r"adata.obs\['score'\] holds numbers", batch_key="score")
    assert "suppression" not in cells.uns["sae"]


def test_scib_is_asked_for_by_name_when_it_is_missing(cells, monkeypatch):
    monkeypatch.setitem(sys.modules, "scib_metrics", None)
    with pytest.raises(ImportError, match=r"pip install 'sparsesc\[scib\]'"):
        found(cells, batch_key="batch", bio_keys="kind", scib=True)
    found(cells, batch_key="batch", bio_keys="kind")


def test_scib_scores(cells):
    pytest.importorskip("scib_metrics", reason="scib-metrics is not installed")
    names = ["clisi_knn", "ilisi_knn", "graph_connectivity"]
    table = found(cells, batch_key="batch", bio_keys="kind", scib=names)["scib"]
    assert list(table.columns) == ["label_key", "state", "draw", "metric", "about", "value"]
    score = table.set_index(["metric", "state"])["value"]
    assert score["ilisi_knn", "after"] > score["ilisi_knn", "before"] + 0.2
    assert score["clisi_knn", "after"] >= score["clisi_knn", "before"] - 0.01
    assert score["ilisi_knn", "after"] > score["ilisi_knn", "random_features"]
    assert set(table["about"]) == {"bio", "batch"}


@pytest.mark.skipif(not os.environ.get("SPARSESC_DATA_DIR"), reason="SPARSESC_DATA_DIR is not set")
def test_technologies_of_blood_cells(published):
    """What suppression does to real batches; more numbers are in benchmarks/suppression.md."""
    adata = published("pbmc_3tech")
    total = adata.obs["total_umi_all_genes"].to_numpy()
    adata.X = sparse.csr_matrix(adata.X.multiply(1e4 / total[:, None]))
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=50)
    ssc.tl.fit_sae(adata, max_steps=800, use_rep="X_pca", progress_bar=False)
    tables = found(adata, batch_key="batch", bio_keys="cell_type", n_controls=5, n_permutations=99)
    table = tables["features"]
    top = table[table["suppressed"]].head(5)
    assert len(top) == 5
    assert (top["pval_heldout"] <= 0.05).all()  # in cells that did not choose
    depends = table["padj"] < 0.05
    r = np.corrcoef(table.loc[depends, "information"], table.loc[depends, "information_heldout"])[0, 1]
    assert r > 0.8
    scores = tables["transfer"].groupby("state")["accuracy"].mean()
    assert scores["after"] > scores["matched_features"]
    assert abs(scores["after"] - scores["before"]) < 0.04  # neither help nor harm: types are what cells are nearest by
    adata.obs["random"] = np.random.default_rng([0, 1]).permutation(adata.obs["batch"])
    assert len(gone(found(adata, batch_key="random", bio_keys="cell_type", n_controls=1, n_permutations=99))) <= 1
