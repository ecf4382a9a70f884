from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors

import sparsesc as ssc
from sparsesc.pl import _style


@pytest.fixture
def compared(pbmc68k_code):
    """Real cells in ten made-up samples of two conditions; feature 3 rises."""
    adata = pbmc68k_code
    rng = np.random.default_rng(0)
    sample = rng.integers(10, size=adata.n_obs)
    adata.obs["sample"] = pd.Categorical([f"s{i}" for i in sample])
    adata.obs["condition"] = pd.Categorical(np.where(sample % 2, "treated", "control"))
    adata.obs["kind"] = pd.Categorical(np.where(rng.random(adata.n_obs) < 0.5, "B", "T"))
    codes = adata.obsm["X_sae"].tolil()
    codes[np.flatnonzero(sample % 2), 3] = 2 + 0.5 * rng.random(int((sample % 2).sum()))
    adata.obsm["X_sae"] = codes.tocsr()
    ssc.tl.differential_features(adata, "condition", sample_key="sample")
    return adata


def texts(ax):
    return [t.get_text() for t in ax.texts]


def test_volcano_shows_the_table(compared):
    before = compared.uns["sae"]["differential"].copy()
    ax = ssc.pl.differential(compared, measure="mean", show=False)
    rows = before[before["measure"] == "mean"]
    points = ax.collections[0].get_offsets()
    np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(rows["logfc"]))
    np.testing.assert_allclose(np.sort(points[:, 1]), np.sort(-np.log10(rows["pval"])))
    assert ax.get_title() == "treated vs control\n(n=5 vs 5 samples)"
    assert ax.get_xlabel().startswith("log2 fold change of mean activation")
    assert texts(ax)[0] == "sae_3"
    blue = [colors.to_hex(c).upper() == _style.BLUE for c in ax.collections[0].get_facecolor()]
    assert sum(blue) == ((rows["padj"] < 0.05) & (rows["logfc"] > 0)).sum() >= 1
    pd.testing.assert_frame_equal(compared.uns["sae"]["differential"], before)
    ax = ssc.pl.differential(compared, measure="active", value="score", n_labels=0, show=False)
    rows = before[before["measure"] == "active"]
    np.testing.assert_allclose(np.sort(ax.collections[0].get_offsets()[:, 0]), np.sort(rows["score"]))
    assert not texts(ax)
    assert ax.get_xlabel().startswith("t of share of active cells")


def test_samples_are_the_points(compared):
    codes = compared.obsm["X_sae"].toarray()[:, 3]
    by_sample = pd.DataFrame({"mean": codes, "active": codes > 0}).groupby(compared.obs["sample"].to_numpy()).mean()
    for measure in ("mean", "active"):
        ax = ssc.pl.differential(compared, "sae_3", measure=measure, show=False)
        np.testing.assert_allclose(
            np.sort(ax.collections[0].get_offsets()[:, 1]), np.sort(by_sample[measure]), rtol=1e-6
        )
        x = np.round(ax.collections[0].get_offsets()[:, 0])
        assert sorted(x) == [0] * 5 + [1] * 5
    assert [t.get_text() for t in ax.get_xticklabels()] == ["control\n(n=5)", "treated\n(n=5)"]
    assert ax.get_title().startswith("sae_3\npadj ")
    assert not ax.lines


def test_strongest_features_are_chosen(compared):
    axes = ssc.pl.differential(compared, kind="samples", show=False)
    assert len(axes) == 8
    assert axes[0].get_title().startswith("sae_3\n")


def test_samples_under_both_conditions_are_joined(compared):
    compared.obs["condition"] = np.where(np.arange(700) % 2, "after", "before")
    ssc.tl.differential_features(compared, "condition", sample_key="sample", reference="before")
    ax = ssc.pl.differential(compared, "sae_3", show=False)
    assert len(ax.lines) == 10
    assert all(len(line.get_xdata()) == 2 for line in ax.lines)
    assert len(ax.collections[0].get_offsets()) == 20


