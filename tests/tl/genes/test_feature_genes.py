from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

import sparsesc as ssc
from sparsesc.stats.core import _row_blocks


@pytest.fixture
def adata(pbmc68k_code):
    return pbmc68k_code


def table(adata, **kwargs):
    ssc.tl.feature_genes(adata, progress_bar=False, **kwargs)
    return adata.uns["sae"]["genes"]


def strong_cells(adata, feature, quantile=None, min_cells=10):
    """Written again from the documentation."""
    values = adata.obsm["X_sae"][:, [feature]].toarray().ravel().astype(np.float64)
    active = np.sort(values[values > 0])
    tenth = values >= active[-min(min_cells, len(active))]
    if quantile is None:
        return (values > 0.5 * (active @ active) / active.sum()) | tenth, values == 0
    return (values >= np.quantile(active, quantile, method="higher")) | tenth, values == 0


def test_writes_its_slots(adata):
    found = table(adata)
    assert list(found.columns[:6]) == ["feature", "gene", "score", "logfc", "pval", "padj"]
    assert {"rank", "mean_in", "mean_out", "effect_size", "pval_parametric"} <= set(found.columns)
    assert len(found) == 64 * 50
    assert (found["score"] > 0).all()
    assert found.groupby("feature")["score"].apply(lambda s: s.is_monotonic_decreasing).all()
    assert found.groupby("feature", sort=False)["rank"].apply(lambda r: r.tolist() == list(range(1, 51))).all()
    scores = adata.varm["sae_genes"]
    assert scores.shape == (adata.n_vars, 64)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    row = adata.var_names.get_indexer(found["gene"])
    column = adata.uns["sae"]["features"].index.get_indexer(found["feature"])
    np.testing.assert_allclose(scores[row, column], found["score"], rtol=1e-6)
    top = found[found["feature"] == "sae_3"]["gene"][:5]
    assert adata.uns["sae"]["features"].loc["sae_3", "top_genes"] == ",".join(top)


def test_agrees_with_scipy_from_what_the_documentation_says(adata):
    found = table(adata, pvalues="parametric", skew_guard=0, n_top=None, direction="both")
    raw = pd.DataFrame(adata.raw.X.toarray().astype(np.float64), columns=adata.raw.var_names)
    for feature in [0, 7, 40]:
        strong, silent = strong_cells(adata, feature)
        rows = found[found["feature"] == f"sae_{feature}"].set_index("gene").loc[raw.columns]
        varies = (raw[strong].var() > 0) | (raw[silent].var() > 0)
        expected = stats.ttest_ind(raw[strong], raw[silent], equal_var=False)
        np.testing.assert_allclose(rows["score"][varies], expected.statistic[varies], rtol=1e-6)
        np.testing.assert_allclose(rows["pval"][varies], expected.pvalue[varies], rtol=1e-6)
        change = (raw[strong].mean() - raw[silent].mean()) / np.log(2)
        np.testing.assert_allclose(rows["logfc"], change, rtol=1e-6, atol=1e-9)
    expected = stats.false_discovery_control(found["pval"])
    np.testing.assert_allclose(found["padj"], expected, rtol=1e-6)


@pytest.mark.parametrize("method", ["contrast", "correlation"])
def test_padj_is_for_all_tests_also_in_a_short_table(adata, method):
    everything = table(adata, method=method, n_top=None, direction="both")
    assert len(everything) == 64 * 765
    np.testing.assert_allclose(everything["padj"], stats.false_discovery_control(everything["pval"]), rtol=1e-6)
    short = table(adata, method=method, n_top=3)
    assert len(short) == 64 * 3
    merged = short.merge(everything, on=["feature", "gene"], suffixes=("", "_all"))
    np.testing.assert_array_equal(merged["padj"], merged["padj_all"])


