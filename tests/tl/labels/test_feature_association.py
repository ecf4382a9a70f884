from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import ImplicitModificationWarning, read_h5ad, read_zarr
from scipy import sparse, stats
from sklearn.metrics import f1_score, roc_auc_score

import sparsesc as ssc
from sparsesc.door._keys import TABLES
from sparsesc.stats.core._holdout import stratified_holdout

ASSOCIATION_COLUMNS = list(TABLES["association"].columns)
NUMERIC_COLUMNS = ["feature", "key", "pearson_r", "spearman_r", "pval", "padj"]


@pytest.fixture
def adata(pbmc68k_code):
    return pbmc68k_code


def wide(adata, value, key="bulk_labels"):
    table = adata.uns["sae"]["association"]
    return table[table["key"] == key].pivot(index="feature", columns="category", values=value)


def said(monkeypatch) -> list[str]:
    """What is logged from here on."""
    lines: list[str] = []
    monkeypatch.setattr("sparsesc._logging.info", lines.append)
    monkeypatch.setattr("sparsesc._logging.warning", lines.append)
    return lines


# what is written


def test_table_is_tidy_and_agrees_with_others(adata):
    assert ssc.tl.feature_association(adata, "bulk_labels") is None
    table = adata.uns["sae"]["association"]
    assert list(table.columns[: len(ASSOCIATION_COLUMNS)]) == ASSOCIATION_COLUMNS
    assert len(table) == 64 * 10
    assert table.groupby(["feature", "category"], observed=True).size().eq(1).all()
    labels, codes = adata.obs["bulk_labels"], adata.obsm["X_sae"].toarray().astype(float)
    for row in table.sample(40, random_state=0).itertuples():
        x, member = codes[:, int(row.feature.split("_")[1])], (labels == row.category).to_numpy()
        assert row.auroc == pytest.approx(roc_auc_score(member, x), abs=1e-6)
        assert row.pearson_r == pytest.approx(stats.pearsonr(x, member).statistic, abs=1e-6)
        p = stats.mannwhitneyu(x[member], x[~member], method="asymptotic").pvalue
        assert row.pval_asymptotic == pytest.approx(p, rel=1e-6, abs=1e-250)
        assert (row.mean_in, row.mean_out) == pytest.approx((x[member].mean(), x[~member].mean()))
        assert row.f1 == pytest.approx(f1_score(member, x > row.threshold, zero_division=0))
        assert row.n_cells == member.sum()
    np.testing.assert_allclose(table["padj"], stats.false_discovery_control(table["pval"]), rtol=1e-6)


def test_asymptotic_p_values_on_request(adata):
    ssc.tl.feature_association(adata, ["bulk_labels", "n_counts"])
    both = adata.uns["sae"]["association"], adata.uns["sae"]["association_numeric"]
    ssc.tl.feature_association(adata, ["bulk_labels", "n_counts"], pvalues="asymptotic")
    for before, name in zip(both, ["association", "association_numeric"], strict=True):
        after = adata.uns["sae"][name]
        assert not [column for column in after if column.endswith("asymptotic")]
        np.testing.assert_array_equal(after["pval"], before["pval_asymptotic"])
        assert (after["pval"] != before["pval"]).any()


def test_numbers_have_a_table_of_their_own(adata):
    ssc.tl.feature_association(adata, ["n_counts", "percent_mito"])
    assert "association" not in adata.uns["sae"]
    assert "label" not in adata.uns["sae"]["features"]
    table = adata.uns["sae"]["association_numeric"]
    assert list(table.columns[: len(NUMERIC_COLUMNS)]) == NUMERIC_COLUMNS
    assert len(table) == 2 * 64
    codes = adata.obsm["X_sae"].toarray().astype(float)
    for row in table.sample(12, random_state=0).itertuples():
        x, y = codes[:, int(row.feature.split("_")[1])], adata.obs[row.key].to_numpy(float)
        pearson, spearman = stats.pearsonr(x, y), stats.spearmanr(x, y)
        assert (row.pearson_r, row.spearman_r) == pytest.approx((pearson.statistic, spearman.statistic), abs=1e-6)
        assert row.pval_pearson_asymptotic == pytest.approx(pearson.pvalue, abs=1e-6)
        assert row.pval_asymptotic == pytest.approx(spearman.pvalue, abs=1e-6)


