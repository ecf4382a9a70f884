from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import sparsesc as ssc


@pytest.fixture
def studied():
    """Tables as the study writes them, by hand."""
    names = ["rank", "expression_umap"]
    effect = {f"auroc{end}": [0.9, 1.0] for end in ("", "_low", "_high")}
    ratio = {"ratio": [0.7, 0.2], "ratio_low": [0.6, 0.1], "ratio_high": [0.8, 0.3]}
    pairs = [
        {"measure": m, "group_a": a, "group_b": b, "within": a == b, "distance": 1.0 if a == b else 2.0 + ord(b) / 100}
        for m in names
        for a, b in ["AA", "BB", "CC", "AB", "AC", "BC"]
    ]
    shares = {"same_group": 0.8, "same_group_low": 0.7, "same_group_high": 0.9, "same_group_expected": 0.3}
    levels = [("thinning", 1.0, 300), ("thinning", 0.5, 200), ("detected genes", 1.0, 250)]
    uns = {
        "summary": pd.DataFrame({"measure": names, "between": [2.0, 2.0]} | effect | ratio),
        "pairs": pd.DataFrame(pairs),
        "neighbors": pd.DataFrame([{"measure": name} | shares for name in names]),
        "rules": pd.DataFrame({"rule": ["one", "another"]} | ratio),
        "sparsity": pd.DataFrame(
            [
                {
                    "by": by,
                    "level": level,
                    "n_genes": n,
                    "measure": m,
                    "ratio": 0.5,
                    "ratio_low": 0.4,
                    "ratio_high": 0.6,
                }
                for by, level, n in levels
                for m in names
            ]
        ),
    }
    return AnnData(np.zeros((2, 1)), uns={"rank_fidelity": uns})


def test_panels_show_the_tables(studied):
    axes = ssc.pl.rank_fidelity(studied, show=False)
    points = [np.asarray(c.get_offsets()) for c in axes["distances"].collections]
    assert [len(p) for p in points] == [3, 3, 3, 3]  # within and between, for two measures
    np.testing.assert_allclose(points[0][:, 0], 0.5)  # within over between
    assert axes["distances"].get_yticklabels()[0].get_text() == "rank\nAUROC 0.90"
    assert [t.get_text() for t in axes["rules"].get_yticklabels()] == ["one", "another"]
    assert [line.get_xdata().tolist() for line in axes["sparsity"].lines] == [[200, 300]] * 2
    assert axes["neighbors"].get_legend_handles_labels()[1] == ["same type", "same type, by chance"]


def test_bins_are_shown_where_nothing_was_thinned(studied):
    table = studied.uns["rank_fidelity"]["sparsity"]
    studied.uns["rank_fidelity"]["sparsity"] = table[table["by"] == "detected genes"]
    axes = ssc.pl.rank_fidelity(studied, show=False)
    assert "bins of cells" in axes["sparsity"].get_xlabel()


def test_batches_have_their_points(studied):
    table = studied.uns["rank_fidelity"]["neighbors"]
    for end in ("", "_low", "_high", "_expected"):
        table[f"same_batch{end}"] = table[f"same_group{end}"] / 2
    axes = ssc.pl.rank_fidelity(studied, show=False)
    assert "same batch, by chance" in axes["neighbors"].get_legend_handles_labels()[1]


def test_missing_study():
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.rank_fidelity first"):
        ssc.pl.rank_fidelity(AnnData(np.zeros((2, 1))))