def test_correlation_is_pearson_r(adata):
    found = table(adata, method="correlation").iloc[::97]
    raw = adata.raw.to_adata().to_df()
    codes = pd.DataFrame(adata.obsm["X_sae"].toarray(), raw.index, adata.uns["sae"]["features"].index)
    for row in found.itertuples():
        expected = stats.pearsonr(raw[row.gene].astype(float), codes[row.feature].astype(float))
        assert row.score == pytest.approx(expected.statistic, rel=1e-6)
        assert row.pval_parametric == pytest.approx(expected.pvalue, rel=1e-6)


@pytest.mark.parametrize("direction", ["down", "both"])
def test_direction(adata, direction):
    found = table(adata, direction=direction, n_top=20)
    scores = adata.varm["sae_genes"]
    best = -scores if direction == "down" else np.abs(scores)
    for feature in range(0, 64, 9):
        rows = found[found["feature"] == f"sae_{feature}"]
        largest = np.sort(best[:, feature])[::-1][:20]
        sign = -1 if direction == "down" else np.sign(rows["score"])
        np.testing.assert_allclose(rows["score"] * sign, largest, rtol=1e-6)


KINDS = ["csc", "dense", "dask", "backed h5ad", "backed dense", "backed csc", "zarr"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_memory", [4.0, 2e-3])
def test_all_kinds_of_matrix_give_the_same(adata, kind, max_memory, tmp_path, monkeypatch):
    monkeypatch.setattr(_row_blocks, "_BLOCK_BYTES", 200_000)
    adata.X = sparse.csr_matrix(adata.raw.X)
    del adata.raw
    expected = table(adata)
    scores = adata.varm["sae_genes"].copy()
    other = adata.copy()
    if kind == "csc" or kind == "backed csc":
        other.X = adata.X.tocsc()
    elif kind in {"dense", "dask", "backed dense"}:
        other.X = adata.X.toarray()
    if kind == "dask":
        other.X = pytest.importorskip("dask.array").from_array(other.X, chunks=(150, 300))
    elif kind.startswith("backed"):
        other.write_h5ad(tmp_path / "x.h5ad")
        other = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    elif kind == "zarr":
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(tmp_path / "x.zarr", mode="w")
        ad.io.write_elem(group, "X", adata.X)
        other.X = ad.io.sparse_dataset(zarr.open_group(tmp_path / "x.zarr", mode="r")["X"])
    found = table(other, max_memory=max_memory)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9)
    np.testing.assert_allclose(other.varm["sae_genes"], scores, rtol=1e-5, atol=1e-6)
    if other.isbacked:
        other.file.close()


def test_layer_x_and_raw_are_told_apart(adata):
    from_raw = table(adata).copy()
    adata.layers["same"] = adata.raw.X
    pd.testing.assert_frame_equal(table(adata, layer="same"), from_raw)
    assert not table(adata, use_raw=False).equals(from_raw)
    assert adata.uns["sae"]["params"]["feature_genes"]["scale"] == "scaled"
    assert not adata.uns["sae"]["params"]["feature_genes"]["use_raw"]


def test_raw_with_more_genes_fills_the_table_but_varm_keeps_the_genes_of_adata(adata):
    expected = table(adata).copy()
    few = adata[:, 100:300].copy()
    few.raw = adata.raw.to_adata()
    ssc.tl.feature_genes(few, progress_bar=False)
    pd.testing.assert_frame_equal(few.uns["sae"]["genes"], expected)
    np.testing.assert_array_equal(few.varm["sae_genes"], adata.varm["sae_genes"][100:300])
    assert not few.uns["sae"]["params"]["feature_genes"]["stored"]


def test_genes_that_were_not_tested_are_zero_in_varm(adata):
    raw = adata.raw.to_adata()[:, 5:].copy()
    raw.X = raw.X.toarray() * (np.arange(raw.n_vars) > 0)
    adata.raw = raw
    ssc.tl.feature_genes(adata, progress_bar=False)
    scores = adata.varm["sae_genes"]
    assert (scores[:6] == 0).all()
    assert (scores[6:] != 0).any(1).all()
    assert adata.uns["sae"]["params"]["feature_genes"]["n_genes_tested"] == 759