def test_groups(compared):
    ssc.tl.differential_features(compared, "condition", sample_key="sample", groupby="kind", measure="active")
    axes = ssc.pl.differential(compared, show=False)
    assert {ax.get_title() for ax in axes} == {f"{kind}: treated vs control\n(n=5 vs 5 samples)" for kind in "BT"}
    ax = ssc.pl.differential(compared, group="T", show=False)
    assert ax.get_title() == "T: treated vs control\n(n=5 vs 5 samples)"
    ax = ssc.pl.differential(compared, "sae_3", group="T", show=False)
    codes = compared.obsm["X_sae"].toarray()[:, 3] > 0
    inside = (compared.obs["kind"] == "T").to_numpy()
    expected = pd.Series(codes[inside]).groupby(compared.obs["sample"].to_numpy()[inside]).mean()
    np.testing.assert_allclose(np.sort(ax.collections[0].get_offsets()[:, 1]), np.sort(expected))
    assert "T, padj" in ax.get_title()
    with pytest.raises(ValueError, match="Unknown measure: 'mean'"):
        ssc.pl.differential(compared, measure="mean")


def test_several_conditions(compared):
    compared.obs["condition"] = compared.obs["sample"].cat.codes.to_numpy() % 3
    compared.obs["condition"] = compared.obs["condition"].map(lambda i: "abc"[i])
    ssc.tl.differential_features(compared, "condition", sample_key="sample")
    ax = ssc.pl.differential(compared, "sae_3", show=False)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a\n(n=4)", "b\n(n=3)", "c\n(n=3)"]
    ax = ssc.pl.differential(compared, "sae_3", condition="c", show=False)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a\n(n=4)", "c\n(n=3)"]
    assert ssc.pl.differential(compared, condition="b", show=False).get_title() == "b vs a\n(n=3 vs 4 samples)"


def plant(compared, hits: dict[tuple[str, str], float]) -> None:
    """Only these features and measures differ."""
    table = compared.uns["sae"]["differential"]
    table[["pval", "padj"]] = 0.5, 1.0
    for (feature, measure), p in hits.items():
        rows = (table["feature"] == feature) & (table["measure"] == measure)
        table.loc[rows, ["pval", "padj"]] = p, 10 * p
    compared.uns["sae"]["differential"] = table.sort_values("pval", kind="stable", ignore_index=True)


def test_the_measure_with_the_hits_is_shown(compared):
    plant(compared, {("sae_5", "active"): 1e-8})
    ax = ssc.pl.differential(compared, show=False)
    assert texts(ax) == ["sae_5"]
    assert "share of active cells" in ax.get_xlabel()
    axes = ssc.pl.differential(compared, kind="samples", show=False)
    assert axes[0].get_ylabel() == "Share of active cells"
    assert axes[0].get_title().startswith("sae_5\n")


def test_what_only_the_other_measure_finds_is_said(compared):
    plant(compared, {("sae_5", "active"): 1e-8, ("sae_6", "active"): 1e-7, ("sae_7", "mean"): 1e-9})
    ax = ssc.pl.differential(compared, show=False)
    assert sorted(texts(ax)) == ["sae_5", "sae_6"]
    assert "by mean activation: sae_7" in ax.get_xlabel()
    ax = ssc.pl.differential(compared, measure="mean", show=False)
    assert texts(ax) == ["sae_7"]
    assert "by share of active cells: sae_5 and 1 more" in " ".join(ax.get_xlabel().split())
    plant(compared, {("sae_5", "active"): 1e-8, ("sae_5", "mean"): 1e-7})  # found by both: the mean
    assert ssc.pl.differential(compared, show=False).get_xlabel() == "log2 fold change of mean activation"


def test_nothing_significant_and_p_of_zero(compared):
    table = compared.uns["sae"]["differential"]
    table["padj"] = 1.0
    table.loc[0, "pval"] = 0.0
    ax = ssc.pl.differential(compared, show=False)
    assert texts(ax) == ["no padj < 0.05"]
    assert np.isfinite(ax.get_ylim()).all()


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"kind": "dots"}, ValueError, "Unknown kind: 'dots'"),
        ({"value": "pval"}, ValueError, "Unknown value"),
        ({"group": "T"}, ValueError, "Unknown group: 'T'.*'all'"),
        ({"condition": "control"}, ValueError, "Unknown condition: 'control'.*'treated'"),
        ({"features": "sae_99"}, KeyError, "Did not find feature 'sae_99'"),
        ({"key": "other"}, KeyError, "No sparse autoencoder"),
        ({"ncols": 0}, ValueError, "ncols must be"),
    ],
)
def test_bad_options(compared, kwargs, error, match):
    with pytest.raises(error, match=match):
        ssc.pl.differential(compared, **kwargs)


def test_table_that_was_not_computed(pbmc68k_code):
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.differential_features first"):
        ssc.pl.differential(pbmc68k_code)
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.differential_features first"):
        ssc.get.differential(pbmc68k_code)
