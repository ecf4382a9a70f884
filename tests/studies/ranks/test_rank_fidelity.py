from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

import sparsesc as ssc

QUICK = {"n_boot": 40, "n_bins": 2, "thinning": (0.3,), "n_pcs": 10}


def simulate(n_types=6, n=40, n_genes=150, *, seed=0, strength=1.0, batch=0.0) -> AnnData:
    """Counts of types with programs of their own; type_4 is a copy of type_3, and cells of type_5 differ most."""
    rng = np.random.default_rng(seed)
    base = rng.gamma(0.6, size=n_genes)
    programs = strength * rng.normal(size=(n_types, n_genes)) * (rng.random((n_types, n_genes)) < 0.3)
    programs[4] = programs[3]
    kind = np.repeat(np.arange(n_types), n)
    plate = rng.integers(2, size=len(kind))
    log_mean = np.log(base) + programs[kind] + batch * rng.normal(size=(2, n_genes))[plate]
    log_mean[kind == 5] += 1.5 * rng.normal(size=((kind == 5).sum(), n_genes))
    mean = np.exp(log_mean)
    counts = rng.poisson(300 * mean / mean.sum(1, keepdims=True)).astype(np.float32)
    return AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame(
            {"type": [f"type_{k}" for k in kind], "batch": pd.Categorical(plate.astype(str))},
            index=[f"cell_{i}" for i in range(len(kind))],
        ),
        var=pd.DataFrame({"chosen": np.arange(n_genes) % 3 > 0}, index=[f"G{i}" for i in range(n_genes)]),
    )


@pytest.fixture(scope="module")
def _studied():
    adata = simulate(batch=0.4)
    rng = np.random.default_rng(1)
    adata.obsm["X_truth"] = np.eye(6)[[int(t[-1]) for t in adata.obs["type"]]] + 0.01 * rng.normal(size=(240, 6))
    adata.obsm["X_noise"] = rng.normal(size=(240, 2))
    ssc.tl.rank_fidelity(adata, "type", batch_key="batch", use_reps=["X_truth", "X_noise"], rank_map=True, **QUICK)
    return adata


@pytest.fixture
def studied(_studied):
    return _studied.copy()


def test_measures_are_those_asked_for(studied):
    assert list(ssc.get.rank_fidelity(studied)["measure"]) == [
        "rank", "expression", "expression_pca", "X_truth", "expression_umap", "rank_umap", "X_truth_umap", "X_noise"
    ]  # fmt: skip
    neighbors = ssc.get.rank_fidelity(studied, table="neighbors")
    assert list(neighbors["measure"]) == ["rank", "expression", "expression_pca", "X_truth"]
    assert len(ssc.get.rank_fidelity(studied, table="pairs")) == 8 * 21


def test_truth_separates_and_noise_does_not(studied):
    table = ssc.get.rank_fidelity(studied).set_index("measure")
    assert table.loc["X_truth", "auroc"] == 1
    assert table.loc["X_truth", "ratio"] < 0.1
    assert table.loc["X_noise", "auroc_low"] < 0.6
    assert table.loc["X_noise", "ratio"] == pytest.approx(1, abs=0.15)
    assert table.loc["rank", "auroc"] > 0.8
    for effect in ("auroc", "cohen_d", "ratio"):
        assert (table[f"{effect}_low"] <= table[effect] + 1e-9).all()
        np.testing.assert_allclose(table[f"{effect}_vs_rank"], table[effect] - table.loc["rank", effect])
        assert (table.loc["rank", f"{effect}_vs_rank_low"], table.loc["rank", f"{effect}_vs_rank_high"]) == (0, 0)


def test_planted_outliers_come_first(studied):
    table = ssc.get.rank_fidelity(studied, table="outliers")
    for measure in ("rank", "expression"):
        first = table[table["measure"] == measure].groupby("kind", sort=False).first()
        alike, loose = first.loc["different types alike"], first.loc["type unlike itself"]
        assert (alike["group_a"], alike["group_b"]) == ("type_3", "type_4")
        assert loose["group_a"] == loose["group_b"] == "type_5"
        assert loose["distance"] == loose["within_a"]
    assert (table["score"] > 0).all()


def test_neighbors_know_type_and_batch(studied):
    table = ssc.get.rank_fidelity(studied, table="neighbors").set_index("measure")
    assert table.loc["X_truth", "same_group"] > 0.99
    np.testing.assert_allclose(table["same_group_expected"], 39 / 239)
    # genes have a batch effect, the true types have none
    assert table.loc["X_truth", "same_batch"] == pytest.approx(table.loc["X_truth", "same_batch_expected"], abs=0.05)
    assert table.loc["rank", "same_batch_low"] > table.loc["rank", "same_batch_expected"]
    by_group = ssc.get.rank_fidelity(studied, table="neighbor_groups")
    means = by_group.groupby("measure", sort=False, observed=True)["same_group"].mean()
    np.testing.assert_allclose(means, table["same_group"])


