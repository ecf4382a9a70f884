from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sparsesc as ssc


@pytest.fixture
def applied(described):
    """A query whose reference is known, without any training."""
    rng = np.random.default_rng(0)
    slot = described.uns["sae"]
    density = slot["features"]["density"].to_numpy()
    before = np.clip(density * rng.uniform(0.5, 2, 64), 0, 1)
    drift = 2 * np.arcsin(np.sqrt(density)) - 2 * np.arcsin(np.sqrt(before))
    table = {"feature": slot["features"].index.astype(object), "density_reference": before, "density_query": density}
    table |= {"drift": drift, "padj": np.where(np.abs(drift) > 0.2, 0.01, 0.5)}
    slot["drift"] = pd.DataFrame(table).iloc[np.argsort(-np.abs(drift))].reset_index(drop=True)
    slot["reference"] = {"residual": np.sort(rng.gamma(20, size=100))}
    slot["query"] = {"fvu_reference_units": 0.3, "fvu_reference": 0.2, "beyond_95": 0.12}
    described.obs["sae_residual"] = rng.gamma(22, size=described.n_obs)
    return described


def test_one_row_a_feature_largest_drift_first(applied):
    axes = ssc.pl.drift(applied, n_shown=7, show=False)
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == applied.uns["sae"]["drift"]["feature"].head(7).tolist()
    before, after = axes.collections[1].get_offsets(), axes.collections[2].get_offsets()
    rows = applied.uns["sae"]["drift"].head(7)
    np.testing.assert_allclose(before[:, 0], 2 * np.arcsin(np.sqrt(rows["density_reference"])))
    np.testing.assert_allclose(after[:, 0] - before[:, 0], rows["drift"], atol=1e-12)
    assert axes.get_title(loc="left") == "unexplained: query 30.0%, reference 20.0%"


def test_named_features(applied):
    axes = ssc.pl.drift(applied, ["sae_3", 5], show=False)
    assert {text.get_text() for text in axes.get_yticklabels()} == {"sae_3", "sae_5"}


def test_cells_of_both(applied):
    axes = ssc.pl.drift(applied, kind="cells", show=False)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "95 % of the reference: 12.0% of the query beyond" in labels
    limit = np.quantile(applied.uns["sae"]["reference"]["residual"], 0.95)
    assert axes.lines[0].get_xdata()[0] == pytest.approx(limit)


def test_an_unknown_reference(applied):
    applied.uns["sae"]["drift"]["drift"] = np.nan
    with pytest.raises(ValueError, match="Nothing is known of the cells that 'sae' was fitted to"):
        ssc.pl.drift(applied)
    applied.uns["sae"]["reference"] = {}
    assert ssc.pl.drift(applied, kind="cells", show=False)


def test_errors(described):
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.apply_sae first"):
        ssc.pl.drift(described)
    with pytest.raises(ValueError, match="Unknown kind: 'genes'"):
        ssc.pl.drift(described, kind="genes")
