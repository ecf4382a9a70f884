"""The picture of a suppression: features, and scores beside their controls, as the tables have them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sparsesc as ssc


@pytest.fixture
def suppressed(pbmc68k_code):
    adata = pbmc68k_code
    rng = np.random.default_rng(0)
    on = adata.obsm["X_sae"][:, 5].toarray().ravel() > 0
    adata.obs["batch"] = np.where(on | (rng.random(adata.n_obs) < 0.2), "one", "two")
    ssc.tl.suppress_features(
        adata, batch_key="batch", bio_keys=["bulk_labels"], label_keys=["bulk_labels", "phase"],
        n_permutations=39, n_controls=3, min_cells=5, bio_margin=0.5, progress_bar=False,
    )  # fmt: skip
    return adata


def test_panels_show_the_tables(suppressed):
    axes = ssc.pl.suppression(suppressed, show=False)
    assert list(axes) == ["features", "transfer"]
    features, transfer = (ssc.get.suppression(suppressed, table=name) for name in ("features", "transfer"))
    assert features["suppressed"].iloc[0]
    counts = {text.get_text() for text in axes["features"].get_legend().get_texts()}
    assert counts == {
        f"neither ({(~features['suppressed'] & ~features['spared']).sum()})",
        f"spared ({features['spared'].sum()})",
        f"suppressed ({features['suppressed'].sum()})",
    }
    orange = axes["features"].collections[2].get_offsets()
    expected = features.loc[features["suppressed"], ["bio_share", "share"]].clip(lower=1e-3)
    np.testing.assert_allclose(orange, expected)
    assert {text.get_text() for text in axes["features"].texts} <= set(features.loc[features["suppressed"], "feature"])
    rows = transfer[(transfer["label_key"] == "bulk_labels") & (transfer["state"] == "after")]
    after = next(c for c in axes["transfer"].collections if c.get_label() == "after").get_offsets()
    np.testing.assert_allclose(after[:, 0], [*rows["accuracy"], rows["accuracy"].mean()])
    assert [text.get_text() for text in axes["transfer"].get_yticklabels()] == ["one (n=87)", "two (n=264)", "mean"]
    random = next(c for c in axes["transfer"].collections if c.get_label() == "random features").get_offsets()
    assert len(random) == 3 * 3


def test_other_scores_and_labels(suppressed):
    axes = ssc.pl.suppression(suppressed, label_key="phase", metric="macro_f1", n_named=0, show=False)
    transfer = ssc.get.suppression(suppressed, table="transfer")
    rows = transfer[(transfer["label_key"] == "phase") & (transfer["state"] == "before")]
    before = next(c for c in axes["transfer"].collections if c.get_label() == "before").get_offsets()
    np.testing.assert_allclose(before[:2, 0], rows["macro_f1"])
    assert axes["transfer"].get_xlabel() == "macro F1 of phase from other batches"
    assert len(axes["features"].texts) == 0
    scores = pd.DataFrame({"label_key": "bulk_labels", "state": ["before", "after"], "draw": 0, "metric": "ilisi_knn"})
    suppressed.uns["sae"]["suppression"]["scib"] = scores.assign(about="batch", value=[0.2, 0.5])
    axes = ssc.pl.suppression(suppressed, show=False)
    assert list(axes) == ["features", "transfer", "scib"]
    assert [text.get_text() for text in axes["scib"].get_yticklabels()] == ["iLISI"]


def test_without_labels_features_are_ranked(suppressed):
    ssc.tl.suppress_features(suppressed, batch_key="batch", n_permutations=39, progress_bar=False)
    axes = ssc.pl.suppression(suppressed, show=False)
    assert list(axes) == ["features"]
    assert axes["features"].get_xlabel() == "rank"


def test_what_is_missing_is_named(suppressed):
    with pytest.raises(KeyError, match=r"Did not find label_key 'louvain'. Available: 'bulk_labels', 'phase'"):
        ssc.pl.suppression(suppressed, label_key="louvain")
    with pytest.raises(ValueError, match="Unknown metric: 'f1'"):
        ssc.pl.suppression(suppressed, metric="f1")
    with pytest.raises(KeyError, match=r"\['scib'\] \(tables here: .*'suppression/features', 'suppression/transfer'\)"):
        ssc.get.suppression(suppressed, table="scib")
    ssc.tl.suppress_features(suppressed, "sae_1", progress_bar=False)
    with pytest.raises(ValueError, match="nothing to compare"):
        ssc.pl.suppression(suppressed)
    del suppressed.uns["sae"]["suppression"]
    with pytest.raises(KeyError, match=r"Run ssc.tl.suppress_features first"):
        ssc.get.suppression(suppressed)
    with pytest.raises(ValueError, match="Unknown table: 'all'"):
        ssc.get.suppression(suppressed, table="all")
