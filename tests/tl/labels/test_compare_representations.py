from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sparsesc as ssc
from sparsesc.door._keys import REPRESENTATION_COLUMNS
from sparsesc.stats.groups._representation import METRICS
from sparsesc.tl.labels._controls import random_code

LABELS = "bulk_labels"


def compare(adata, use_reps, keys=LABELS, **options):
    options = {"n_permutations": 0, "progress_bar": False} | options
    return ssc.tl.compare_representations(adata, use_reps, keys, **options)


def values(table, name, metric, key=LABELS):
    rows = table[(table["representation"] == name) & (table["metric"] == metric) & (table["label_key"] == key)]
    return rows["value"].item()


def test_one_row_a_representation_label_key_and_metric(pbmc68k_code):
    before = pbmc68k_code.copy()
    table = compare(pbmc68k_code, ["X_sae", "X_pca"], [LABELS, "phase"], n_permutations=3)
    assert tuple(table.columns) == REPRESENTATION_COLUMNS
    assert len(table) == 2 * 2 * len(METRICS)
    assert list(table["representation"].cat.categories) == ["X_sae", "X_pca"]
    assert list(table["metric"].cat.categories) == list(METRICS)
    assert not table.duplicated(["representation", "label_key", "metric"]).any()
    assert (table.loc[table["representation"] == "X_sae", "n_features"] == 64).all()
    assert set(table["n_labels"]) == {9, 3}  # one type has 3 cells
    assert not table.drop(columns="pval").isna().any(axis=None)
    assert table["pval"].between(0.25, 1).all()
    assert set(pbmc68k_code.obsm) == set(before.obsm)
    assert set(pbmc68k_code.uns) == set(before.uns)


def test_sparse_dense_frames_and_names_agree(pbmc68k_code):
    codes = pbmc68k_code.obsm["X_sae"]
    frame = pd.DataFrame(codes.toarray(), index=pbmc68k_code.obs_names)
    frame.columns = frame.columns.astype(str)
    use_reps = {"name": "X_sae", "csc": sparse.csc_array(codes), "dense": codes.toarray(), "frame": frame}
    table = compare(pbmc68k_code, use_reps)
    wide = table.pivot(index="metric", columns="representation", values="value")
    for other in wide:
        np.testing.assert_allclose(wide[other], wide["name"], atol=1e-12)


def test_labels_themselves_are_perfect_and_shuffled_labels_are_not(pbmc68k_code):
    members = np.eye(10)[pbmc68k_code.obs[LABELS].cat.codes].astype(np.float32)
    noise = np.random.default_rng(0).normal(size=members.shape)
    table = compare(pbmc68k_code, {"labels": members, "noise": noise}, n_permutations=39)
    perfect = table[table["representation"] == "labels"].set_index("metric")
    assert perfect.loc["singular_labels", "value"] == 9
    np.testing.assert_allclose(perfect.loc[["auroc", "coverage", "f1", "probe_5", "lms_smi", "msas_spn"], "value"], 1)
    assert (perfect["pval"] == 1 / 40).all()
    assert (perfect["null_mean"] < 0.7).all()
    nothing = table[table["representation"] == "noise"].set_index("metric")
    assert (nothing["pval"] > 0.025).mean() > 0.8
    assert nothing.loc["auroc", "value"] == pytest.approx(0.5, abs=0.06)
    z = (nothing["value"] - nothing["null_mean"]) / nothing["null_sd"].where(nothing["null_sd"] > 0, 1)
    assert z.abs().max() < 4


def test_cells_without_a_label_are_left_out(pbmc68k_code):
    adata = pbmc68k_code
    adata.obs["some"] = adata.obs[LABELS].where(np.arange(adata.n_obs) % 3 > 0)
    table = compare(adata, "X_sae", "some")
    part = adata[adata.obs["some"].notna()].copy()
    expected = compare(part, "X_sae", "some")
    assert set(table["n_cells"]) == {part.n_obs}
    np.testing.assert_allclose(table["value"], expected["value"])


def test_the_same_rng_gives_the_same_table_and_representations_do_not_disturb_each_other(pbmc68k_code):
    options = {"n_permutations": 2, "rng": 5}
    both = compare(pbmc68k_code, ["X_pca", "X_sae"], **options)
    alone = compare(pbmc68k_code, ["X_sae"], **options)
    again = both[both["representation"] == "X_sae"].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        again.drop(columns="representation"), alone.drop(columns="representation"), check_exact=True
    )
    assert not np.array_equal(compare(pbmc68k_code, ["X_sae"], rng=6)["value"], alone["value"])


def test_two_categories_are_one_contrast(pbmc68k_code):
    adata = pbmc68k_code
    adata.obs["b"] = (adata.obs[LABELS] == "CD19+ B").map({True: "B", False: "other"})
    adata.obsm["X_b"] = np.column_stack([adata.obs["b"] == "B", adata.obs["b"] != "B"]).astype(np.float32)
    table = compare(adata, "X_b", "b")
    assert values(table, "X_b", "singular", "b") == 2
    assert values(table, "X_b", "singular_labels", "b") == 2
    # the two columns say the same
    assert set(table.loc[table["metric"] == "msgs_smi_distinct", "n_features"]) == {1}
    assert np.isnan(values(table, "X_b", "msgs_smi_distinct", "b"))


