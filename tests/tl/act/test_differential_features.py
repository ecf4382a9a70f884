from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import sparse, stats

import sparsesc as ssc
from sparsesc.door import _keys
from sparsesc.door._pseudobulk import pseudobulk
from sparsesc.stats import benjamini_hochberg, mann_whitney, rank_columns
from sparsesc.stats.groups._moderated import fit_linear, t_tests

N_FEATURES = 48


def cells(seed=0, n_samples=12, *, changed=0, per_sample=(40, 120)):
    """Samples that differ by themselves in how often and how strongly features are active; half are treated.

    The first `changed` features are active more often in treated samples.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(*per_sample, size=n_samples)
    sample = np.repeat(np.arange(n_samples), sizes)
    treated = np.arange(n_samples) % 2 == 1
    rate = np.clip(rng.beta(0.7, 4, N_FEATURES), 0.03, 0.9)
    logit = np.log(rate / (1 - rate)) + 0.5 * rng.normal(size=(n_samples, N_FEATURES))
    logit[:, :changed] += np.where(treated, 2.5, 0)[:, None] - 1
    active = rng.random((len(sample), N_FEATURES)) < 1 / (1 + np.exp(-logit[sample]))
    level = np.exp(0.3 * rng.normal(size=(n_samples, N_FEATURES)))[sample]
    codes = (active * rng.gamma(2, 0.5, active.shape) * level).astype(np.float32)
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical([f"donor {i}" for i in sample]),
            "condition": pd.Categorical(np.where(treated[sample], "treated", "control")),
            "age": (20.0 + 3 * (np.arange(n_samples) * 7 % n_samples))[sample],
            "sex": np.array(["f", "m"])[np.arange(n_samples) // 2 % 2][sample],
            "type": pd.Categorical(rng.choice(["B", "NK"], size=len(sample), p=[0.6, 0.4])),
        },
        index=[f"cell_{i}" for i in range(len(sample))],
    )
    adata = ad.AnnData(obs=obs, obsm={"X_sae": sparse.csr_matrix(codes)})
    features = pd.DataFrame({"dead": codes.max(0) == 0}, index=[f"sae_{i}" for i in range(N_FEATURES)])
    adata.uns["sae"] = {"params": {}, "weights": {}, "features": features}
    return adata


def run(adata, condition="condition", sample_key="donor", **options):
    ssc.tl.differential_features(adata, condition, sample_key=sample_key, **options)
    return ssc.get.differential(adata)


def by_sample(adata, keys=("donor",)):
    """Mean activation and active share by plain pandas."""
    codes = pd.DataFrame(adata.obsm["X_sae"].toarray().astype(float), columns=adata.uns["sae"]["features"].index)
    grouping = [adata.obs[k].astype(str).to_numpy() for k in keys]
    return codes.groupby(grouping).mean(), (codes > 0).groupby(grouping).mean()


def test_writes_its_table():
    adata = cells(changed=5)
    found = run(adata)
    columns = list(_keys.TABLES[_keys.DIFFERENTIAL].columns)
    assert list(found.columns) == columns
    assert found["pval"].is_monotonic_increasing
    assert set(found["group"]) == {"all"}
    assert set(found["measure"]) == {"mean", "active"}
    assert set(found["condition"]) == {"treated"}
    assert set(found["reference"]) == {"control"}
    assert (found["n_samples"] == 6).all()
    np.testing.assert_allclose(found["padj"], benjamini_hochberg(found["pval"].to_numpy()))
    np.testing.assert_allclose(found["score"] * found["se"], found["effect"])
    np.testing.assert_allclose(found["mean_condition"] - found["mean_reference"], found["effect"])
    assert (np.sign(found["logfc"]) == np.sign(found["effect"])).mean() > 0.95
    asked = adata.uns["sae"]["params"]["differential_features"]
    assert asked["sample_key"] == "donor"
    assert asked["n_tests"] == len(found)
    samples = adata.uns["sae"]["differential_samples"]
    assert list(samples["units"].columns) == ["group", "sample", "condition", "n_cells"]
    assert list(samples["units"]["condition"].cat.categories) == ["control", "treated"]
    mean, active = by_sample(adata)
    order = samples["units"]["sample"]
    np.testing.assert_allclose(samples["mean"], mean.loc[order], rtol=1e-6)
    np.testing.assert_allclose(samples["active"], active.loc[order], rtol=1e-6)
    assert not asked["paired"]


def test_changed_features_come_out():
    found = run(cells(changed=5, n_samples=12))
    best = found[found["padj"] < 0.05]
    assert {f"sae_{i}" for i in range(5)} <= set(best["feature"])
    assert best["feature"].nunique() <= 6
    assert (best.loc[best["feature"].isin([f"sae_{i}" for i in range(5)]), "effect"] > 0).all()


@pytest.mark.parametrize("measure", ["mean", "active"])
def test_agrees_with_statsmodels(measure):
    adata = cells(changed=3)
    found = run(adata, moderate=False, measure=measure, covariates=["age", "sex"]).set_index("feature")
    values = dict(zip(("mean", "active"), by_sample(adata), strict=True))[measure]
    samples = adata.obs.groupby("donor", observed=True)[["condition", "age", "sex"]].first().loc[values.index]
    design = pd.DataFrame({"const": 1.0, "treated": samples["condition"] == "treated", "age": samples["age"]})
    design["sex"] = samples["sex"] == "m"
    for feature, row in found.iterrows():
        expected = sm.OLS(values[feature].to_numpy(), design.to_numpy(float)).fit()
        assert row["effect"] == pytest.approx(expected.params[1], rel=1e-6)
        assert row["se"] == pytest.approx(expected.bse[1], rel=1e-6)
        assert row["score"] == pytest.approx(expected.tvalues[1], rel=1e-6)
        assert row["pval"] == pytest.approx(expected.pvalues[1], rel=1e-6)
        assert row["df"] == expected.df_resid
        assert row["mean_condition"] == pytest.approx(values[feature][(samples["condition"] == "treated")].mean())


def test_paired_design_is_a_paired_test():
    """Every donor has cells of both conditions."""
    adata = cells()
    adata.obs["condition"] = np.where(np.random.default_rng(1).random(adata.n_obs) < 0.5, "after", "before")
    found = run(adata, moderate=False, reference="before", measure="mean").set_index("feature")
    mean, _ = by_sample(adata, ("condition", "donor"))
    for feature, row in found.iterrows():
        expected = stats.ttest_rel(mean.loc["after", feature], mean.loc["before", feature])
        assert row["score"] == pytest.approx(expected.statistic, rel=1e-6)
        assert row["pval"] == pytest.approx(expected.pvalue, rel=1e-6)
    assert adata.uns["sae"]["params"]["differential_features"]["paired"]
    # the same by hand: samples that are donor and condition, and the donor as covariate
    adata.obs["sample"] = adata.obs["donor"].astype(str) + " " + adata.obs["condition"].astype(str)
    by_hand = run(adata, sample_key="sample", covariates="donor", moderate=False, reference="before", measure="mean")
    np.testing.assert_allclose(by_hand.set_index("feature").loc[found.index, "pval"], found["pval"])


def test_donors_with_one_condition_are_left_out_of_pairs(monkeypatch):
    messages = []
    monkeypatch.setattr("sparsesc._logging.warning", messages.append)
    adata = cells()
    adata.obs["condition"] = np.where(np.random.default_rng(1).random(adata.n_obs) < 0.5, "after", "before")
    without = run(adata[adata.obs["donor"] != "donor 3"].copy())
    adata.obs.loc[adata.obs["donor"] == "donor 3", "condition"] = "after"
    pd.testing.assert_frame_equal(run(adata), without)
    assert "1 samples of 'donor' have one value of 'condition' only and are left out: 'donor 3'" in messages.pop()


@pytest.mark.parametrize("moderate", [True, False])
def test_permuted_samples_are_null(moderate):
    """The tests of the function, with samples relabelled many times: what they see of the cells stays the same."""
    pvalues = {"mean": [], "active": []}
    found = []
    for seed in range(12):
        adata = cells(seed)
        bulk = pseudobulk(adata, adata.obsm["X_sae"], "condition", "donor", covariates=[], groupby=None)
        rng = np.random.default_rng(seed)
        for _ in range(30):
            treated = rng.permutation(np.arange(12) % 2).astype(float)[:, None]
            both = []
            for measure, values in (("mean", bulk.mean), ("active", bulk.active)):
                both.append(np.exp(t_tests(fit_linear(values, treated, np.empty((12, 0))), moderate=moderate).log_p[0]))
                pvalues[measure].append(both[-1])
            found.append((benjamini_hochberg(np.concatenate(both)) < 0.05).any())
    for measure, values in pvalues.items():
        values = np.concatenate(values)
        assert 0.03 < (values < 0.05).mean() < 0.06, measure
        assert stats.kstest(values, "uniform").statistic < 0.03, measure
    assert np.mean(found) < 0.06


def test_permuted_donors_of_real_cells(write_code, published):
    """40 donors, each with cells of four types: made-up conditions of 8 of them."""
    adata = published("onek1k")
    counts = adata.X.toarray()
    values = np.log1p(counts / counts.sum(1, keepdims=True) * np.median(counts.sum(1)))
    values -= values.mean(0)
    _, loadings = np.linalg.eigh(values.T @ values)
    adata.obsm["X_pca"] = values @ loadings[:, :-31:-1]
    write_code(adata, n_features=128)
    adata.obs["condition"] = np.where(adata.obs["donor"].astype("category").cat.codes % 2, "a", "b")
    bulk = pseudobulk(adata, adata.obsm["X_sae"], "condition", "donor", covariates=[], groupby="cell_type")
    rng = np.random.default_rng(0)
    treated = (np.arange(8) % 2).astype(float)[:, None]
    pvalues = []
    for group in bulk.groups:
        rows = np.flatnonzero((bulk.units["group"] == group) & (bulk.units["n_cells"] >= 10))
        for _ in range(40):
            chosen = rng.permutation(rows)[:8]
            values = bulk.mean[chosen][:, (bulk.active[chosen] > 0).sum(0) > 2]
            pvalues.append(np.exp(t_tests(fit_linear(values, treated, np.empty((8, 0)))).log_p[0]))
    share = (np.concatenate(pvalues) < 0.05).mean()
    assert 0.03 < share < 0.06


def test_permuted_samples_end_to_end():
    adata = cells(3)
    sample = adata.obs["donor"].cat.codes.to_numpy()
    rng = np.random.default_rng(3)
    frames = []
    for _ in range(12):
        treated = rng.permutation(np.arange(12) % 2)
        adata.obs["condition"] = pd.Categorical.from_codes(treated[sample], ["control", "treated"])
        frames.append(run(adata, covariates="age"))
    assert 0.02 < (pd.concat(frames)["pval"] < 0.05).mean() < 0.08


def test_cells_as_replicates_are_not():
    """What this function is for: a test over cells takes every difference between samples for one of conditions."""
    shares = []
    for seed in range(3):
        adata = cells(seed)
        _, log_p = mann_whitney(rank_columns(adata.obsm["X_sae"]), adata.obs["condition"].cat.codes.to_numpy(), 2)
        shares.append(((np.exp(log_p[:, 0]) < 0.05).mean(), (run(adata)["pval"] < 0.05).mean()))
    over_cells, over_samples = np.mean(shares, axis=0)
    assert over_cells > 0.25
    assert over_samples < 0.1


def test_within_groups():
    adata = cells(changed=4)
    found = run(adata, groupby="type")
    assert set(found["group"]) == {"B", "NK"}
    np.testing.assert_allclose(found["padj"], benjamini_hochberg(found["pval"].to_numpy()))
    alone = run(adata[adata.obs["type"] == "NK"].copy()).set_index(["feature", "measure"])
    inside = found[found["group"] == "NK"].set_index(["feature", "measure"]).loc[alone.index]
    for column in ("score", "pval", "effect", "logfc", "df"):
        np.testing.assert_allclose(inside[column], alone[column])


def test_groups_without_enough_samples_are_left_out(monkeypatch):
    messages = []
    monkeypatch.setattr("sparsesc._logging.warning", messages.append)
    adata = cells()
    kind = adata.obs["type"].astype(str).to_numpy()
    kind[(kind == "NK") & (adata.obs["condition"] == "treated").to_numpy()] = "B"
    adata.obs["type"] = kind
    found = run(adata, groupby="type")
    assert set(found["group"]) == {"B"}
    assert "group 'NK' is not tested. At least min_samples=2 samples" in messages.pop()
    with pytest.raises(ValueError, match=r"No group of 'type' can be tested. 'B': At least min_samples=2"):
        run(adata, groupby="type", min_cells=1000)


# what cannot be answered, and what was left out


def warned(monkeypatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr("sparsesc._logging.warning", messages.append)
    return messages


@pytest.mark.parametrize(("n_samples", "smallest"), [(4, "0.33"), (6, "0.1"), (8, "")])
def test_few_samples_are_said(monkeypatch, n_samples, smallest):
    messages = warned(monkeypatch)
    run(cells(n_samples=n_samples))
    few = [m for m in messages if "cannot show a difference by themselves" in m]
    assert len(few) == bool(smallest)
    if smallest:
        half = n_samples // 2
        assert few[0].startswith(f"{half} against {half} samples")
        assert f"p is {smallest} without further assumptions" in few[0]


@pytest.mark.parametrize("n_samples", [4, 6, 10])
def test_few_samples_find_nothing_where_nothing_is(n_samples):
    """Samples differ in each feature, in all of them together, in depth (how many features are active) and in types."""
    pvalues, found = [], []
    rng = np.random.default_rng(n_samples)
    sample = np.arange(60 * n_samples) % n_samples
    adata = cells(n_samples=n_samples)[: len(sample)].copy()
    for _ in range(60):
        odds = rng.normal(scale=0.5, size=(n_samples, 48)) + rng.normal(scale=0.3, size=(n_samples, 1)) - 1.5
        types = rng.random(len(sample)) < rng.beta(4, 4, size=n_samples)[sample]
        odds = odds[sample] + np.outer(types, rng.normal(size=48))
        codes = rng.gamma(2, size=odds.shape) * (rng.random(odds.shape) < 1 / (1 + np.exp(-odds)))
        adata.obsm["X_sae"] = sparse.csr_matrix(codes.astype(np.float32))
        adata.obs["donor"] = pd.Categorical(sample.astype(str))
        adata.obs["condition"] = np.where(rng.permutation(np.arange(n_samples) % 2)[sample], "treated", "control")
        table = run(adata)
        pvalues.append(table["pval"])
        found.append((table["padj"] < 0.05).any())
    assert 0.02 < (np.concatenate(pvalues) < 0.05).mean() < 0.065
    assert np.mean(found) < 0.12  # .05, and what 60 draws may make of it


def test_other_shares_of_cell_types_are_said(monkeypatch):
    """A type is more frequent in a condition, and with it its features: nothing differs within types."""
    rng = np.random.default_rng(0)
    adata = cells(n_samples=10)
    treated = (adata.obs["condition"] == "treated").to_numpy()
    kind = rng.random(adata.n_obs) < np.where(treated, 0.75, 0.3)
    active = rng.random((adata.n_obs, 48)) < np.where(kind[:, None], np.linspace(0.1, 0.9, 48), 0.2)
    adata.obsm["X_sae"] = sparse.csr_matrix(active.astype(np.float32))
    adata.obs["kind"] = np.where(kind, "NK cells", "B cells")
    messages = warned(monkeypatch)
    assert (run(adata)["padj"] < 0.05).any()
    assert not messages  # nobody said what the types are
    ssc.tl.feature_association(adata, "kind")
    run(adata)
    assert "Conditions differ in the shares of " in messages[-1]
    assert "'kind' (" in messages[-1]
    assert "set groupby='kind'" in messages[-1]
    messages.clear()
    assert not (run(adata, groupby="kind")["padj"] < 0.05).any()
    assert not messages
    adata.obs["kind"] = np.random.default_rng(1).permutation(adata.obs["kind"])  # the same shares
    run(adata)
    assert not messages


def test_samples_and_features_that_are_left_out_are_said(monkeypatch):
    adata = cells()
    size = adata.obs["donor"].value_counts()
    messages = warned(monkeypatch)
    lines: list[str] = []
    monkeypatch.setattr("sparsesc._logging.info", lines.append)
    codes = adata.obsm["X_sae"].toarray()
    codes[:, :2] = 0
    adata.obsm["X_sae"] = sparse.csr_matrix(codes)
    run(adata, min_cells=int(size.min()) + 1)
    assert f"fewer than min_cells={size.min() + 1} cells are left out: " in messages[0]
    assert f"'{size.idxmin()} ({size.min()})'" in messages[0]
    assert "46 features (2 are active in too few cells)" in lines[-1]


def test_several_conditions_share_a_model():
    adata = cells(n_samples=15)
    sample = adata.obs["donor"].cat.codes.to_numpy()
    adata.obs["condition"] = pd.Categorical.from_codes(sample % 3, ["a", "b", "c"])
    found = run(adata, moderate=False, reference="b", measure="mean")
    assert set(found["condition"]) == {"a", "c"}
    mean, _ = by_sample(adata)
    labels = adata.obs.groupby("donor", observed=True)["condition"].first().loc[mean.index].astype(str)
    design = np.column_stack([np.ones(15), labels == "a", labels == "c"]).astype(float)
    rows = found[found["feature"] == "sae_0"].set_index("condition")
    expected = sm.OLS(mean["sae_0"].to_numpy(), design).fit()
    np.testing.assert_allclose(rows.loc[["a", "c"], "pval"], expected.pvalues[1:], rtol=1e-6)


def test_small_samples_and_rare_features_are_left_out():
    adata = cells()
    codes = adata.obsm["X_sae"].tolil()
    codes[:, 0] = 0
    codes[:, 1] = 0
    codes[np.arange(0, 90, 10), 1] = 1
    adata.obsm["X_sae"] = codes.tocsr()
    found = run(adata)
    assert not {"sae_0", "sae_1"} & set(found["feature"].astype(str))
    assert "sae_1" in set(run(adata, min_active=9)["feature"])
    size = adata.obs["donor"].value_counts()
    assert run(adata, min_cells=int(size.min()) + 1)[["n_samples", "n_samples_reference"]].iloc[0].sum() < 12


def test_missing_values_and_integer_samples():
    adata = cells()
    complete = run(adata[adata.obs["donor"] != "donor 0"].copy())
    adata.obs["number"] = adata.obs["donor"].cat.codes.astype(int)
    adata.obs["condition"] = adata.obs["condition"].where(adata.obs["donor"] != "donor 0")
    pd.testing.assert_frame_equal(run(adata, sample_key="number"), complete)


def test_copy_and_view():
    adata = cells()
    copied = ssc.tl.differential_features(adata, "condition", sample_key="donor", copy=True)
    assert "differential" in copied.uns["sae"]
    assert "differential" not in adata.uns["sae"]


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_survive_files(tmp_path, suffix):
    adata = cells()
    del adata.uns["sae"]["weights"]
    found = run_with_weights(adata)
    getattr(adata, f"write_{suffix}")(tmp_path / f"x.{suffix}")
    read = getattr(ad, f"read_{suffix}")(tmp_path / f"x.{suffix}")
    pd.testing.assert_frame_equal(ssc.get.differential(read), found)
    pd.testing.assert_frame_equal(
        ssc.get.differential(read, "sae_3"), found[found["feature"] == "sae_3"].reset_index(drop=True)
    )


def run_with_weights(adata):
    adata.uns["sae"]["weights"] = {"W_enc": np.zeros((2, 2), np.float32)}
    return run(adata, covariates=["sex"], groupby="type")


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"key": "other"}, KeyError, "No sparse autoencoder under key='other'"),
        ({"condition": "drug"}, KeyError, r"Did not find adata\.obs\['drug'\]"),
        ({"condition": "age"}, TypeError, r"adata\.obs\['age'\] holds numbers \(float64\), but labels are needed"),
        ({"condition": "same"}, ValueError, "has one value only \\('x'\\): there is nothing to compare"),
        ({"sample_key": "patient"}, KeyError, r"Did not find adata\.obs\['patient'\]"),
        ({"sample_key": "age"}, TypeError, "holds numbers"),
        ({"sample_key": "condition"}, ValueError, "Found control: 1, treated: 1. Samples are the replicates"),
        ({"condition": "mixed"}, ValueError, r"not constant within 1 samples of 'donor' \('donor 2'\)"),
        ({"reference": "placebo"}, ValueError, "Unknown reference: 'placebo'.*'control', 'treated'"),
        ({"measure": "median"}, ValueError, "Unknown measure"),
        ({"covariates": "condition"}, ValueError, "'condition' cannot be a covariate"),
        ({"covariates": "weight"}, KeyError, r"Did not find adata\.obs\['weight'\]"),
        ({"covariates": "type"}, ValueError, "differs between cells of one sample of 'donor'"),
        ({"covariates": "holes"}, ValueError, r"has no \(finite\) value in some cells of the samples 'donor 0'"),
        ({"covariates": "batch"}, ValueError, "The condition cannot be separated from the covariates"),
        ({"covariates": "alias"}, ValueError, "cannot be separated from the covariates, or too few samples are left"),
        ({"groupby": "lineage"}, KeyError, r"Did not find adata\.obs\['lineage'\]"),
        ({"min_samples": 1}, ValueError, "min_samples must be at least 2"),
        ({"min_samples": 7}, ValueError, "At least min_samples=7 samples .* Found control: 6, treated: 6"),
        ({"min_cells": 0}, ValueError, "min_cells must be a whole number"),
        ({"min_active": 10_000}, ValueError, "None of the 48 features is active in at least min_active=10000"),
    ],
)
def test_bad_input_changes_nothing(kwargs, error, match):
    adata = cells()
    adata.obs["same"] = "x"
    adata.obs["mixed"] = adata.obs["condition"].astype(str)
    adata.obs.loc[adata.obs_names[(adata.obs["donor"] == "donor 2").to_numpy()][0], "mixed"] = "treated"
    adata.obs["holes"] = np.where(adata.obs["donor"] == "donor 0", np.nan, 1.0)
    adata.obs["batch"] = adata.obs["condition"].astype(str) + " run"
    adata.obs["alias"] = adata.obs["donor"].astype(str)
    before = set(adata.uns["sae"])
    with pytest.raises(error, match=match):
        ssc.tl.differential_features(
            adata, kwargs.pop("condition", "condition"), sample_key=kwargs.pop("sample_key", "donor"), **kwargs
        )
    assert set(adata.uns["sae"]) == before


def test_interferon_features_of_stimulated_blood(published):
    """2,000 cells of eight donors, half of them treated with interferon beta."""
    adata = published("kang2018")
    counts = adata.X.toarray()
    common = counts.sum(0) > 100
    adata, counts = adata[:, common].copy(), counts[:, common]
    values = np.log1p(counts / counts.sum(1, keepdims=True) * np.median(counts.sum(1)))
    adata.X = sparse.csr_matrix(values)
    values = values[:, np.argsort(values.var(0))[-800:]]
    u, s, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    adata.obsm["X_pca"] = u[:, :20] * s[:20]
    ssc.tl.fit_sae(adata, use_rep="X_pca", n_features=64, max_steps=100, progress_bar=False)
    ssc.tl.feature_genes(adata, progress_bar=False)
    found = run(adata)
    assert adata.uns["sae"]["params"]["differential_features"]["paired"]
    rising = found[(found["score"] > 0) & (found["padj"] < 1e-4)]["feature"].drop_duplicates()
    genes = adata.uns["sae"]["features"].loc[rising[:3], "top_genes"].str.split(",").explode()
    interferon = {"ISG15", "IFI6", "ISG20", "IFIT1", "IFIT2", "IFIT3", "MX1", "LY6E", "IFITM3", "IFITM2", "CXCL10"}
    assert len(interferon & set(genes)) >= 4, set(genes)
    # treated or not by chance
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(5):
        adata.obs["shuffled"] = rng.permutation(["a", "b"] * (adata.n_obs // 2))
        shares.append((run(adata, "shuffled")["pval"] < 0.05).mean())
    assert np.mean(shares) < 0.1
