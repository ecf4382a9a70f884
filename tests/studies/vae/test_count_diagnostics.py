from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import sparsesc as ssc


def simulate(n_cells=400, *, seed=0) -> AnnData:
    """Two types: genes 0-9 Poisson, 10-19 negative binomial, 20-29 zero-inflated, 30-39 only in type b; 40 is rare."""
    rng = np.random.default_rng(seed)
    kind = np.repeat([0, 1], n_cells // 2)
    rate = np.full((n_cells, 41), 2.0)
    rate[:, 10:30] *= rng.gamma(2, 0.5, (n_cells, 20))
    rate[:, 20:30] *= rng.random((n_cells, 10)) > 0.5
    rate[kind == 0, 30:40] *= 0.05
    rate[:, 40] = 0.001
    size = rng.lognormal(0, 0.4, n_cells)[:, None]
    others = np.full(100, 20.0)  # most of the counts of a cell, so that its total is its size
    counts = np.hstack([rng.poisson(size * rate), rng.poisson(size * others)])
    obs = pd.DataFrame(
        {
            "type": pd.Categorical(np.array(["a", "b"])[kind]),
            "plate": pd.Categorical((np.arange(n_cells) % 3).astype(str)),
        },
        index=[f"cell_{i}" for i in range(n_cells)],
    )
    return AnnData(
        sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(141)])
    )


@pytest.fixture(scope="module")
def _fitted():
    adata = simulate()
    ssc.tl.count_diagnostics(adata, groupby="type", batch_key="plate", progress_bar=False)
    return adata


@pytest.fixture
def fitted(_fitted):
    return _fitted.copy()


def test_every_kind_of_gene_is_told(fitted):
    table = ssc.get.count_diagnostics(fitted)
    assert "G40" not in table.index  # too few cells
    family = table["family"]
    assert (family[[f"G{i}" for i in range(10)]] == "poisson").mean() >= 0.8
    assert (family[[f"G{i}" for i in range(10, 20)]] == "nb").mean() >= 0.8
    assert (family[[f"G{i}" for i in range(20, 30)]] == "zinb").mean() >= 0.8
    assert (family[[f"G{i}" for i in range(30, 40)]] == "poisson").mean() >= 0.8
    assert table.loc["G10":"G19", "overdispersion"].median() == pytest.approx(0.5, abs=0.1)
    assert table.loc["G20":"G29", "zero_inflation"].median() == pytest.approx(0.5, abs=0.1)


def test_without_their_types_genes_of_one_type_look_overdispersed(fitted):
    apart = ssc.get.count_diagnostics(fitted).loc["G30":"G39"]
    ssc.tl.count_diagnostics(fitted, progress_bar=False)
    together = ssc.get.count_diagnostics(fitted).loc["G30":"G39"]
    assert (apart["padj_nb"] > 0.05).mean() >= 0.8
    assert (together["padj_nb"] < 1e-6).all()


