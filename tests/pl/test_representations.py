from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import sparsesc as ssc
from sparsesc.stats.groups._representation import METRICS


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    names, keys = ["sae", "pca", "a name that is far too long for any axis label"], ["type", "donor"]
    rows = [(n, k, m) for n in names for k in keys for m in METRICS]
    out = pd.DataFrame(rows, columns=["representation", "label_key", "metric"])
    out = out.assign(value=rng.random(len(out)), null_mean=0.1, null_sd=0.02, pval=0.01)
    out = out.assign(n_features=10, n_labels=5, n_cells=100)
    for column, order in (("representation", names), ("label_key", keys), ("metric", METRICS)):
        out[column] = pd.Categorical(out[column], categories=order)
    return out


def points(ax):
    """Places of all dots; rings repeat some of them."""
    return np.vstack([np.asarray(c.get_offsets()) for c in ax.collections if hasattr(c, "get_sizes")])


def test_dots_are_the_values(table):
    axes = ssc.pl.representations(table, ["auroc", "lms_smi"], show=False)
    assert len(axes) == 2
    for ax, metric in zip(axes, ["auroc", "lms_smi"], strict=True):
        expected = table.loc[table["metric"] == metric, "value"]
        assert set(np.round(expected, 9)) <= set(np.round(points(ax)[:, 0], 9))
    assert [t.get_text() for t in axes[0].get_yticklabels()][:2] == ["sae", "pca"]
    assert axes[0].yaxis_inverted()
    legend = axes[0].get_figure().legends[0]
    assert [t.get_text() for t in legend.get_texts()] == ["type", "donor", "shuffled labels"]


def test_a_ring_marks_the_best(table):
    ax = ssc.pl.representations(table, "f1", label_key="type", null=False, show=False)
    rows = table[(table["metric"] == "f1") & (table["label_key"] == "type")]
    ring = max((c for c in ax.collections if hasattr(c, "get_sizes")), key=lambda c: c.get_sizes()[0])
    np.testing.assert_allclose(np.asarray(ring.get_offsets())[:, 0], rows["value"].max())
    assert not ax.get_figure().legends


def test_default_is_a_choice_of_metrics(table):
    assert len(ssc.pl.representations(table, show=False)) == 8
    part = table[table["metric"].isin(["auroc", "f1"])]
    assert len(ssc.pl.representations(part, show=False)) == 2


def test_without_null_and_with_missing_values(table):
    table = table.assign(null_mean=np.nan, null_sd=np.nan, pval=np.nan)
    table.loc[table["metric"] == "msgs_smi", "value"] = np.nan
    fig = ssc.pl.representations(table, ["msgs_smi", "singular"], return_fig=True)
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["type", "donor"]


def test_draws_on_given_axes_and_leaves_the_table(table):
    before = table.copy()
    _, ax = plt.subplots()
    assert ssc.pl.representations(table, "auroc", ax=ax, show=False) is ax
    pd.testing.assert_frame_equal(table, before)
    with pytest.raises(ValueError, match="Cannot draw 2 panels on one ax"):
        ssc.pl.representations(table, ["auroc", "f1"], ax=ax)


def test_bad_input_is_refused(table):
    with pytest.raises(TypeError, match=r"what ssc.tl.compare_representations returns, found 'value'"):
        ssc.pl.representations(table[["value"]])
    with pytest.raises(TypeError, match="found AnnData"):
        ssc.pl.representations(ssc.datasets.pbmc68k_reduced())
    with pytest.raises(KeyError, match=r"Did not find metric 'auc'. Available: 'singular'"):
        ssc.pl.representations(table, ["auroc", "auc"])
    with pytest.raises(KeyError, match=r"Did not find label_key 'x'. Available: 'type', 'donor'"):
        ssc.pl.representations(table, label_key="x")