def test_adjusts_over_the_whole_call(adata):
    ssc.tl.feature_association(adata, ["bulk_labels", "phase", "n_counts"])
    tables = [ssc.get.association(adata), ssc.get.association(adata, table="numbers")]
    p, padj = (np.concatenate([t[column] for t in tables]) for column in ("pval", "padj"))
    assert len(p) == 64 * 14 == adata.uns["sae"]["params"]["feature_association"]["n_tests"]
    np.testing.assert_allclose(padj, stats.false_discovery_control(p), rtol=1e-9)


def test_a_planted_feature_gets_its_name(adata):
    """One feature is made to mark NK cells, one everything but them, one nothing."""
    rng = np.random.default_rng(0)
    codes = adata.obsm["X_sae"].toarray()
    nk = (adata.obs["bulk_labels"] == "CD56+ NK").to_numpy()
    codes[:, 3] = nk * (1 + rng.random(700)) * (rng.random(700) < 0.9)
    codes[:, 4] = ~nk * (1 + rng.random(700))
    codes[:, 5] = 0
    adata.obsm["X_sae"] = sparse.csr_matrix(codes)
    ssc.tl.feature_association(adata, "bulk_labels")
    features = adata.uns["sae"]["features"]
    assert features.loc["sae_3", "label"] == "CD56+ NK"
    assert features.loc["sae_3", "label_auroc_heldout"] > 0.9
    assert features.loc["sae_3", "label_f1_heldout"] > 0.9
    assert features.loc["sae_3", "singular"]
    assert features.loc["sae_3", "singular_label"] == "CD56+ NK"
    assert features.loc["sae_3", "singular_r"] > 0.9
    assert features.loc["sae_4", "label"] != "CD56+ NK"
    assert wide(adata, "pearson_r").loc["sae_4", "CD56+ NK"] < -0.7
    best = ssc.get.association(adata, table="labels").set_index("category")["feature"]
    assert best["CD56+ NK"] == "sae_3"
    # the silent one: nothing is claimed, nothing is NaN where a number is meant
    assert features.loc["sae_5", "label"] == ""
    assert not features.loc["sae_5", "singular"]
    assert np.isnan(features.loc["sae_5", "label_auroc_heldout"])
    silent = ssc.get.association(adata, "sae_5")
    assert (silent["pearson_r"] == 0).all()
    assert (silent["auroc"] == 0.5).all()
    assert (silent[["f1", "mean_in", "mean_out"]] == 0).all(axis=None)
    assert (silent[["pval", "padj", "pval_asymptotic"]] == 1).all(axis=None)


def test_labels_of_ten_cells_or_more_have_their_feature(adata):
    ssc.tl.feature_association(adata, ["bulk_labels", "phase"])
    table = ssc.get.association(adata, table="labels")
    counts = adata.obs["bulk_labels"].value_counts()
    named = table[table["key"] == "bulk_labels"].set_index("category")
    assert set(named.index) == set(counts.index[counts >= 10])
    assert (named["n_cells"] == counts[named.index]).all()
    assert set(table.loc[table["key"] == "phase", "category"]) == {"G1", "S", "G2M"}
    assert table.notna().all(axis=None)
    ssc.tl.feature_association(adata, "bulk_labels", min_cells=1)
    assert len(ssc.get.association(adata, table="labels")) == 10


def test_names_are_chosen_on_one_half_and_scored_on_the_other(adata):
    ssc.tl.feature_association(adata, "bulk_labels", rng=5)
    labels = adata.obs["bulk_labels"]
    held = stratified_holdout([labels.cat.codes.to_numpy()], 0.5, np.random.default_rng(5))
    codes = adata.obsm["X_sae"].toarray().astype(float)
    enough = [c for c in labels.cat.categories if (labels == c).sum() >= 10]
    chosen = {c: [roc_auc_score(labels[~held] == c, x) for x in codes[~held].T] for c in enough}
    for row in ssc.get.association(adata, table="labels").itertuples():
        f = int(np.argmax(chosen[row.category]))
        assert row.feature == f"sae_{f}"
        member = (labels == row.category).to_numpy()
        assert row.auroc_heldout == pytest.approx(roc_auc_score(member[held], codes[held, f]))
        thresholds = np.unique(np.r_[0, codes[~held, f]])
        called = codes[~held, f][:, None] > thresholds
        scores = 2 * called[member[~held]].sum(axis=0) / (called.sum(axis=0) + member[~held].sum())
        best = thresholds[scores == scores.max()].max()
        assert row.f1_heldout == pytest.approx(f1_score(member[held], codes[held, f] > best))
    r = np.array([[np.corrcoef(x, labels[~held] == c)[0, 1] for c in enough] for x in codes[~held].T])
    features = adata.uns["sae"]["features"]
    assert list(features["label"]) == [enough[i] for i in r.argmax(1)]
    for f in (0, 31, 60):
        member = (labels == features["label"].iloc[f]).to_numpy()
        expected = np.corrcoef(codes[held, f], member[held])[0, 1]
        assert features["label_r_heldout"].iloc[f] == pytest.approx(expected)