def test_features_with_few_cells_have_no_rows(adata):
    codes = adata.obsm["X_sae"].tolil()
    codes[:, 2] = 0
    codes[:, 5] = 0
    codes[:9, 5] = 1
    codes[:, 6] = 1  # never silent
    codes[:, 8] = 0
    codes[3, 8] = 1  # no variance in one cell
    codes[3, 9] = 0
    codes[:3, 9] = 1
    codes[4:, 9] = 1  # nor in one silent cell
    adata.obsm["X_sae"] = codes.tocsr()
    found = table(adata)
    assert not {"sae_2", "sae_5", "sae_6", "sae_8", "sae_9"} & set(found["feature"])
    assert (adata.varm["sae_genes"][:, [2, 5, 6, 8, 9]] == 0).all()
    assert adata.uns["sae"]["features"]["top_genes"].iloc[[2, 5, 6, 8, 9]].tolist() == [""] * 5
    assert adata.uns["sae"]["params"]["feature_genes"]["n_tests"] == 59 * 765
    table(adata, min_cells=9)
    assert "sae_5" in set(adata.uns["sae"]["genes"]["feature"])


def test_store(adata):
    table(adata)
    table(adata, store=False)
    assert "sae_genes" not in adata.varm  # an older one would not belong to the new table
    table(adata, store=True)
    assert "sae_genes" in adata.varm


def test_sampled_silent_cells_follow_rng(adata):
    first = table(adata, n_silent=100, rng=1).copy()
    pd.testing.assert_frame_equal(table(adata, n_silent=100, rng=np.random.default_rng(1)), first)
    assert not table(adata, n_silent=100, rng=2).equals(first)
    exact = table(adata)
    assert np.corrcoef(exact["mean_out"], exact["mean_in"])[0, 1] > 0.5


def test_copy_and_view(adata):
    copied = ssc.tl.feature_genes(adata, copy=True, progress_bar=False)
    assert "genes" not in adata.uns["sae"]
    assert "sae_genes" not in adata.varm
    assert "genes" in copied.uns["sae"]
    view = adata[100:600]
    with pytest.warns(ad.ImplicitModificationWarning, match="view"):
        ssc.tl.feature_genes(view, progress_bar=False)
    assert not view.is_view
    assert "genes" not in adata.uns["sae"]


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_survive_files(adata, tmp_path, suffix):
    found = table(adata)
    path = tmp_path / f"x.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    read = getattr(ad, f"read_{suffix}")(path)
    pd.testing.assert_frame_equal(read.uns["sae"]["genes"], found, check_dtype=False)
    np.testing.assert_array_equal(read.varm["sae_genes"], adata.varm["sae_genes"])
    ssc.tl.feature_enrichment(read, "immune_markers", progress_bar=False)


def test_markers_of_blood_cells(pbmc68k):
    """A feature that is a cell type must be told by that cell type's genes."""
    labels = pbmc68k.obs["bulk_labels"].astype(str)
    rng = np.random.default_rng(0)
    codes = np.zeros((pbmc68k.n_obs, 2), np.float32)
    for column, label in enumerate(["CD19+ B", "CD56+ NK"]):
        inside = (labels == label).to_numpy()
        codes[inside, column] = 1 + rng.random(inside.sum())
    pbmc68k.obsm["X_sae"] = sparse.csr_matrix(codes)
    features = pd.DataFrame({"dead": [False, False]}, index=["sae_0", "sae_1"])
    pbmc68k.uns["sae"] = {"params": {}, "weights": {}, "features": features}
    ssc.tl.feature_genes(pbmc68k, progress_bar=False)
    assert {"CD79A", "MS4A1", "CD74"} <= set(ssc.get.genes(pbmc68k, "sae_0")["gene"][:10])
    assert {"NKG7", "GNLY"} <= set(ssc.get.genes(pbmc68k, "sae_1")["gene"][:10])