def test_sparsity_costs_similarity(studied):
    table = ssc.get.rank_fidelity(studied, table="sparsity")
    thinned = table[table["by"] == "thinning"].set_index(["measure", "level"])
    for measure in ("rank", "expression"):
        assert thinned.loc[(measure, 0.3), "ratio"] > thinned.loc[(measure, 1.0), "ratio"]
        assert thinned.loc[(measure, 0.3), "self_correlation"] < 0.95
        assert thinned.loc[(measure, 1.0), "self_correlation"] == pytest.approx(1, abs=1e-5)
    assert thinned.loc[("rank", 0.3), "n_genes"] < thinned.loc[("rank", 1.0), "n_genes"]
    # zeros in an arbitrary order hide what a cell is, and the more the sparser it is
    arbitrary = thinned.loc["rank, zeros at random"]
    assert arbitrary.loc[0.3, "self_correlation"] < thinned.loc[("rank", 0.3), "self_correlation"] - 0.05
    bins = table[table["by"] == "detected genes"]
    assert set(bins["level"]) == {1.0, 2.0}
    assert bins.loc[bins["level"] == 1, "n_genes"].max() < bins.loc[bins["level"] == 2, "n_genes"].min()
    assert {"expression_pca", "expression_umap", "X_noise"} <= set(bins["measure"])


def test_rules_order_types_as_they_should(studied):
    table = ssc.get.rank_fidelity(studied, table="rules").set_index("rule")
    assert len(table) == 10
    spearman = table.loc["Spearman of values over medians"]
    assert table.loc["ties and zeros at random", "ratio"] > spearman["ratio"]
    assert np.isfinite(table.drop(columns=["ties", "zeros", "over_medians"]).to_numpy()).all()


def test_medians_are_of_scipys_spearman(pbmc68k):
    """Real cells: log-normalized ``raw`` undone to counts up to a factor a cell, which ranks do not see."""
    cells = pbmc68k.raw.to_adata()
    types = ["CD14+ Monocyte", "CD19+ B", "CD56+ NK", "Dendritic"]
    cells = cells[cells.obs["bulk_labels"].isin(types)].copy()
    cells.X = cells.X.expm1()
    cells.X.data *= 100
    ones = dict.fromkeys(cells.var_names, 1.0)
    ssc.tl.rank_fidelity(cells, "bulk_labels", n_compared=30, medians=ones, **QUICK)
    pairs = ssc.get.rank_fidelity(cells, table="pairs")
    assert len(ssc.get.rank_fidelity(cells, table="sparsity").query("by == 'thinning'")) == 0  # these are no counts
    cells.obs["n"] = 1
    everything = ssc.tl.rank_fidelity(
        cells, "bulk_labels", n_compared=1000, medians=ones, key_added="all", copy=True, **QUICK
    )
    pairs = ssc.get.rank_fidelity(everything, table="pairs", key="all")
    rho = stats.spearmanr(cells.X.toarray(), axis=1).statistic
    logs = np.log1p(cells.X.toarray() / cells.X.sum(1).A1[:, None] * 1e4) if hasattr(cells.X.sum(1), "A1") else None
    for row in pairs[pairs["measure"] == "rank"].itertuples():
        a, b = (np.flatnonzero(cells.obs["bulk_labels"] == name) for name in (row.group_a, row.group_b))
        block = rho[np.ix_(a, b)]
        values = block[np.triu_indices(len(a), 1)] if row.within else block.ravel()
        assert row.n_pairs == len(values)
        assert row.distance == pytest.approx(1 - np.median(values), abs=1e-5)
    if logs is not None:
        r = np.corrcoef(logs)
        row = pairs[(pairs["measure"] == "expression") & pairs["within"]].iloc[0]
        a = np.flatnonzero(cells.obs["bulk_labels"] == row["group_a"])
        expected = np.median(r[np.ix_(a, a)][np.triu_indices(len(a), 1)])
        assert row["distance"] == pytest.approx(1 - expected, abs=1e-5)


def test_results_survive_files(studied, tmp_path):
    for suffix in ["h5ad", "zarr"]:
        path = tmp_path / f"a.{suffix}"
        getattr(studied, f"write_{suffix}")(path)
        back = getattr(ad, f"read_{suffix}")(path)
        for name in ("summary", "pairs", "outliers", "neighbors", "neighbor_groups", "rules", "sparsity"):
            found, expected = (ssc.get.rank_fidelity(a, table=name) for a in (back, studied))
            pd.testing.assert_frame_equal(
                found.astype(dict.fromkeys(found.select_dtypes(["category", "string"]), object)),
                expected.astype(dict.fromkeys(expected.select_dtypes(["category", "string"]), object)),
                check_dtype=False,
                check_index_type=False,
            )
        assert list(back.uns["rank_fidelity"]["params"]["use_reps"]) == ["X_truth", "X_noise"]