def test_held_out_scores_do_not_flatter(adata):
    """Labels that mean nothing: chosen among 64 features, the best looks good; held-out cells say it is not."""
    rng = np.random.default_rng(0)
    adata.obs["nonsense"] = pd.Categorical(rng.integers(0, 40, 700).astype(str))
    ssc.tl.feature_association(adata, "nonsense")
    labels = ssc.get.association(adata, table="labels")
    features = adata.uns["sae"]["features"]
    assert labels["auroc"].mean() > 0.57
    assert abs(labels["auroc_heldout"].mean() - 0.5) < 0.04
    assert features["label_r"].mean() > 0.05
    assert abs(features["label_r_heldout"].mean()) < 0.02
    assert (ssc.get.association(adata)["padj"] > 0.05).all()


def test_singular_is_what_sparsesc_calls_singular(adata):
    ssc.tl.feature_association(adata, ["bulk_labels", "phase"], min_r=0.4)
    table = ssc.get.association(adata)
    strong = table[table["pearson_r"].abs() > 0.4].groupby("feature", observed=False).size()
    features = adata.uns["sae"]["features"]
    assert (features["singular"] == (strong[features.index] == 1)).all()
    assert features["singular"].any()
    assert ((features["singular_label"] == "") != features["singular"]).all()
    named = features[features["singular"]].iloc[0]
    key, category = named["singular_label"].split(": ")
    row = table[(table["feature"] == named.name) & (table["key"] == key) & (table["category"] == category)].iloc[0]
    assert named["singular_r"] == row["pearson_r"]
    few = features["singular"].sum()
    ssc.tl.feature_association(adata, ["bulk_labels", "phase"], min_r=0.8)
    assert adata.uns["sae"]["features"]["singular"].sum() < few


def test_two_categories_are_one_contrast(adata):
    adata.obs["is_b"] = adata.obs["bulk_labels"] == "CD19+ B"
    ssc.tl.feature_association(adata, "is_b")
    r = wide(adata, "pearson_r", "is_b")
    np.testing.assert_allclose(r["True"], -r["False"], atol=1e-12)
    features = adata.uns["sae"]["features"]
    assert (features["singular"] == (r["True"].abs() > 0.5)).all()
    assert features["singular"].any()
    assert set(features.loc[features["singular"], "singular_label"]) == {"True"}


def test_a_name_says_its_column_when_there_are_several(adata):
    ssc.tl.feature_association(adata, ["bulk_labels", "n_counts"])
    assert set(adata.uns["sae"]["features"]["label"]) <= set(adata.obs["bulk_labels"].cat.categories)
    ssc.tl.feature_association(adata, ["bulk_labels", "phase"])
    assert adata.uns["sae"]["features"]["label"].str.match(r"^(bulk_labels|phase): ").all()


# randomness, copies, files


def test_same_rng_same_results(adata):
    results = []
    for rng in (0, 0, 1, np.random.default_rng(0)):
        ssc.tl.feature_association(adata, "bulk_labels", rng=rng)
        results.append(adata.uns["sae"]["features"])
    pd.testing.assert_frame_equal(results[0], results[1])
    pd.testing.assert_frame_equal(results[0], results[3])
    assert (results[0]["label_r_heldout"] != results[2]["label_r_heldout"]).any()
    for column in ("singular", "singular_r", "density"):
        pd.testing.assert_series_equal(results[0][column], results[2][column])


def test_copy_leaves_the_original_alone(adata):
    copy = ssc.tl.feature_association(adata, "bulk_labels", copy=True)
    assert "association" not in adata.uns["sae"]
    assert "label" not in adata.uns["sae"]["features"]
    assert "association" in copy.uns["sae"]