def test_table_describes_the_counts(fitted):
    table = ssc.get.count_diagnostics(fitted)
    x = fitted[:, table.index].X.toarray().astype(float)
    np.testing.assert_allclose(table["mean"], x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(table["variance"], x.var(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(table["zeros"], (x == 0).mean(0))
    bic = table[[f"bic_{name}" for name in ("poisson", "nb", "zinb", "lognormal")]].to_numpy()
    np.testing.assert_allclose(table["margin"], np.sort(bic, axis=1)[:, 1] - bic.min(1))
    n_parameters = (
        bic + 2 * table[[f"loglik_{n}" for n in ("poisson", "nb", "zinb", "lognormal")]].to_numpy()
    ) / np.log(400)
    np.testing.assert_allclose(n_parameters, np.broadcast_to([6, 7, 8, 7], bic.shape))
    assert (table["padj_nb"] >= table["pval_nb"]).all()


def test_families_and_summary_add_up(fitted):
    table = ssc.get.count_diagnostics(fitted)
    families = ssc.get.count_diagnostics(fitted, table="families")
    assert families["n_genes"].sum() == len(table) == 140
    np.testing.assert_allclose(families["loglik"], [table[f"loglik_{n}"].sum() / 400 for n in families.index])
    np.testing.assert_allclose(families.loc["zinb", "zeros"], table["zeros_zinb"].mean())
    summary = ssc.get.count_diagnostics(fitted, table="summary").set_index("statistic")["value"]
    assert summary["n_genes_left_out"] == 1
    assert summary["zeros"] == pytest.approx(1 - fitted.X.nnz / np.prod(fitted.shape))
    totals = np.asarray(fitted.X.sum(1)).ravel()
    assert summary["size_cv2"] == pytest.approx(totals.var() / totals.mean() ** 2, rel=1e-5)


def test_sizes_can_be_given(fitted):
    fitted.obs["total"] = 1.0
    ssc.tl.count_diagnostics(fitted, size_key="total", progress_bar=False)
    table = ssc.get.count_diagnostics(fitted)
    assert (table.loc["G0":"G9", "padj_nb"] < 0.05).mean() >= 0.8  # the sizes that were left out are overdispersion
    with pytest.raises(ValueError, match="must hold positive totals"):
        fitted.obs["total"] = 0.0
        ssc.tl.count_diagnostics(fitted, size_key="total")


def test_cells_without_labels_or_counts_are_left_out():
    adata = simulate()
    counts = adata.X.toarray()
    counts[5] = 0
    adata.X = sparse.csr_matrix(counts)
    adata.obs.loc["cell_7", "type"] = np.nan
    ssc.tl.count_diagnostics(adata, groupby="type", progress_bar=False)
    summary = ssc.get.count_diagnostics(adata, table="summary").set_index("statistic")["value"]
    assert summary["n_cells"] == 398


@pytest.mark.parametrize("file", ["h5ad", "zarr"])
def test_tables_survive_a_file(fitted, file, tmp_path):
    path = tmp_path / f"cells.{file}"
    getattr(fitted, f"write_{file}")(path)
    again = getattr(ad, f"read_{file}")(path)
    for name in ("genes", "families", "summary"):
        pd.testing.assert_frame_equal(
            ssc.get.count_diagnostics(again, table=name),
            ssc.get.count_diagnostics(fitted, table=name),
            check_dtype=False,
        )
    assert again.uns["count_diagnostics"]["params"]["batch_key"] == "plate"


def test_copy_and_layer(fitted):
    fitted.layers["counts"] = fitted.X.copy()
    fitted.X = np.log1p(fitted.X.toarray())
    before = fitted.uns["count_diagnostics"]["genes"].copy()
    copied = ssc.tl.count_diagnostics(
        fitted, layer="counts", key_added="other", groupby="type", batch_key="plate", copy=True, progress_bar=False
    )
    assert "other" not in fitted.uns
    pd.testing.assert_frame_equal(ssc.get.count_diagnostics(copied, key="other"), before)


@pytest.mark.parametrize(
    ("change", "options", "error", "match"),
    [
        (None, {"layer": "no"}, KeyError, "Did not find adata.layers"),
        (None, {"batch_key": "no"}, KeyError, "Did not find adata.obs"),
        (None, {"min_cells": 1000}, ValueError, "No gene has a count"),
        (None, {"min_cells": 0}, ValueError, "at least 1"),
        (None, {"key_added": "a/b"}, ValueError, "without '/'"),
        ("log", {}, ValueError, "only counts can be fitted"),
        ("taken", {}, ValueError, "would overwrite"),
        ("few", {}, ValueError, "at least 20 are needed"),
    ],
)
def test_bad_input_is_told_and_leaves_things_alone(change, options, error, match):
    adata = simulate(100)
    if change == "log":
        adata.X = adata.X.log1p()
    if change == "taken":
        adata.uns["count_diagnostics"] = 1
    if change == "few":
        adata = adata[:10].copy()
    before = set(adata.uns)
    with pytest.raises(error, match=match):
        ssc.tl.count_diagnostics(adata, **options)
    assert set(adata.uns) == before


def test_getter_says_what_to_run():
    adata = simulate(20)
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.count_diagnostics first"):
        ssc.get.count_diagnostics(adata)
    with pytest.raises(ValueError, match="Unknown table"):
        ssc.get.count_diagnostics(adata, table="nothing")


def test_statsmodels_agrees_on_real_genes(published):
    """Negative binomial fits of real marrow genes against an independent implementation."""
    sm = pytest.importorskip("statsmodels.api", reason="statsmodels is not installed")
    adata = published("bonemarrow_mouse")
    adata = adata[::4].copy()
    sizes = np.asarray(adata.X.sum(1)).ravel()
    n_cells = adata.X.getnnz(axis=0)
    rng = np.random.default_rng(0)
    chosen = [
        rng.choice(np.flatnonzero((n_cells >= low) & (n_cells < high)), 4)
        for low, high in [(20, 60), (60, 200), (200, 680)]
    ]
    adata.obs["total"] = sizes
    part = adata[:, np.unique(np.concatenate(chosen))].copy()
    ssc.tl.count_diagnostics(part, size_key="total", progress_bar=False)
    table = ssc.get.count_diagnostics(part)
    exposure = sizes / sizes.mean()
    compared = 0
    for gene in table.index[table["overdispersion"] > 0]:
        x = part[:, gene].X.toarray().ravel()
        theirs = sm.NegativeBinomial(x, np.ones((len(x), 1)), exposure=exposure).fit(disp=0, maxiter=500, gtol=1e-7)
        assert table.loc[gene, "loglik_nb"] == pytest.approx(theirs.llf, abs=5e-3)
        assert table.loc[gene, "overdispersion"] == pytest.approx(theirs.params[1], rel=0.01)
        compared += 1
    assert compared >= 8
