from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from scipy import sparse
from sklearn.metrics import f1_score

import sparsesc as ssc

COLUMNS = [
    "category",
    "n_cells",
    "feature",
    "f1",
    "recall",
    "precision",
    "split",
    "split_features",
    "f1_split",
    "missed",
    "absorbed",
    "absorbed_expected",
    "absorbers",
    "pval",
    "padj",
]


def planted(*, absorbed: bool, n_types: int = 3, n: int = 400, seed: int = 0) -> ad.AnnData:
    """Types with a detector each (2 t) that misses a tenth of its cells; feature 2 t + 1 is active in these cells,
    or in as many cells of the type drawn at random."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_types), n)
    codes = np.where(rng.random((len(labels), 2 * n_types + 10)) < 0.01, 0.2, 0.0)
    codes[:, : 2 * n_types] = 0
    for t in range(n_types):
        cells = np.flatnonzero(labels == t)
        missed = rng.permutation(cells)[: n // 10]
        codes[cells, 2 * t] = rng.uniform(1, 2, n)
        codes[missed, 2 * t] = 0
        codes[missed if absorbed else rng.permutation(cells)[: n // 10], 2 * t + 1] = rng.uniform(0.5, 1, n // 10)
    directions = np.repeat(np.eye(n_types), 2, axis=0)
    embedding = np.eye(n_types)[labels] + rng.normal(0, 0.1, (len(labels), n_types))
    adata = ad.AnnData(
        obs=pd.DataFrame({"type": [f"t{i}" for i in labels]}, index=[f"c{i}" for i in range(len(labels))]),
        obsm={"X_pca": embedding},
    )
    decoder = np.vstack([directions, rng.normal(size=(10, n_types))])
    names = pd.Index([f"sae_{i}" for i in range(codes.shape[1])], name="feature")
    features = pd.DataFrame({"n_cells": (codes > 0).sum(0)}, index=names)
    adata.uns["sae"] = {"params": {"use_rep": "X_pca"}, "weights": {"W_dec": decoder}, "features": features}
    adata.obsm["X_sae"] = sparse.csr_matrix(codes.astype(np.float32))
    return adata


def test_absorbed_cells_are_found():
    adata = planted(absorbed=True)
    # a union detector would find the small feature worth 5 % of F1
    assert ssc.tl.feature_absorption(adata, "type", min_gain=0.1) is None
    table = adata.uns["sae"]["absorption"]
    assert list(table.columns) == COLUMNS
    assert table["feature"].tolist() == ["sae_0", "sae_2", "sae_4"]
    assert table["absorbers"].tolist() == ["sae_1", "sae_3", "sae_5"]
    assert table["split"].eq(1).all()
    np.testing.assert_allclose(table["missed"], 0.1, atol=0.04)
    np.testing.assert_allclose(table["absorbed"], table["missed"])
    assert (table["absorbed_expected"] < 0.02).all()
    assert (table["padj"] < 1e-6).all()


def test_a_small_share_counts_as_split_when_it_is_worth_it():
    adata = planted(absorbed=True)
    ssc.tl.feature_absorption(adata, "type")
    table = adata.uns["sae"]["absorption"]
    assert table["split_features"].tolist() == ["sae_0; sae_1", "sae_2; sae_3", "sae_4; sae_5"]
    assert (table["f1_split"] > table["f1"] + 0.03).all()
    assert (table["missed"] == 0).all()


def test_cells_missed_at_random_are_not_absorbed():
    p = []
    for seed in range(3):
        adata = planted(absorbed=False, n_types=40, n=120, seed=seed)
        ssc.tl.feature_absorption(adata, "type", min_gain=0.1, rng=seed)
        table = adata.uns["sae"]["absorption"]
        np.testing.assert_allclose(table["missed"].mean(), 0.1, atol=0.02)
        assert table["absorbed"].mean() < 0.02
        p.append(table["pval"])
        assert (table["padj"] > 0.05).all()
    assert (np.concatenate(p) < 0.05).mean() < 0.05


def test_a_feature_that_points_elsewhere_does_not_absorb():
    adata = planted(absorbed=True)
    adata.uns["sae"]["weights"]["W_dec"][3] *= -1
    ssc.tl.feature_absorption(adata, "type", min_gain=0.1)
    table = adata.uns["sae"]["absorption"]
    assert table["absorbers"].tolist() == ["sae_1", "", "sae_5"]
    assert table.loc[1, "absorbed"] == 0
    assert table.loc[1, "pval"] == 1


def test_scores_are_of_held_out_cells(pbmc68k_code):
    ssc.tl.feature_absorption(pbmc68k_code, "bulk_labels", rng=3)
    table = pbmc68k_code.uns["sae"]["absorption"]
    sizes = pbmc68k_code.obs["bulk_labels"].value_counts()
    assert set(table["category"]) == set(sizes[sizes >= 20].index)
    np.testing.assert_allclose(table["n_cells"], sizes[table["category"]] / 2, atol=1)
    whole = [
        f1_score(pbmc68k_code.obs["bulk_labels"] == c, pbmc68k_code.obsm["X_sae"][:, int(f[4:])].toarray().ravel() > 0)
        for c, f in zip(table["category"], table["feature"], strict=True)
    ]
    assert np.corrcoef(table["f1"], whole)[0, 1] > 0.5
    again = ssc.tl.feature_absorption(pbmc68k_code, "bulk_labels", rng=3, copy=True)
    pd.testing.assert_frame_equal(again.uns["sae"]["absorption"], table)


def test_round_trip(tmp_path):
    adata = planted(absorbed=True)
    ssc.tl.feature_absorption(adata, "type")
    path = tmp_path / "x.h5ad"
    adata.write_h5ad(path)
    back = read_h5ad(path)
    pd.testing.assert_frame_equal(
        pd.DataFrame(back.uns["sae"]["absorption"]), adata.uns["sae"]["absorption"], check_dtype=False
    )


@pytest.mark.parametrize(
    ("groupby", "options", "error", "message"),
    [
        ("nothing", {}, KeyError, r"Did not find adata.obs\['nothing'\]"),
        ("n_counts", {}, TypeError, r"adata.obs\['n_counts'\] holds numbers"),
        (
            "bulk_labels",
            {"min_cells": 1000},
            ValueError,
            r"No category of adata.obs\['bulk_labels'\] has at least min_",
        ),
        ("bulk_labels", {"min_cells": 3}, ValueError, "min_cells must be at least 4"),
        ("bulk_labels", {"max_features": 0}, ValueError, "max_features must be a whole number of at least 1"),
        ("bulk_labels", {"holdout": 1}, ValueError, "holdout must lie between 0 and 1"),
        ("bulk_labels", {"min_precision": 0}, ValueError, "min_precision must lie between 0 and 1"),
        ("bulk_labels", {"min_gain": -1}, ValueError, "min_gain must lie between 0 and 1"),
    ],
)
def test_bad_input(pbmc68k_code, groupby, options, error, message):
    with pytest.raises(error, match=message):
        ssc.tl.feature_absorption(pbmc68k_code, groupby, **options)
    assert "absorption" not in pbmc68k_code.uns["sae"]
