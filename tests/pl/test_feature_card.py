from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors

import sparsesc as ssc


def labels(ax):
    return [t.get_text().replace("\n", " ") for t in ax.get_yticklabels()]


def categories(ax):
    """Without the number of cells."""
    return [text.rsplit(" (n=", 1)[0] for text in labels(ax)]


def test_all_parts(described):
    axes = ssc.pl.feature_card(described, "sae_4", show=False)
    assert list(axes) == ["embedding", "share", "activation", "genes", "enrichment"]
    assert axes["embedding"].figure.get_suptitle() == "sae_4"
    genes = described.uns["sae"]["genes"]
    assert labels(axes["genes"]) == list(genes.loc[genes["feature"] == "sae_4", "gene"][:10])
    terms = described.uns["sae"]["enrichment"]
    up = terms[(terms["feature"] == "sae_4") & (terms["score"] > 0)].sort_values("padj")
    np.testing.assert_array_equal(axes["enrichment"].collections[1].get_offsets()[:, 0], up["score"][:6])


def test_shares_of_cells_in_which_it_is_on_by_category(described):
    axes = ssc.pl.feature_card(described, "sae_4", groupby="bulk_labels", show=False)
    values = described.obsm["X_sae"][:, 4].toarray().ravel().astype(float)
    threshold = 0.5 * (values @ values) / values.sum()
    by_label = described.obs["bulk_labels"].to_numpy()
    on, active = (pd.Series(cells).groupby(by_label).mean() for cells in (values > threshold, values > 0))
    names = categories(axes["share"])
    bars = axes["share"].patches
    assert sorted(names) == sorted(on.index)
    assert (np.diff(on[names]) <= 0).all()
    np.testing.assert_allclose([b.get_width() for b in bars], np.r_[on[names], active[names]])
    colors_of = dict(zip(described.obs["bulk_labels"].cat.categories, described.uns["bulk_labels_colors"], strict=True))
    for bar, label in zip(bars, names, strict=False):
        assert colors.to_hex(bar.get_facecolor()) == colors.to_hex(colors_of[label])
    sizes = described.obs["bulk_labels"].value_counts()
    assert labels(axes["share"]) == [f"{name} (n={sizes[name]:,})" for name in names]
    dashed = next(line for line in axes["activation"].lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(dashed.get_xdata(), threshold)
    title = f"on in {(values > threshold).mean():.2%} of cells (active in {(values > 0).mean():.2%})"
    assert axes["embedding"].get_title() == title


def test_the_name_and_the_groups_of_mixed_features_are_told(described):
    table = described.uns["sae"]["features"]
    table["name"], table["label"] = "CD19+ B | CD79A", "S"
    table["where"], table["where_key"], table["where_precision"], table["where_recall"] = (
        "CD19+ B",
        "bulk_labels",
        0.9,
        0.5,
    )
    table["mixed_groups"] = "strong: CD19+ B; weak: Dendritic"
    axes = ssc.pl.feature_card(described, "sae_4", show=False)
    title = axes["embedding"].figure.get_suptitle()
    assert title == "sae_4 · CD19+ B | CD79A\nmixed: strong: CD19+ B; weak: Dendritic"
    told = axes["share"].get_title(loc="left").replace("\n", " ")
    assert told == "bulk_labels: CD19+ B (held out: precision 0.90, recall 0.50)"
    table["name"], table["mixed_groups"] = "unknown (sae_4)", ""
    axes = ssc.pl.feature_card(described, "sae_4", show=False)
    assert axes["embedding"].figure.get_suptitle() == "sae_4 · unknown"


def test_boxes_are_quartiles_of_active_cells(described):
    axes = ssc.pl.feature_card(described, "sae_4", groupby="phase", show=False)
    values = described.obsm["X_sae"][:, 4].toarray().ravel()
    first = categories(axes["share"])[0]
    active = values[(described.obs["phase"] == first).to_numpy() & (values > 0)]
    box = axes["activation"].patches[0].get_path().vertices[:, 0]
    assert (box.min(), box.max()) == pytest.approx(tuple(np.percentile(active, [25, 75])))


def test_the_best_matching_column_is_chosen(described):
    table = described.uns["sae"]["association"]
    table.loc[(table["feature"] == "sae_4") & (table["category"] == "G2M"), "auroc"] = 0.999
    axes = ssc.pl.feature_card(described, "sae_4", show=False)
    assert axes["share"].get_title(loc="left") == "phase: G2M (AUROC 1.00)"
    assert set(categories(axes["share"])) == {"G1", "S", "G2M"}


def test_the_label_comes_with_its_score_on_held_out_cells(described):
    table = described.uns["sae"]["features"]
    table["label"], table["label_auroc_heldout"] = "phase: S", 0.654
    axes = ssc.pl.feature_card(described, "sae_4", show=False)
    assert axes["share"].get_title(loc="left") == "phase: S (held-out AUROC 0.65)"
    table["label"] = "S"
    axes = ssc.pl.feature_card(described, "sae_4", show=False)
    assert axes["share"].get_title(loc="left") == "phase: S (held-out AUROC 0.65)"
    axes = ssc.pl.feature_card(described, "sae_4", groupby="bulk_labels", show=False)
    assert axes["share"].get_title(loc="left").startswith("bulk_labels: ")
    assert "held-out" not in axes["share"].get_title(loc="left")


def test_parts_that_were_not_computed_are_left_out(described):
    for name in ("association", "genes"):
        del described.uns["sae"][name]
    assert list(ssc.pl.feature_card(described, "sae_4", show=False)) == ["embedding", "enrichment"]
    del described.uns["sae"]["enrichment"]
    assert list(ssc.pl.feature_card(described, "sae_4", show=False)) == ["embedding"]
    with pytest.raises(ValueError, match="Nothing to draw"):
        ssc.pl.feature_card(described, "sae_4", basis=None)


def test_hint_names_the_function_to_run(described, monkeypatch):
    hints = []
    monkeypatch.setattr("sparsesc._logging.hint", hints.append)
    del described.uns["sae"]["genes"]
    ssc.pl.feature_card(described, "sae_4", show=False)
    assert hints == ["feature_card: no genes for 'sae'; run ssc.tl.feature_genes to see them here"]


def test_only_the_leading_categories(described):
    axes = ssc.pl.feature_card(described, "sae_4", n_groups=3, groupby="bulk_labels", show=False)
    assert len(labels(axes["share"])) == 3


def test_labels_with_missing_values_and_one_cell(described):
    labels_ = described.obs["bulk_labels"].astype(object)
    labels_.iloc[:50] = np.nan
    labels_.iloc[50] = "alone"
    described.obs["patchy"] = pd.Categorical(labels_)
    axes = ssc.pl.feature_card(described, "sae_4", groupby="patchy", show=False)
    assert "nan" not in labels(axes["share"])


def test_dead_feature(described):
    axes = ssc.pl.feature_card(described, "sae_63", groupby="phase", show=False)
    assert axes["embedding"].get_title() == "on in 0.00% of cells (active in 0.00%)"
    assert [t.get_text() for t in axes["genes"].texts] == ["not tested"]
    assert not axes["activation"].patches


def test_the_title_of_given_axes_figure_is_left_alone(described):
    from matplotlib import pyplot as plt

    fig, (_, ax) = plt.subplots(1, 2, figsize=(20, 8), layout="constrained")
    axes = ssc.pl.feature_card(described, "sae_4", ax=ax, show=False)
    assert fig.get_suptitle() == ""
    assert axes["embedding"].get_title(loc="left").startswith("sae_4\non in")


def test_bad_input(described):
    with pytest.raises(KeyError, match="Did not find feature 'nothing'"):
        ssc.pl.feature_card(described, "nothing")
    with pytest.raises(KeyError, match=r"Did not find adata.obs\['donor'\]"):
        ssc.pl.feature_card(described, "sae_1", groupby="donor")
    with pytest.raises(KeyError, match=r"obsm\['X_tsne'\]"):
        ssc.pl.feature_card(described, "sae_1", basis="X_tsne")
    with pytest.raises(ValueError, match=r"groupby must name categories, found numbers in adata.obs\['n_counts'\]"):
        ssc.pl.feature_card(described, "sae_1", groupby="n_counts")