def test_same_numbers_again_and_only_own_slots_are_replaced():
    adata = simulate(n=15, n_genes=60)
    before = adata.copy()
    copied = ssc.tl.rank_fidelity(adata, "type", copy=True, **QUICK)
    assert "rank_fidelity" not in adata.uns
    ssc.tl.rank_fidelity(adata, "type", **QUICK)
    pd.testing.assert_frame_equal(ssc.get.rank_fidelity(adata), ssc.get.rank_fidelity(copied))
    assert list(adata.obs) == list(before.obs) and not adata.obsm and not adata.layers
    assert "same_batch" not in ssc.get.rank_fidelity(adata, table="neighbors")
    adata.uns["mine"] = {}
    with pytest.raises(ValueError, match=r"overwrite uns\['mine'\], which ssc.tl.rank_fidelity did not write"):
        ssc.tl.rank_fidelity(adata, "type", key_added="mine", **QUICK)


def test_sampling_genes_and_left_out_cells(monkeypatch):
    from sparsesc import _logging

    messages: list[str] = []
    monkeypatch.setattr(_logging, "warning", messages.append)
    adata = simulate(n=30, n_genes=90)
    adata.obs["type"] = adata.obs["type"].where(adata.obs_names != "cell_0", None)
    adata.obs.loc[adata.obs_names[-25:], "type"] = "rare"
    adata.obs.loc[adata.obs_names[-20:], "type"] = "type_4"
    adata.X = sparse.csr_matrix(adata.X.toarray() * (np.arange(180) != 3)[:, None])
    ssc.tl.rank_fidelity(adata, "type", mask_var="chosen", n_cells=20, n_compared=8, zeros="drop", **QUICK)
    params = adata.uns["rank_fidelity"]["params"]
    assert 50 < params["n_genes"] <= 60  # genes without any counts have no median
    pairs = ssc.get.rank_fidelity(adata, table="pairs")
    assert set(pairs["group_a"]) == {f"type_{i}" for i in range(5)}
    assert pairs["n_pairs"].max() <= 64
    said = "\n".join(messages)
    assert "fewer than 10 cells are left out: 'type_5', 'rare'" in said
    assert "1 cells have no adata.obs['type']" in said


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groupby": "nothing"}, KeyError, r"Did not find adata.obs\['nothing'\]"),
        ({"batch_key": "nothing"}, KeyError, r"Did not find adata.obs\['nothing'\]"),
        ({"groupby": "batch"}, ValueError, "has 2 types with at least 10 cells, but 3 are needed"),
        ({"use_reps": "X_none"}, KeyError, "X_none"),
        ({"use_reps": "rank"}, ValueError, "have names of measures"),
        ({"layer": "none"}, KeyError, "Did not find adata.layers"),
        ({"layer": "log"}, ValueError, "looks log-normalized"),
        ({"mask_var": "none"}, KeyError, r"Did not find adata.var\['none'\]"),
        ({"mask_var": "number"}, ValueError, "must be True or False for each gene"),
        ({"ties": "max"}, ValueError, "Unknown ties"),
        ({"zeros": "first"}, ValueError, "Unknown zeros"),
        ({"thinning": (0.5, 2.0)}, ValueError, "thinning must hold shares"),
        ({"n_compared": 0}, ValueError, "n_compared must be a whole number"),
        ({"n_neighbors": 500}, ValueError, "n_neighbors=500 must be below the number of cells"),
        ({"rank_map": True, "zeros": "drop"}, ValueError, "rank_map needs ranks for all genes"),
        ({"medians": {}}, ValueError, "medians is empty"),
        ({"size_key": "none"}, KeyError, r"Did not find adata.obs\['none'\]"),
        ({"key_added": "a/b"}, ValueError, "key_added must be a non-empty string"),
    ],
)
def test_bad_input_is_told(options, error, message):
    adata = simulate(n=12, n_genes=40)
    adata.layers["log"] = adata.X.log1p()
    adata.var["number"] = 1.0
    adata.obsm["rank"] = np.ones((adata.n_obs, 3))
    with pytest.raises(error, match=message):
        ssc.tl.rank_fidelity(adata, **({"groupby": "type"} | QUICK | options))
    assert not adata.uns


def test_reader_says_what_is_missing(studied):
    with pytest.raises(ValueError, match="Unknown table: 'all'"):
        ssc.get.rank_fidelity(studied, table="all")
    with pytest.raises(
        KeyError, match=r"Did not find adata.uns\['other'\]\['summary'\].*Run ssc.tl.rank_fidelity first"
    ):
        ssc.get.rank_fidelity(studied, key="other")
