"""Which split of the data makes which p-values of genes right, and which it does not."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

import sparsesc as ssc
from sparsesc.stats.core import _row_blocks

N_CELLS, N_GENES, N_FEATURES = 1200, 300, 32
HOLDS = (0.03, 0.06)


def log_normalized(counts):
    counts = counts.toarray().astype(float)
    return np.log1p(counts / counts.sum(1, keepdims=True) * np.median(counts.sum(1)))


def components(values, n=10):
    centered = values - values.mean(0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    return (u[:, :n] * s[:n]).astype(np.float32)


def alike(seed, *, overdispersed=False, donor_shift=0.0):
    """Cells that are noise around one profile, or around one profile a donor (6 of them)."""
    rng = np.random.default_rng(seed)
    profile = rng.gamma(2, 0.6, N_GENES)
    donor = rng.integers(6, size=N_CELLS)
    mean = profile * np.exp(donor_shift * rng.normal(size=(6, N_GENES)))[donor]
    excess = rng.uniform(0.2, 1.0, N_GENES)
    rate = rng.gamma(1 / excess, mean * excess) if overdispersed else mean
    obs = pd.DataFrame({"donor": pd.Categorical(donor.astype(str))}, index=[f"cell_{i}" for i in range(N_CELLS)])
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs)
    adata.var["excess"] = excess
    adata.layers["log"] = log_normalized(adata.X)
    return adata


def features_of(adata, values, seed, write_code):
    """A sparse code of the principal components of these values."""
    adata.obsm["X_pca"] = components(values)
    write_code(adata, n_features=N_FEATURES, k=4, seed=seed)


def is_on(values):
    """Written again from the documentation."""
    values = values.astype(float)
    return values > 0.5 * (values @ values) / values.sum()


def rejected(adatas, **options):
    """Share of p-values below .05 over features x genes and data sets, and the p-values."""
    found = []
    for adata in adatas:
        ssc.tl.feature_genes(adata, n_top=None, direction="both", progress_bar=False, **options)
        found.append(adata.uns["sae"]["genes"]["pval"].to_numpy())
    pvalues = np.concatenate(found)
    assert len(pvalues) > 15_000
    return float((pvalues < 0.05).mean()), pvalues


def uniform(pvalues):
    """By the largest distance from the uniform distribution: p-values that depend on each other allow no test of it."""
    return stats.kstest(pvalues, "uniform").statistic < 0.02


@pytest.fixture(scope="module")
def circular(write_code):
    """Cells that are all alike; embedding and features from all of their counts."""
    adatas = [alike(seed, overdispersed=seed > 1) for seed in range(4)]
    for seed, adata in enumerate(adatas):
        features_of(adata, adata.layers["log"], seed, write_code)
    return adatas


def test_genes_that_made_the_features_differ_by_construction(circular):
    assert rejected(circular, layer="log")[0] > 0.15


@pytest.mark.parametrize("options", [{"split": "cells", "holdout": 0.5}, {"sample_key": "donor"}])
def test_neither_other_cells_nor_samples_undo_the_circle(circular, options):
    """The code of a held-out cell, or of a cell in any donor, is computed from its own counts as well."""
    assert rejected(circular, layer="log", **options)[0] > 0.1


@pytest.fixture(scope="module")
def thinned(write_code):
    """The same, with the embedding and features from one part of the counts."""
    adatas = [alike(seed, overdispersed=seed > 1) for seed in range(4)]
    for seed, adata in enumerate(adatas):
        if seed > 1:
            ssc.pp.thin_counts(adata, method="negative_binomial", overdispersion="excess", rng=seed)
        else:
            ssc.pp.thin_counts(adata, rng=seed)
        features_of(adata, log_normalized(adata.layers["thin_train"]), seed, write_code)
    return adatas


def test_thinned_counts_break_the_circle(thinned):
    for adatas in (thinned[:2], thinned[2:]):
        share, pvalues = rejected(adatas, split="counts")
        assert HOLDS[0] < share < HOLDS[1]
        assert uniform(pvalues)


def test_thinned_counts_of_samples(thinned):
    share, _ = rejected(thinned, split="counts", sample_key="donor")
    assert HOLDS[0] < share < HOLDS[1]


@pytest.mark.parametrize("overdispersed", [False, True])
def test_features_that_were_trained_on_thinned_counts(overdispersed):
    """As above, with a trained code and, where counts are overdispersed, an estimate of how much."""
    adata = alike(7, overdispersed=overdispersed)
    ssc.pp.thin_counts(adata, method="negative_binomial" if overdispersed else "poisson")
    adata.obsm["X_pca"] = components(log_normalized(adata.layers["thin_train"]))
    ssc.tl.fit_sae(adata, use_rep="X_pca", n_features=64, k=4, max_steps=80, progress_bar=False)
    share, _ = rejected([adata], split="counts")
    assert HOLDS[0] < share < HOLDS[1]
    if not overdispersed:  # what the features were trained on is the wrong place to look
        adata.layers["train"] = log_normalized(adata.layers["thin_train"])
        assert rejected([adata], layer="train")[0] > 0.1


def test_poisson_thinning_leaves_the_overdispersion_in_both_parts(write_code):
    adatas = [alike(seed, overdispersed=True) for seed in (2, 3)]
    for seed, adata in enumerate(adatas):
        ssc.pp.thin_counts(adata, rng=seed)
        features_of(adata, log_normalized(adata.layers["thin_train"]), seed, write_code)
    assert rejected(adatas, split="counts")[0] > HOLDS[1]


def test_choosing_in_some_cells_and_testing_in_others(write_code):
    """The best genes of features that have nothing to do with expression: only where they were chosen are they good."""
    best = {"all": [], "cells": []}
    for seed in range(3):
        adata = alike(seed)
        rng = np.random.default_rng(seed)
        adata.obsm["X_pca"] = rng.normal(size=(N_CELLS, 10)).astype(np.float32)
        write_code(adata, n_features=200, k=16, seed=seed)
        for name, options in (("all", {}), ("cells", {"split": "cells", "holdout": 0.5})):
            ssc.tl.feature_genes(adata, layer="log", n_top=10, progress_bar=False, rng=seed, **options)
            best[name].append(adata.uns["sae"]["genes"])
    best = {name: pd.concat(tables) for name, tables in best.items()}
    assert (best["all"]["pval"] < 0.05).mean() > 0.5
    assert HOLDS[0] < (best["cells"]["pval"] < 0.05).mean() < HOLDS[1]
    assert (best["cells"]["score_chosen"] > 0).all()
    assert abs((best["cells"]["score"] > 0).mean() - 0.5) < 0.03
    assert (best["cells"]["padj"] < 0.05).mean() < 0.001


def test_donors_that_differ(write_code):
    """Donors differ in expression at random, and in how often features are active."""
    adatas = [alike(seed, donor_shift=0.3) for seed in range(2)]
    for seed, adata in enumerate(adatas):
        rng = np.random.default_rng(seed)
        place = rng.normal(size=(6, 10))[adata.obs["donor"].cat.codes]
        adata.obsm["X_pca"] = (place + rng.normal(size=(N_CELLS, 10))).astype(np.float32)
        write_code(adata, n_features=N_FEATURES, k=8, seed=seed)
    assert rejected(adatas, layer="log")[0] > 0.3
    assert rejected(adatas, layer="log", split="cells", holdout=0.5)[0] > 0.2
    share, pvalues = rejected(adatas, layer="log", sample_key="donor")
    assert HOLDS[0] < share < HOLDS[1]
    assert uniform(pvalues)


@pytest.fixture
def donors(pbmc68k_code):
    """Real cells; the sample of each is made up, and some have none."""
    rng = np.random.default_rng(0)
    names = np.array([*"abcdef", None], dtype=object)
    pbmc68k_code.obs["donor"] = names[rng.choice(7, size=700, p=[0.3, 0.2, 0.15, 0.15, 0.1, 0.05, 0.05])]
    return pbmc68k_code


def test_samples_agree_with_scipy(donors):
    options = {"sample_key": "donor", "n_top": None, "direction": "both", "progress_bar": False}
    ssc.tl.feature_genes(donors, skew_guard=0, **options)
    found = donors.uns["sae"]["genes"]
    raw = donors.raw.to_adata().to_df().astype(float)
    known = donors.obs["donor"].notna().to_numpy()
    raw, codes = raw[known], donors.obsm["X_sae"][known].toarray()
    donor = donors.obs["donor"][known]
    n_samples = set()
    for feature in found.groupby("n_samples")["feature"].first():
        values = codes[:, int(feature.removeprefix("sae_"))]
        strong, silent = is_on(values), values == 0
        sizes = pd.DataFrame({"strong": strong, "silent": silent}).groupby(donor.to_numpy()).sum()
        kept = sizes.index[(sizes >= 5).all(axis=1)]
        inside = raw[strong].groupby(donor[strong]).mean().loc[kept]
        outside = raw[silent].groupby(donor[silent]).mean().loc[kept]
        rows = found[found["feature"] == feature].set_index("gene").loc[raw.columns]
        varies = (inside - outside).var() > 0
        expected = stats.ttest_rel(inside, outside)
        np.testing.assert_allclose(rows["score"][varies], expected.statistic[varies], rtol=1e-6)
        np.testing.assert_allclose(rows["pval"][varies], expected.pvalue[varies], rtol=1e-6)
        np.testing.assert_allclose(rows["mean_in"], inside.mean(), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(rows["mean_out"], outside.mean(), rtol=1e-6, atol=1e-12)
        difference = inside - outside
        effect = (difference.mean() / difference.std())[varies]
        np.testing.assert_allclose(rows["effect_size"][varies], effect, rtol=1e-6)
        assert (rows["pval"][~varies] == 1).all()
        assert (rows["n_samples"] == len(kept)).all()
        n_samples.add(len(kept))
    assert len(n_samples) > 1
    np.testing.assert_allclose(found["padj"], stats.false_discovery_control(found["pval"]), rtol=1e-6)


def test_rare_genes_of_few_cells_are_also_held_against_cells_drawn_by_lot(donors):
    """A gene that all strong cells miss differs by nearly the same in every sample: t alone would call that certain."""
    options = {"sample_key": "donor", "n_top": None, "direction": "both", "progress_bar": False}
    tables = []
    for guard in (0, 25):
        ssc.tl.feature_genes(donors, skew_guard=guard, **options)
        tables.append(donors.uns["sae"]["genes"].set_index(["feature", "gene"]).sort_index())
    plain, guarded = tables
    pd.testing.assert_frame_equal(
        plain[["logfc", "effect_size", "n_samples"]], guarded[["logfc", "effect_size", "n_samples"]]
    )
    assert (guarded["pval"] >= plain["pval"] - 1e-12).all()
    known = donors.obs["donor"].notna().to_numpy()
    X, names = donors.raw.X[known].toarray().astype(float), donors.raw.var_names
    codes, donor = donors.obsm["X_sae"][known].toarray(), donors.obs["donor"][known].astype(str).to_numpy()
    needed = 25 * stats.skew(X) ** 2
    for feature in plain.index.get_level_values("feature").unique()[[0, -1]]:
        values = codes[:, int(feature.removeprefix("sae_"))]
        strong, silent = is_on(values), values == 0
        variance, n_strong, n_silent, difference = 0.0, 0, 0, []
        for d in np.unique(donor):
            one, two = strong & (donor == d), silent & (donor == d)
            if min(one.sum(), two.sum()) < 5:
                continue
            difference.append(X[one].mean(0) - X[two].mean(0))
            variance = variance + X[donor == d].var(0, ddof=1) * (1 / one.sum() + 1 / two.sum())
            n_strong, n_silent = n_strong + one.sum(), n_silent + two.sum()
        difference = np.array(difference)
        few = (min(n_strong, n_silent) < needed) & (difference.var(0) > 0)
        assert 100 < few.sum() < 700
        z = np.abs(difference.sum(0)[few]) / np.sqrt(variance[few])
        expected = np.maximum(stats.ttest_1samp(difference[:, few], 0).pvalue, 2 * stats.norm.sf(z))
        np.testing.assert_allclose(guarded.loc[feature].loc[names[few], "pval"], expected, rtol=1e-4)
        trusted = names[~few]
        assert (guarded.loc[feature].loc[trusted, "pval"] == plain.loc[feature].loc[trusted, "pval"]).all()


def test_level_of_samples_of_real_cells(pbmc68k_code):
    """Few cells in each of five samples, and genes of which many are rare."""
    p = {0: [], 25: []}
    for seed in range(2):
        rng = np.random.default_rng(seed)
        codes = pbmc68k_code.obsm["X_sae"].toarray()
        order = np.argsort(rng.random(codes.shape), axis=0)
        adata = pbmc68k_code.copy()
        adata.obsm["X_sae"] = sparse.csr_matrix(np.take_along_axis(codes, order, axis=0))
        adata.obs["donor"] = pd.Categorical(rng.integers(0, 5, adata.n_obs).astype(str))
        for guard, pvalues in p.items():
            options = {"sample_key": "donor", "n_top": None, "direction": "both", "store": False, "skew_guard": guard}
            ssc.tl.feature_genes(adata, progress_bar=False, **options)
            pvalues.append(adata.uns["sae"]["genes"]["pval"])
    plain, guarded = (np.concatenate(p[guard]) for guard in (0, 25))
    assert len(plain) > 50_000
    assert (plain <= 0.05).mean() > HOLDS[1]
    assert (plain <= 0.001).mean() > 0.0015
    assert 0.025 < (guarded <= 0.05).mean() < HOLDS[1]
    assert (guarded <= 0.001).mean() < 0.0015


def test_samples_of_a_dense_matrix_in_blocks_with_negative_values(donors, monkeypatch):
    donors.X = donors.X.toarray() if sparse.issparse(donors.X) else donors.X
    options = {"sample_key": "donor", "use_raw": False, "progress_bar": False}
    ssc.tl.feature_genes(donors, **options)
    whole = donors.uns["sae"]["genes"]
    monkeypatch.setattr(_row_blocks, "_BLOCK_BYTES", 200_000)
    shuffled = donors[np.random.default_rng(1).permutation(700)].copy()
    shuffled.X = sparse.csr_matrix(shuffled.X)
    ssc.tl.feature_genes(shuffled, **options)
    pd.testing.assert_frame_equal(shuffled.uns["sae"]["genes"], whole, rtol=1e-6)


def test_samples_with_few_cells(donors):
    ssc.tl.feature_genes(donors, sample_key="donor", min_samples=6, min_cells_per_sample=3, progress_bar=False)
    assert (donors.uns["sae"]["genes"]["n_samples"] == 6).all()
    tested = donors.uns["sae"]["params"]["feature_genes"]["n_features_tested"]
    assert 0 < tested < 64
    with pytest.raises(ValueError, match="None of the 64 features has 7 samples of 'donor' with at least 5 strong"):
        ssc.tl.feature_genes(donors, sample_key="donor", min_samples=7)


def test_held_out_cells_of_the_fit(pbmc68k):
    ssc.tl.fit_sae(pbmc68k, use_rep="X_pca", max_steps=60, validation=0.4, progress_bar=False)
    held = pbmc68k.obs_names.isin(pbmc68k.uns["sae"]["validation_obs"])
    ssc.tl.feature_genes(pbmc68k, split="cells", progress_bar=False)
    params = pbmc68k.uns["sae"]["params"]["feature_genes"]
    assert params["n_obs_tested"] == held.sum() == 280
    by_fit = pbmc68k.uns["sae"]["genes"]
    pbmc68k.obs["test"] = held
    ssc.tl.feature_genes(pbmc68k, split="cells", holdout="test", progress_bar=False)
    pd.testing.assert_frame_equal(pbmc68k.uns["sae"]["genes"], by_fit)
    # both sides by themselves
    test, train = pbmc68k[held].copy(), pbmc68k[~held].copy()
    ssc.tl.feature_genes(test, n_top=None, direction="both", progress_bar=False)
    ssc.tl.feature_genes(train, progress_bar=False)
    both = by_fit.merge(test.uns["sae"]["genes"], on=["feature", "gene"], suffixes=("", "_test"))
    assert len(both) == len(by_fit) == params["n_tests"]
    for column in ("score", "pval", "logfc", "mean_in", "effect_size"):
        np.testing.assert_allclose(both[column], both[f"{column}_test"])
    chosen = by_fit.merge(train.uns["sae"]["genes"], on=["feature", "gene", "rank"], suffixes=("", "_train"))
    assert len(chosen) == len(by_fit)
    np.testing.assert_allclose(chosen["score_chosen"], chosen["score_train"])
    np.testing.assert_allclose(by_fit["padj"], stats.false_discovery_control(by_fit["pval"]))
    np.testing.assert_array_equal(pbmc68k.varm["sae_genes"], test.varm["sae_genes"])


@pytest.mark.parametrize("options", [{"split": "cells", "holdout": 0.5}, {"sample_key": "donor"}, {"split": "counts"}])
def test_gene_sets_of_recomputed_scores_are_of_the_same_cells(donors, options):
    donors.layers["thin_test"] = sparse.csr_matrix(np.round(np.expm1(donors.raw.X.toarray())))
    tables = []
    for store in (True, False):
        ssc.tl.feature_genes(donors, store=store, progress_bar=False, **options)
        ssc.tl.feature_enrichment(donors, "immune_markers", progress_bar=False)
        tables.append(donors.uns["sae"]["enrichment"])
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("kind", ["csc", "backed", "backed dense", "dask"])
@pytest.mark.parametrize("options", [{"split": "cells", "holdout": 0.5}, {"sample_key": "donor"}, {"split": "counts"}])
def test_all_kinds_of_matrix_give_the_same(donors, kind, options, tmp_path, monkeypatch):
    monkeypatch.setattr(_row_blocks, "_BLOCK_BYTES", 200_000)
    counts = np.round(np.expm1(donors.raw.X.toarray()))
    adata = ad.AnnData(donors.raw.X, obs=donors.obs[["donor"]].astype("category"), var=donors.raw.var)
    adata.obsm["X_sae"], adata.uns["sae"] = donors.obsm["X_sae"], donors.uns["sae"]
    adata.layers["thin_test"] = sparse.csr_matrix(counts)
    other = adata.copy()
    if kind == "csc":
        other.X, other.layers["thin_test"] = adata.X.tocsc(), adata.layers["thin_test"].tocsc()
    elif kind != "backed":
        other.X, other.layers["thin_test"] = adata.X.toarray(), counts
    if kind == "dask":
        array = pytest.importorskip("dask.array")
        other.X, other.layers["thin_test"] = (array.from_array(x, chunks=(150, 300)) for x in (other.X, counts))
    elif kind.startswith("backed"):
        other.write_h5ad(tmp_path / "x.h5ad")
        other = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for each in (adata, other):
        ssc.tl.feature_genes(each, max_memory=2e-3, progress_bar=False, **options)
    pd.testing.assert_frame_equal(other.uns["sae"]["genes"], adata.uns["sae"]["genes"], rtol=1e-6)
    if other.isbacked:
        other.file.close()


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_survive_files(donors, tmp_path, suffix):
    del donors.obs["donor"]
    ssc.tl.feature_genes(donors, split="cells", holdout=0.5, store=False, progress_bar=False)
    getattr(donors, f"write_{suffix}")(tmp_path / f"x.{suffix}")
    read = getattr(ad, f"read_{suffix}")(tmp_path / f"x.{suffix}")
    pd.testing.assert_frame_equal(read.uns["sae"]["genes"], donors.uns["sae"]["genes"], check_dtype=False)
    for adata in (donors, read):
        ssc.tl.feature_enrichment(adata, "immune_markers", progress_bar=False)
    pd.testing.assert_frame_equal(
        read.uns["sae"]["enrichment"], donors.uns["sae"]["enrichment"], check_dtype=False, check_exact=False
    )


def test_counts_are_tested_as_residuals_and_shown_per_ten_thousand(thinned):
    adata = thinned[0]
    ssc.tl.feature_genes(adata, split="counts", n_top=None, direction="both", skew_guard=0, progress_bar=False)
    found = adata.uns["sae"]["genes"].set_index(["feature", "gene"])
    assert adata.uns["sae"]["params"]["feature_genes"]["scale"] == "per_ten_thousand"
    counts = adata.layers["thin_test"].toarray().astype(float)
    depth = counts.sum(1, keepdims=True)
    mean = depth * counts.sum(0) / counts.sum()
    residuals = pd.DataFrame((counts - mean) / np.sqrt(mean + mean**2 / 100), columns=adata.var_names)
    shown = pd.DataFrame(1e4 * counts / depth, columns=adata.var_names)
    codes = pd.DataFrame(adata.obsm["X_sae"].toarray(), columns=adata.uns["sae"]["features"].index)
    for feature in ("sae_0", "sae_9"):
        values = codes[feature].to_numpy()
        on, silent = is_on(values), values == 0
        rows = found.loc[feature].loc[adata.var_names]
        # if the compared cells have another share of the gene, residuals go with the root of depth
        root = np.sqrt(depth.ravel())
        slope = (root[on].mean() - root[silent].mean()) / root[on | silent].mean()
        free = residuals[on] - slope * residuals[on | silent].mean()
        expected = stats.ttest_ind(free, residuals[silent], equal_var=False).statistic
        np.testing.assert_allclose(rows["score"], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(rows["mean_in"], shown[on].mean(), rtol=1e-6)
        np.testing.assert_allclose(rows["mean_out"], shown[silent].mean(), rtol=1e-6)
        np.testing.assert_allclose(rows["logfc"], np.log2((rows["mean_in"] + 1) / (rows["mean_out"] + 1)), rtol=1e-9)


@pytest.mark.parametrize("depth", ["real", "wide"])
@pytest.mark.parametrize("method", ["contrast", "correlation"])
def test_depth_makes_no_genes(depth, method, write_code):
    """Cells of one profile that differ in depth alone; the features follow depth, as the first component does."""
    rng = np.random.default_rng(3)
    totals = 400 * np.exp((0.35 if depth == "real" else 1.0) * rng.normal(size=N_CELLS))
    profile = rng.gamma(0.5, 1, N_GENES)
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(np.outer(totals, profile / profile.sum())).astype(np.float32)))
    adata = adata[:, np.asarray(adata.X.sum(0)).ravel() > 3].copy()
    ssc.pp.thin_counts(adata)
    features_of(adata, log_normalized(adata.layers["thin_train"]), 0, write_code)
    found = {}
    for name, layer in (("residuals", "thin_test"), ("logs", "logs")):
        adata.layers["logs"] = sparse.csr_matrix(log_normalized(adata.layers["thin_test"]))
        options = {"split": "counts", "layer": layer, "n_top": None, "direction": "both", "method": method}
        ssc.tl.feature_genes(adata, progress_bar=False, **options)
        found[name] = adata.uns["sae"]["genes"]
    assert HOLDS[0] < (found["residuals"]["pval"] <= 0.05).mean() < HOLDS[1]
    assert (found["residuals"]["pval"] <= 0.001).mean() <= 0.003
    assert (found["residuals"]["padj"] < 0.05).mean() < 0.001
    assert (found["logs"]["pval"] <= 0.05).mean() > (0.05 if depth == "real" else 0.1)


def test_genes_without_counts_in_the_compared_cells_are_not_told_apart_by_depth(write_code):
    """Genes of few counts, and genes of other cells: where only the expected counts differ, nothing does."""
    rng = np.random.default_rng(4)
    totals = 300 * np.exp(0.6 * rng.normal(size=N_CELLS))
    profile = np.exp(2.5 * rng.normal(size=1000))
    rate = np.outer(totals, profile / profile.sum())
    rate[: N_CELLS // 4, :100] *= 20
    rate[N_CELLS // 4 :, :100] *= 0.05  # what a quarter of the cells expresses, and others hardly do
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    ssc.pp.thin_counts(adata)
    features_of(adata, log_normalized(adata.layers["thin_train"][:, 100:]), 0, write_code)
    counts = np.asarray(adata.layers["thin_test"].sum(0)).ravel()
    assert ((counts > 0) & (counts < 4)).sum() > 100
    # weak activations in that quarter and in half of the others: these cells are on neither side
    codes = adata.obsm["X_sae"].toarray()
    codes[: N_CELLS // 4] = 1e-3
    codes[(codes == 0) & (rng.random(codes.shape) < 0.7)] = 1e-3
    adata.obsm["X_sae"] = sparse.csr_matrix(codes)
    for pvalues in ("permutation", "parametric"):
        ssc.tl.feature_genes(adata, split="counts", n_top=None, direction="both", pvalues=pvalues, progress_bar=False)
        found = adata.uns["sae"]["genes"]
        assert (found["padj"] < 0.05).sum() == 0
        assert (found["pval"] <= 0.001).mean() < 0.002


def test_values_that_are_no_counts_are_tested_as_they_are_and_that_is_said(thinned, monkeypatch):
    adata, messages = thinned[0], []
    monkeypatch.setattr("sparsesc._logging.warning", messages.append)
    adata.layers["mine"] = sparse.csr_matrix(log_normalized(adata.layers["thin_test"]))
    ssc.tl.feature_genes(adata, split="counts", layer="mine", progress_bar=False)
    found = adata.uns["sae"]["genes"]
    assert len(messages) == 1
    assert "adata.layers['mine'] holds no counts" in messages[0]
    ssc.tl.feature_genes(adata, layer="mine", progress_bar=False)
    pd.testing.assert_frame_equal(adata.uns["sae"]["genes"], found, rtol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"split": "genes"}, ValueError, "Unknown split: 'genes'.*'cells', 'counts'"),
        ({"split": "counts"}, KeyError, r"needs adata\.layers\['thin_test'\]\. Run ssc\.pp\.thin_counts first"),
        ({"split": "counts", "use_raw": True}, ValueError, "leave out use_raw"),
        ({"split": "cells"}, ValueError, r"held out none of these cells\. Pass holdout=0\.5"),
        ({"split": "cells", "holdout": 1.5}, ValueError, r"holdout must be a share .* found 1\.5"),
        ({"split": "cells", "holdout": "nothing"}, KeyError, r"Did not find adata\.obs\['nothing'\]"),
        ({"split": "cells", "holdout": "donor"}, TypeError, "must be boolean"),
        ({"split": "cells", "holdout": "all"}, ValueError, "All 700 cells are on one side"),
        ({"split": "cells", "holdout": 0.01}, ValueError, "min_cells=10 held-out cells.*7 cells are on one side"),
        ({"holdout": 0.5}, ValueError, r"holdout=0\.5 belongs to split='cells'"),
        ({"sample_key": "patient"}, KeyError, r"Did not find adata\.obs\['patient'\]"),
        ({"sample_key": "n_genes_float"}, TypeError, r"holds numbers \(float64\), but labels are needed"),
        ({"sample_key": "donor", "method": "correlation"}, ValueError, "does not go with method='correlation'"),
        ({"sample_key": "donor", "n_silent": 50}, ValueError, "does not go with n_silent=50"),
        ({"sample_key": "donor", "min_samples": 2}, ValueError, "min_samples must be at least 3"),
        ({"sample_key": "donor", "min_cells_per_sample": 0}, ValueError, "min_cells_per_sample must be a whole number"),
    ],
)
def test_bad_options_change_nothing(donors, kwargs, error, match):
    donors.obs["all"] = True
    donors.obs["n_genes_float"] = np.arange(700) / 7
    with pytest.raises(error, match=match):
        ssc.tl.feature_genes(donors, progress_bar=False, **kwargs)
    assert "genes" not in donors.uns["sae"]
    assert "sae_genes" not in donors.varm