# controls


def test_controls_have_the_shape_of_what_they_stand_beside(pbmc68k_code):
    names = ("pca", "ica", "nmf", "random_sae")
    use_reps = {"code": "X_sae", "first": pbmc68k_code.obsm["X_pca"][:, :10]}
    table = compare(pbmc68k_code, use_reps, controls=names, use_rep="X_pca", n_components=10)
    width = table.groupby("representation", observed=True)["n_features"].max()
    assert list(width.index) == ["code", "first", *names]
    assert list(width) == [64, 10, 10, 10, 10, 64]
    # principal components of principal components are the same, up to their sign
    for metric in ("auroc", "lms_smi", "lms_spn", "f1"):
        assert values(table, "pca", metric) == pytest.approx(values(table, "first", metric), abs=0.02)
    # the code of these tests is untrained as well
    assert values(table, "random_sae", "auroc") == pytest.approx(values(table, "code", "auroc"), abs=0.12)


def test_random_codes_follow_every_width(pbmc68k_code):
    adata = pbmc68k_code
    X = np.asarray(adata.obsm["X_pca"], dtype=np.float32)
    adata.obsm["X_wide"] = random_code(X, 100, 3, np.random.default_rng(1))
    adata.obsm["X_same"] = random_code(X, 100, 3, np.random.default_rng(2))
    assert set(np.diff(adata.obsm["X_wide"].indptr)) == {3}
    table = compare(adata, ["X_sae", "X_wide", "X_same"], controls="random_sae", use_rep="X_pca")
    assert list(table["representation"].cat.categories[3:]) == ["random_sae (X_sae)", "random_sae (X_wide)"]
    table = compare(adata, "X_pca", controls="random_sae", n_components=5)
    assert table.loc[table["representation"] == "random_sae", "n_features"].iloc[0] == 128


def test_width_of_components_can_be_asked_for(pbmc68k_code):
    table = compare(pbmc68k_code, "X_pca", controls=["pca", "nmf"], n_components=7)
    controls = table[table["representation"] != "X_pca"]
    assert set(controls.loc[~controls["metric"].str.endswith("_distinct"), "n_features"]) == {7}


def test_expression_is_a_representation(pbmc68k_code):
    adata = pbmc68k_code
    adata.X = sparse.csr_matrix(np.maximum(adata.X, 0))
    table = compare(adata, ["X"], controls="nmf", n_components=3)
    assert list(table["representation"].cat.categories) == ["X", "nmf"]
    assert values(table, "X", "auroc") > 0.8


# bad input


@pytest.mark.parametrize(
    ("use_reps", "keys", "options", "error", "match"),
    [
        ("X_scVI", LABELS, {}, KeyError, r"Did not find adata.obsm\['X_scVI'\]. Available: 'X_pca'"),
        ("X_sae", "cell_type", {}, KeyError, r"Did not find adata.obs\['cell_type'\]"),
        ([], LABELS, {}, ValueError, "use_reps is empty. Name entries of adata.obsm: 'X_pca'"),
        ("X_sae", [], {}, ValueError, "label_keys is empty"),
        ([np.ones((700, 2))], LABELS, {}, TypeError, "Give arrays by name"),
        ({"a": np.ones((5, 2))}, LABELS, {}, ValueError, r"one row for each of 700 cells, .* found shape \(5, 2\)"),
        ({"a": np.full((700, 2), np.nan)}, LABELS, {}, ValueError, r"use_reps\['a'\] holds 1400 NaN"),
        ({"a": sparse.csr_array(np.full((700, 2), np.inf))}, LABELS, {}, ValueError, "holds 1400 NaN or infinite"),
        ("X_sae", "n_counts", {}, TypeError, r"holds numbers, and label_keys need labels.*astype\(\"category\"\)"),
        ("X_sae", LABELS, {"min_cells": 900}, ValueError, "No category .* has min_cells=900 cells: the largest has"),
        ("X_sae", LABELS, {"holdout": 0.001}, ValueError, "can be scored: after holding out 10 of 700 cells"),
        ("X_sae", LABELS, {"controls": "umap"}, ValueError, "Unknown control: 'umap'. Choose one of 'pca'"),
        ("X_sae", LABELS, {"n_permutations": -1}, ValueError, "n_permutations must be a whole number of at least 0"),
        ("X_sae", LABELS, {"n_components": 0}, ValueError, "n_components must be a whole number of at least 1"),
        ("X_sae", LABELS, {"min_r": 1.5}, ValueError, "min_r must lie between 0 and 1, found 1.5"),
        ("X_sae", LABELS, {"duplicates": 0}, ValueError, "duplicates must lie between 0 and 1, found 0"),
        ({"pca": "X_pca"}, LABELS, {"controls": "pca"}, ValueError, "Representations and controls share names: 'pca'"),
        ({"a": np.ones((700, 2))}, LABELS, {"controls": "ica"}, ValueError, "say by use_rep which entry"),
    ],
)
def test_bad_input_is_refused_at_the_door(pbmc68k_code, use_reps, keys, options, error, match):
    with pytest.raises(error, match=match):
        compare(pbmc68k_code, use_reps, keys, **options)
