"""Associations within strata and over samples, as users call them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sparsesc as ssc
from sparsesc.stats.groups._over_samples import groups_over_samples
from sparsesc.stats.groups._within_strata import groups_within, numbers_within


@pytest.fixture
def adata(pbmc68k_code):
    """Real cells and labels; eight made-up donors."""
    pbmc68k_code.obs["donor"] = pd.Categorical([f"d{i % 8}" for i in range(pbmc68k_code.n_obs)])
    return pbmc68k_code


def warned(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr("sparsesc._logging.warning", lines.append)
    return lines


def table(adata, keys, name="association", **options) -> pd.DataFrame:
    ssc.tl.feature_association(adata, keys, **options)
    return adata.uns["sae"][name]


def wide(found: pd.DataFrame, column: str) -> np.ndarray:
    return (
        found.pivot(index="feature", columns="category", values=column).loc[found["feature"].cat.categories].to_numpy()
    )


# what is written


def test_strata_give_the_test_within_strata(adata):
    found = table(adata, "phase", strata="bulk_labels")
    groups, strata = (adata.obs[name].cat.codes.to_numpy() for name in ("phase", "bulk_labels"))
    expected = groups_within(adata.obsm["X_sae"], groups, strata)
    np.testing.assert_allclose(wide(found, "pval"), np.exp(expected.log_p))
    np.testing.assert_allclose(wide(found, "auroc"), expected.auroc)
    np.testing.assert_allclose(wide(found, "pearson_r"), expected.pearson_r)
    plain = table(adata, "phase")
    np.testing.assert_allclose(found["auroc_unadjusted"], plain["auroc"])
    np.testing.assert_allclose(found["pearson_r_unadjusted"], plain["pearson_r"])
    assert adata.uns["sae"]["params"]["feature_association"].get("strata") is None


def test_numbers_within_strata(adata):
    found = table(adata, "n_genes", "association_numeric", strata=["bulk_labels", "phase"])
    both = (adata.obs["bulk_labels"].astype(str) + adata.obs["phase"].astype(str)).astype("category").cat.codes
    expected = numbers_within(
        adata.obsm["X_sae"], adata.obs["n_genes"].to_numpy(float), both.to_numpy(), kind="spearman"
    )
    np.testing.assert_allclose(found["spearman_r"], expected.r)
    np.testing.assert_allclose(found["pval"], np.exp(expected.log_p))
    assert (found["n_strata"] == expected.n_strata).all()


def test_samples_give_the_test_over_samples(adata):
    found = table(adata, "phase", sample_key="donor")
    groups, samples = (adata.obs[name].cat.codes.to_numpy() for name in ("phase", "donor"))
    expected = groups_over_samples(adata.obsm["X_sae"], groups, samples)
    np.testing.assert_allclose(wide(found, "pval"), np.exp(expected.log_p))
    np.testing.assert_array_equal(wide(found, "n_samples")[0], expected.n_samples)
    assert expected.n_samples.max() == 8
    again = table(adata, "phase", sample_key="donor", strata="bulk_labels")
    assert not np.allclose(again["auroc"], found["auroc"])


def test_whole_samples_are_held_out(adata):
    """A feature of one donor looks like a feature of its cells; in other donors it is nothing."""
    codes = adata.obsm["X_sae"].toarray()
    codes[:, 0] = 0
    ill = (adata.obs["donor"] == "d3").to_numpy()
    codes[ill, 0] = 5
    adata.obsm["X_sae"] = sparse.csr_matrix(codes)
    adata.obs["state"] = np.where(
        ill & (np.arange(700) % 5 > 0), "odd", np.where(np.arange(700) % 9 > 7, "odd", "even")
    )
    plain = table(adata, "state", "labels").set_index("category")
    assert plain.loc["odd", "feature"] == "sae_0"
    assert plain.loc["odd", "auroc_heldout"] > 0.7
    over = table(adata, "state", "labels", sample_key="donor").set_index("category")
    assert over.loc["odd", "auroc_heldout"] < 0.65


# nothing is found where nothing is


def shuffled_within(values: np.ndarray, strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    out = values.copy()
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        out[rows] = values[rng.permutation(rows)]
    return out


@pytest.fixture(scope="module")
def donors_differ():
    """Types, depth and features differ between donors: features follow the type, the depth of a cell and the donor."""
    import anndata as ad

    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(6), [200, 160, 130, 110, 100, 80])
    kind = np.array([rng.choice(3, p=p) for p in rng.dirichlet([3, 3, 3], size=6)[donor]])
    depth = rng.normal(size=len(donor)) + rng.normal(scale=0.5, size=6)[donor]
    odds = rng.normal(scale=0.6, size=(6, 40))[donor] + rng.normal(scale=0.8, size=(3, 40))[kind] - 1.5
    odds += np.outer(depth, rng.normal(scale=0.4, size=40))
    codes = rng.gamma(2, size=odds.shape) * (rng.random(odds.shape) < 1 / (1 + np.exp(-odds)))
    obs = pd.DataFrame(
        {"donor": donor.astype(str), "kind": kind.astype(str)}, index=[f"c{i}" for i in range(len(donor))]
    )
    adata = ad.AnnData(sparse.csr_matrix((len(donor), 1), dtype=np.float32), obs=obs)
    adata.obsm["X_own"] = codes.astype(np.float32)
    eye, nothing = np.eye(40), np.zeros(40)
    ssc.tl.apply_sae(adata, ssc.nn.SparseAutoencoder(eye, nothing, eye, nothing, nothing), use_rep="X_own")
    return adata


@pytest.mark.parametrize("labels", ["types shuffled within donors", "shares differ by donor"])
def test_labels_that_only_follow_the_donor(donors_differ, labels):
    adata = donors_differ.copy()
    donor = adata.obs["donor"].to_numpy()
    p: dict[str, list[np.ndarray]] = {"plain": [], "strata": [], "samples": []}
    false = dict.fromkeys(p, 0)
    for seed in range(20):
        rng = np.random.default_rng([7, seed])
        if labels.startswith("types"):
            made = shuffled_within(adata.obs["kind"].to_numpy().astype(object), donor, rng)
        else:
            made = np.where(rng.random(len(donor)) < rng.beta(2, 2, size=6)[donor.astype(int)], "x", "y")
        adata.obs["made"] = pd.Categorical(made)
        for name, options in (("plain", {}), ("strata", {"strata": "donor"}), ("samples", {"sample_key": "donor"})):
            found = table(adata, "made", **options)
            p[name].append(found["pval"].dropna())
            false[name] += bool((found["padj"] < 0.05).any())
    share = {name: (np.concatenate(values) <= 0.05).mean() for name, values in p.items()}
    assert 0.03 < share["strata"] < 0.065
    assert share["samples"] < 0.065
    assert false["strata"] <= 3  # .05 of 20, and what chance may make of it
    assert false["samples"] <= 3
    assert share["plain"] > 0.08
    assert false["plain"] >= 8


# what cannot be compared is said


def test_categories_alone_in_their_strata_are_said(adata, monkeypatch):
    lines = warned(monkeypatch)
    found = table(adata, "bulk_labels", strata="louvain")
    assert any("strata of 'louvain'" in line and "contribute nothing" in line for line in lines)
    adata.obs["same"] = adata.obs["bulk_labels"].astype(str)
    lines.clear()
    found = table(adata, "bulk_labels", strata="same")
    assert found["pval"].isna().all()
    assert found["padj"].isna().all()
    assert any("share no stratum with other categories: not tested (p is NaN)" in line for line in lines)


def test_few_samples_are_said(adata, monkeypatch):
    lines = warned(monkeypatch)
    adata.obs["half"] = np.where(np.arange(700) // 8 % 2, "a", "b")
    adata.obs["four"], adata.obs["two"] = ([f"s{i % n}" for i in range(700)] for n in (4, 2))
    table(adata, "half", sample_key="four")
    assert "so few samples (4 with cells inside and outside) that no p <= .05 is possible" in lines[-1]
    lines.clear()
    found = table(adata, "half", sample_key="two")
    assert found["pval"].isna().all()
    assert "have fewer than 3 samples with cells inside and outside and are not tested (p is NaN)" in lines[-1]
    lines.clear()
    table(adata, "half", sample_key="donor")
    assert not lines


def test_cells_without_a_stratum_are_left_out(adata, monkeypatch):
    lines = warned(monkeypatch)
    adata.obs["stratum"] = adata.obs["bulk_labels"].astype(object).where(np.arange(700) > 99, None)
    found = table(adata, "phase", strata="stratum")
    assert any("100 of 700 cells have no 'stratum' (strata) and are left out" in line for line in lines)
    expected = table(adata[100:].copy(), "phase", strata="stratum")
    np.testing.assert_allclose(found["pval"], expected["pval"])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"strata": "phase"}, ValueError, r"'phase' is tested and cannot divide the cells as well \(strata\)"),
        ({"sample_key": "phase"}, ValueError, r"cannot divide the cells as well \(sample_key\)"),
        ({"strata": "batch"}, KeyError, r"Did not find adata\.obs\['batch'\]"),
        ({"strata": "percent_mito"}, TypeError, r"holds numbers .* Cut it into bins first"),
        ({"sample_key": "one"}, ValueError, "has one sample only"),
        ({"sample_key": "donor", "pvalues": "permutation"}, ValueError, "with sample_key, samples are tested"),
        ({"label_keys": "half", "sample_key": "donor", "strata": "phase"}, ValueError, "is constant within samples"),
    ],
)
def test_bad_input(adata, options, error, match):
    adata.obs["one"] = "a"
    adata.obs["half"] = np.where(adata.obs["donor"].cat.codes < 4, "a", "b")
    with pytest.raises(error, match=match):
        ssc.tl.feature_association(adata, options.pop("label_keys", "phase"), **options)
    assert "association" not in adata.uns["sae"]
