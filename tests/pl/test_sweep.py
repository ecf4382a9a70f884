"""The plot of a sweep."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sparsesc as ssc


@pytest.fixture
def table():
    rows = [
        {"architecture": a, "n_features": n, "k": k, "rng": s, "l0": k + 0.1 * s, "fvu": 1 / k + 0.01 * s}
        | {"dead_fraction": 0.02 * s, "stability": 0.6, "stability_random": 0.3}
        for a in ("batchtopk", "topk") for n in (64, 128) for k in (4, 8, 16) for s in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_panel_for_each_metric_and_a_line_for_each_kind(table):
    axes = ssc.pl.sweep(table, show=False)
    assert [ax.get_title() for ax in axes] == ["Unexplained variance (FVU)", "Dead features", "Stability over seeds"]
    lines = [line for line in axes[0].lines if len(line.get_xdata()) == 3]
    assert len(lines) == 4
    mean = table[(table["architecture"] == "batchtopk") & (table["n_features"] == 64)].groupby("k")["fvu"].mean()
    np.testing.assert_allclose(lines[0].get_ydata(), mean)


def test_without_seeds_there_is_no_stability(table):
    axes = ssc.pl.sweep(table.drop(columns=["stability", "stability_random"]), show=False)
    assert len(axes) == 2


def test_one_metric_on_given_axes(table):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert ssc.pl.sweep(table, "fvu", ax=ax, show=False) is ax
    plt.close("all")


def test_other_tables_are_refused(table):
    with pytest.raises(TypeError, match="found ndarray"):
        ssc.pl.sweep(np.zeros(3))
    with pytest.raises(KeyError, match="has no 'l0'"):
        ssc.pl.sweep(table.drop(columns="l0"))
    with pytest.raises(KeyError, match="'speed'"):
        ssc.pl.sweep(table, "speed")
