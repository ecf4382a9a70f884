from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sparsesc as ssc


@pytest.fixture
def joined(described):
    """A crosscoder's tables, without any training: three embeddings, feature 63 is dead."""
    rng = np.random.default_rng(0)
    slot = described.uns["sae"]
    shares = rng.dirichlet([0.4] * 3, 64)
    for name, share in zip(["rna", "adt", "atac"], shares.T, strict=True):
        slot["features"][f"share_{name}"] = share
    slot["features"]["kind"] = [*["shared"] * 20, *["mixed"] * 13, *["private"] * 30, ""]
    embeddings = pd.DataFrame({"embedding": ["rna", "adt", "atac"], "fvu": [0.2, 0.3, 0.4]})
    counts = pd.DataFrame({"kind": ["shared", "mixed", "private"], "n": [20, 13, 30], "n_shuffled": [0.5, 30, 32.5]})
    slot["crosscoder"] = {"embeddings": embeddings, "cross": pd.DataFrame(), "counts": counts}
    return described


def test_bars_are_shares_in_groups(joined):
    axes = ssc.pl.crosscoder(joined, show=False)
    bars = [container for container in axes.containers if len(container) > 1]
    assert [len(container) for container in bars] == [20, 20, 20, 13, 13, 13, 30, 30, 30]
    first = np.array([bar.get_height() for bar in bars[0]])
    assert (np.diff(first) <= 0).all()
    np.testing.assert_allclose(np.sort(first), np.sort(joined.uns["sae"]["features"]["share_rna"].iloc[:20]))
    tops = np.array([bar.get_y() + bar.get_height() for bar in bars[2]])
    np.testing.assert_allclose(tops, 1)
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "shared\n20 (0.5)",
        "mixed\n13 (30)",
        "private\n30 (32.5)",
    ]
    assert "rna (80% explained)" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_without_controls_and_kinds(joined):
    slot = joined.uns["sae"]
    slot["crosscoder"]["counts"]["n_shuffled"] = np.nan
    slot["crosscoder"]["counts"].loc[1, "n"] = 0
    slot["features"]["kind"] = slot["features"]["kind"].replace("mixed", "")
    axes = ssc.pl.crosscoder(joined, show=False)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["shared\n20", "private\n30"]


def test_not_a_crosscoder(described):
    with pytest.raises(KeyError, match=r"Run ssc.tl.fit_crosscoder first"):
        ssc.pl.crosscoder(described)