def test_a_view_becomes_a_copy_with_a_warning(adata):
    view = adata[::2]
    with pytest.warns(ImplicitModificationWarning, match="view"):
        ssc.tl.feature_association(view, "bulk_labels")
    assert "association" in view.uns["sae"]
    assert "association" not in adata.uns["sae"]


def test_a_new_call_replaces_the_old_results(adata):
    adata.uns["sae"]["features"]["stability"] = 1.0
    ssc.tl.feature_association(adata, ["bulk_labels", "n_counts"])
    ssc.tl.feature_association(adata, "phase")
    assert list(ssc.get.association(adata)["key"].unique()) == ["phase"]
    assert "association_numeric" not in adata.uns["sae"]
    ssc.tl.feature_association(adata, "n_counts")
    assert not {"association", "labels"} & set(adata.uns["sae"])
    features = adata.uns["sae"]["features"]
    assert list(features.columns) == ["density", "mean_active", "max", "n_cells", "dead", "stability"]


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(adata, tmp_path, suffix):
    adata.obs["lane"] = pd.Categorical(np.where(np.arange(700) % 2, "a/b", "c"))
    ssc.tl.feature_association(adata, ["bulk_labels", "lane", "n_counts"])
    del adata.raw
    path = tmp_path / f"x.{suffix}"
    (adata.write_h5ad if suffix == "h5ad" else adata.write_zarr)(path)
    back = (read_h5ad if suffix == "h5ad" else read_zarr)(path)
    for name in ("association", "association_numeric", "labels", "features"):
        pd.testing.assert_frame_equal(
            back.uns["sae"][name], adata.uns["sae"][name], check_categorical=False, check_dtype=False
        )
    asked = back.uns["sae"]["params"]["feature_association"]
    assert list(asked["label_keys"]) == ["bulk_labels", "lane", "n_counts"]
    assert ssc.get.association(back, 3)["feature"].eq("sae_3").all()
    ssc.tl.feature_association(back, "bulk_labels")  # what came from a file can be worked on


def test_works_on_mudata(adata):
    from mudata import MuData

    mdata = MuData({"rna": adata.copy()})
    mdata.obsm["X_sae"] = adata.obsm["X_sae"]
    mdata.uns["sae"] = adata.uns["sae"]
    mdata.obs["bulk_labels"] = adata.obs["bulk_labels"]
    ssc.tl.feature_association(mdata, "bulk_labels")
    ssc.tl.feature_association(adata, "bulk_labels")
    pd.testing.assert_frame_equal(ssc.get.association(mdata), ssc.get.association(adata))


# columns of all kinds


def test_cells_without_a_label_are_left_out(adata, monkeypatch):
    labels = adata.obs["bulk_labels"].copy()
    labels[np.arange(700) % 5 == 0] = np.nan
    adata.obs["bulk_labels"] = labels
    adata.obs["n_counts"] = adata.obs["n_counts"].where(np.arange(700) % 7 > 0)
    lines = said(monkeypatch)
    ssc.tl.feature_association(adata, ["bulk_labels", "phase", "n_counts"])
    assert "140 of 700 cells have no 'bulk_labels' and are left out of its tests" in lines
    assert "100 of 700 cells have no 'n_counts' and are left out of its tests" in lines
    rest = adata[labels.notna()].copy()
    ssc.tl.feature_association(rest, "bulk_labels")
    for value in ("auroc", "pearson_r", "f1", "pval", "pval_asymptotic", "mean_out"):
        np.testing.assert_array_equal(wide(adata, value), wide(rest, value))
    assert ssc.get.association(adata, table="numbers")["n_cells"].eq(600).all()
    assert ssc.get.association(adata)["n_cells"].groupby(ssc.get.association(adata)["key"]).sum()["phase"] == 64 * 700


