"""The picture of a steering: panels that the tables allow, and what they show."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sparsesc as ssc


@pytest.fixture
def steered(pbmc68k_code):
    loadings = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 50)), index=[f"g{i}" for i in range(20)])
    ssc.tl.steer(
        pbmc68k_code,
        groupby="bulk_labels",
        from_group="Dendritic",
        to_group="CD19+ B",
        n_steered=2,
        decoder=loadings,
        n_controls=2,
        doses=[0, 2],
    )
    return pbmc68k_code


def test_panels_show_the_tables(steered):
    axes = ssc.pl.steering(steered, n_genes=7, show=False)
    assert list(axes) == ["embedding", "landed", "distance", "genes"]
    found = steered.uns["sae"]["steering"]
    rows = found["doses"].query("control == 'steered'")
    line = next(line for line in axes["landed"].lines if line.get_label() == "steered")
    np.testing.assert_allclose(line.get_xydata(), rows[["dose", "landed"]])
    assert [text.get_text() for text in axes["genes"].get_yticklabels()] == list(found["effects"]["gene"][:7])
    n = (steered.obs["bulk_labels"] == "Dendritic").sum()
    assert axes["embedding"].get_title() == f"{n} cells moved"
    names = {text.get_text() for text in axes["landed"].get_legend().get_texts()}
    assert names == {"steered", "difference of means", "random features", "random directions"}
    assert axes["landed"].get_ylabel() == "share of cells among CD19+ B"
    drawn = {points.get_label(): len(points.get_offsets()) for points in axes["embedding"].collections}
    assert drawn["moved"] == n
    assert drawn["CD19+ B"] == (steered.obs["bulk_labels"] == "CD19+ B").sum()


def test_cells_that_do_not_move_have_no_arrow(steered):
    quiver = [c for c in ssc.pl.steering(steered, show=False)["embedding"].collections if hasattr(c, "U")]
    assert np.hypot(quiver[0].U, quiver[0].V).max() > 1
    ssc.tl.steer(steered, {"sae_1": 1.0}, mode="scale", n_controls=1, doses=[])
    quiver = [c for c in ssc.pl.steering(steered, show=False)["embedding"].collections if hasattr(c, "U")]
    assert not quiver


def test_without_groups_and_decoder_two_panels_are_left(steered):
    steered.uns["sae"]["params"]["use_rep"] = "X_other"
    steered.obsm["X_other"] = steered.obsm["X_pca"]
    ssc.tl.steer(steered, {"sae_1": 3.0}, n_controls=1, doses=[])
    assert list(ssc.pl.steering(steered, show=False)) == ["embedding", "distance"]
    assert list(ssc.pl.steering(steered, basis=None, show=False)) == ["distance"]


def test_arrows_lead_to_the_neighbors_of_moved_cells(steered, monkeypatch):
    monkeypatch.setattr("sparsesc.pl._steering._BINS", 9000)  # one arrow per cell
    monkeypatch.setattr("sparsesc.pl._steering._LEAST", 1)
    near = steered.uns["sae"]["steering"]["neighbors"]
    umap = pd.DataFrame(steered.obsm["X_umap"], index=steered.obs_names)
    mean = umap.loc[near["neighbor"]].groupby([near["state"].to_numpy(), near["cell"].to_numpy()]).mean()
    ax = ssc.pl.steering(steered, show=False)["embedding"]
    quiver = next(c for c in ax.collections if hasattr(c, "U"))
    np.testing.assert_allclose(np.sort(quiver.X), np.sort(mean.loc["before"][0]), atol=1e-3)
    ends = np.column_stack([quiver.X + quiver.U, quiver.Y + quiver.V])
    np.testing.assert_allclose(np.sort(ends, axis=0), np.sort(mean.loc["after"].to_numpy(), axis=0), atol=1e-3)
    # those that are left of a part of the cells
    part = steered[(steered.obs["bulk_labels"] != "CD56+ NK").to_numpy()].copy()
    assert ssc.pl.steering(part, show=False)["embedding"].get_title() == ax.get_title()
    with pytest.raises(ValueError, match=r"None of the steered cells is in this adata\. Run ssc\.tl\.steer"):
        ssc.pl.steering(steered[(steered.obs["bulk_labels"] != "Dendritic").to_numpy()].copy(), show=False)


def test_what_is_missing_is_named(pbmc68k_code, steered):
    with pytest.raises(KeyError, match=r"Did not find adata.obsm\['X_tsne'\]"):
        ssc.pl.steering(steered, basis="X_tsne")
    del steered.uns["sae"]["steering"]
    with pytest.raises(KeyError, match=r"Run ssc.tl.steer first"):
        ssc.pl.steering(steered)