def test_counts_and_scaled_values_are_pointed_out(adata, monkeypatch):
    messages = []
    monkeypatch.setattr("sparsesc._logging.warning", messages.append)
    table(adata)
    assert not messages
    adata.layers["counts"] = np.round(np.expm1(adata.raw.X.toarray()))
    rows = table(adata, layer="counts")
    assert "looks like counts" in messages.pop()
    np.testing.assert_allclose(rows["logfc"], np.log2((rows["mean_in"] + 1) / (rows["mean_out"] + 1)))
    rows = table(adata, use_raw=False)
    assert "has negative values" in messages.pop()
    np.testing.assert_allclose(rows["logfc"], rows["mean_in"] - rows["mean_out"])


def test_base_of_the_logarithm_is_read(adata):
    natural = table(adata)["logfc"].copy()
    adata.uns["log1p"] = {"base": 2}
    np.testing.assert_allclose(table(adata)["logfc"], natural * np.log(2))
    adata.uns["log1p"] = {}
    np.testing.assert_allclose(table(adata)["logfc"], natural)


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"key": "other"}, KeyError, r"No sparse autoencoder under key='other'"),
        ({"layer": "counts"}, KeyError, r"Did not find adata\.layers\['counts'\]"),
        ({"layer": "counts", "use_raw": True}, ValueError, r"exclude each other"),
        ({"method": "wilcoxon"}, ValueError, r"Unknown method: 'wilcoxon'.*'contrast', 'correlation'"),
        ({"pvalues": "exact"}, ValueError, r"Unknown pvalues"),
        ({"direction": "sideways"}, ValueError, r"Unknown direction"),
        ({"quantile": 1.5}, ValueError, r"quantile must lie between 0 and 1, found 1\.5"),
        ({"min_cells": 1}, ValueError, r"min_cells must be at least 2"),
        ({"min_cells": 2.5}, ValueError, r"min_cells must be a whole number"),
        ({"n_top": 0}, ValueError, r"n_top must be a whole number of at least 1"),
        ({"n_silent": 0}, ValueError, r"n_silent must be a whole number of at least 1"),
        ({"skew_guard": -1}, ValueError, r"skew_guard must not be negative"),
        ({"max_memory": 0}, ValueError, r"max_memory must be a positive number"),
        ({"store": "yes"}, ValueError, r"store must be True, False or 'auto'"),
        ({"min_cells": 600}, ValueError, r"None of the 64 features is active in at least min_cells=600"),
    ],
)
def test_bad_options_change_nothing(adata, kwargs, error, match):
    before = dict(adata.uns["sae"])
    with pytest.raises(error, match=match):
        ssc.tl.feature_genes(adata, progress_bar=False, **kwargs)
    assert set(adata.uns["sae"]) == set(before)
    assert "sae_genes" not in adata.varm


def test_repeated_gene_names_are_refused(adata):
    raw = adata.raw.to_adata()
    raw.var_names = ["CD79A", *raw.var_names[1:]]
    adata.raw = raw
    with pytest.raises(ValueError, match=r"Gene names repeat \(1 of them\): 'CD79A'.*var_names_make_unique"):
        ssc.tl.feature_genes(adata)


def test_matrices_without_information_are_refused(adata):
    adata.layers["zero"] = sparse.csr_matrix(adata.shape)
    with pytest.raises(ValueError, match="No gene varies"):
        ssc.tl.feature_genes(adata, layer="zero")
    adata.layers["nan"] = np.full(adata.shape, np.nan)
    with pytest.raises(ValueError, match=r"adata\.layers\['nan'\] holds .* NaN"):
        ssc.tl.feature_genes(adata, layer="nan")


def test_mudata_is_pointed_to_its_modality(adata):
    mudata = pytest.importorskip("mudata")
    mdata = mudata.MuData({"rna": adata})
    with pytest.raises(TypeError, match=r"pass mdata\['rna'\]"):
        ssc.tl.feature_genes(mdata)
    with pytest.raises(TypeError, match="Expected an AnnData"):
        ssc.tl.feature_genes(adata.to_df())
