from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import sparsesc as ssc

UNITS, TERMS = [f"oae_{i}" for i in range(8)], [f"HALLMARK_SET_{i}" for i in range(12)]


@pytest.fixture
def adata():
    """The slots that the plot reads, with numbers of known places."""
    rng = np.random.default_rng(0)
    impact = rng.random((8, 12))
    scaled = (impact - impact.min(0)) / (impact.max(0) - impact.min(0))
    table = pd.DataFrame(
        {
            "unit": pd.Categorical(np.repeat(UNITS, 12)),
            "term": pd.Categorical(np.tile(TERMS, 8), categories=TERMS),
            "impact": impact.ravel(),
            "sd": 0.1,
            "scaled": scaled.ravel(),
            "score": rng.standard_normal(96),
            "pval": rng.random(96) * 0.1,
            "padj": rng.random(96) * 0.2,
            "n_genes": 10,
            "genes": "a,b",
        }
    )
    adata = AnnData(np.zeros((3, 2), np.float32))
    adata.uns["saliency"] = {
        "params": {},
        "units": pd.DataFrame({"n_cells": 3, "silent": False}, index=pd.Index(UNITS, name="unit")),
        "inputs": pd.DataFrame({"mean": [1.0, 1.0], "detected": 1.0}, index=["a", "b"]),
        "pairs": {"cells": ["0"], "cell": [0], "unit": [0], "nodes": np.zeros((1, 1))},
        "node_weights": np.zeros((1, 2)),
        "impact": table,
    }
    return adata


def labels(ax):
    return [t.get_text() for t in ax.get_yticklabels()], [t.get_text() for t in ax.get_xticklabels()]


def test_cells_frames_and_dots_are_where_the_table_says(adata):
    ax = ssc.pl.geneset_impact(adata, show=False)
    terms, units = labels(ax)
    assert len(terms) == 12
    assert len(units) == 8
    table = adata.uns["saliency"]["impact"].astype({"unit": str, "term": str})
    at = {
        name: table.pivot(index="term", columns="unit", values=name).loc[[f"HALLMARK_{t}" for t in terms], units]
        for name in ("scaled", "padj")
    }
    np.testing.assert_allclose(np.asarray(ax.collections[0].get_array()).reshape(12, 8), at["scaled"])
    frames = {(int(p.get_y()), int(p.get_x())) for p in ax.patches}
    assert frames == set(zip(*np.nonzero(at["scaled"].to_numpy() > 0.7), strict=True))
    dots = {(int(y), int(x)) for x, y in ax.collections[1].get_offsets()}
    assert dots == set(zip(*np.nonzero(at["padj"].to_numpy() < 0.05), strict=True))


def test_choices(adata):
    ax = ssc.pl.geneset_impact(adata, n_terms=4, n_units=3, mark=0.9, alpha=0.1, show=False)
    terms, units = labels(ax)
    assert (len(terms), len(units)) == (4, 3)
    table = adata.uns["saliency"]["impact"]
    best = table.sort_values("padj")["term"].astype(str).drop_duplicates().head(4)
    assert {f"HALLMARK_{t}" for t in terms} == set(best)
    ax = ssc.pl.geneset_impact(adata, ["oae_3", 1], terms=TERMS[:5], value="score", strip="", vmax=2, show=False)
    terms, units = labels(ax)
    assert set(units) == {"oae_1", "oae_3"}
    assert set(terms) == set(TERMS[:5])
    assert not ax.patches
    assert (ax.collections[0].norm.vmin, ax.collections[0].norm.vmax) == (-2, 2)


def test_draws_on_axes_saves_and_leaves_adata_alone(adata, tmp_path):
    from matplotlib import pyplot as plt

    before = adata.copy()
    _, ax = plt.subplots()
    assert ssc.pl.geneset_impact(adata, ax=ax, show=False) is ax
    ssc.pl.geneset_impact(adata, value="impact", save=tmp_path / "a.png", show=False)
    assert (tmp_path / "a.png").stat().st_size > 1000
    pd.testing.assert_frame_equal(adata.uns["saliency"]["impact"], before.uns["saliency"]["impact"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"value": "p"}, ValueError, "Unknown value"),
        ({"terms": "HALLMARK_X"}, KeyError, "Did not find the gene sets 'HALLMARK_X'"),
        ({"units": "oae_99"}, KeyError, "Did not find unit"),
        ({"n_units": 0}, ValueError, "n_units must be a whole number"),
        ({"key": "x"}, KeyError, "No saliency under key='x'"),
    ],
)
def test_bad_input(adata, options, error, message):
    with pytest.raises(error, match=message):
        ssc.pl.geneset_impact(adata, **options)


def test_not_computed(adata):
    del adata.uns["saliency"]["impact"]
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.geneset_impact"):
        ssc.pl.geneset_impact(adata)