LABELS = {
    "string": lambda c: c.astype(str),
    "object": lambda c: c.astype(str).astype(object),
    "categorical integers": lambda c: c.cat.codes.astype("category"),
    "unused category": lambda c: c.cat.add_categories("none"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_all_types_are_tested_alike(adata, kind):
    adata.obs["other"] = LABELS[kind](adata.obs["bulk_labels"])
    ssc.tl.feature_association(adata, ["bulk_labels", "other"])
    expected, found = wide(adata, "pval"), wide(adata, "pval", "other")
    assert found.shape == (64, 10)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(expected, axis=1))


@pytest.mark.parametrize("dtype", [bool, object, "boolean"])
def test_booleans_are_labels(adata, dtype):
    adata.obs["flag"] = pd.Series(np.arange(700) % 3 == 0, index=adata.obs_names).astype(dtype)
    ssc.tl.feature_association(adata, "flag")
    assert list(wide(adata, "auroc", "flag").columns) == ["False", "True"]


@pytest.mark.parametrize("dtype", [int, np.float32, "Int64", "Float64", object])
def test_numbers_are_numbers_however_few_they_are(adata, dtype):
    adata.obs["level"] = pd.Series(np.arange(700) % 3, index=adata.obs_names).astype(dtype)
    ssc.tl.feature_association(adata, "level")
    assert "association" not in adata.uns["sae"]
    assert len(adata.uns["sae"]["association_numeric"]) == 64


def test_a_label_of_one_cell_is_tested_but_names_nothing(adata, monkeypatch):
    codes = adata.obsm["X_sae"].toarray()
    codes[:, 7] = 0
    codes[0, 7] = 9.0
    adata.obsm["X_sae"] = sparse.csr_matrix(codes)
    adata.obs["clone"] = np.where(np.arange(700) == 0, "single", np.where(np.arange(700) % 2, "a", "b"))
    lines = said(monkeypatch)
    ssc.tl.feature_association(adata, "clone")
    row = ssc.get.association(adata, "sae_7").set_index("category").loc["single"]
    assert row["pearson_r"] == pytest.approx(1)
    assert row["auroc"] == 1
    assert row["n_cells"] == 1
    assert row["pval"] == pytest.approx(1 / 700)  # and not 1e-150: one cell in 700 is the best there can be
    assert set(ssc.get.association(adata, table="labels")["category"]) == {"a", "b"}
    assert "single" not in set(adata.uns["sae"]["features"]["label"])
    assert any("single (1)" in line and "fewer than min_cells=10 cells" in line for line in lines)


# the door


def bad_columns(adata):
    adata.obs["constant"] = "x"
    adata.obs["constant number"] = 1.0
    adata.obs["empty"] = np.nan
    adata.obs["barcode"] = adata.obs_names.astype(str)
    adata.obs["date"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(700), unit="D")
    adata.obs["complex"] = np.arange(700) * 1j
    adata.obs["infinite"] = np.where(np.arange(700) < 2, np.inf, 1.0 * np.arange(700))
    adata.obs["alike"] = pd.Categorical([1, "1"] * 350)
    return adata


BAD_COLUMNS = [
    ("celltype", KeyError, r"Did not find adata.obs\['celltype'\]. Available: 'bulk_labels'"),
    ("constant", ValueError, "'constant'.* has only one value"),
    ("constant number", ValueError, "'constant number'.* has only one value"),
    ("empty", ValueError, "'empty'.* has a value in 0 cells"),
    ("barcode", ValueError, "a label of its own for each of 700 cells, as identifiers do"),
    ("date", TypeError, "holds datetime64 .*neither labels nor numbers"),
    ("complex", TypeError, "holds complex .*neither labels nor numbers"),
    ("infinite", ValueError, "holds 2 infinite values"),
    ("alike", ValueError, "read the same as text: '1'"),
    ([], ValueError, "keys is empty"),
]


@pytest.mark.parametrize(("keys", "error", "message"), BAD_COLUMNS)
def test_bad_columns_are_refused_before_anything_is_written(adata, keys, error, message):
    bad_columns(adata)
    before = dict(adata.uns["sae"])
    with pytest.raises(error, match=message):
        ssc.tl.feature_association(adata, ["phase", keys] if keys else keys)
    assert dict(adata.uns["sae"]).keys() == before.keys()
    assert adata.uns["sae"]["features"] is before["features"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"min_r": 0}, "min_r must lie between 0 and 1"),
        ({"holdout": 1.0}, "holdout must lie between 0 and 1"),
        ({"min_cells": 0}, "min_cells must be a whole number"),
        ({"pvalues": "exact"}, "Unknown pvalues: 'exact'"),
    ],
)
def test_bad_options(adata, option, message):
    with pytest.raises(ValueError, match=message):
        ssc.tl.feature_association(adata, "bulk_labels", **option)


def test_needs_a_fit(pbmc68k):
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.fit_sae first"):
        ssc.tl.feature_association(pbmc68k, "bulk_labels")
