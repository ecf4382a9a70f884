from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import sparsesc as ssc


@pytest.fixture
def adata(pbmc68k_code):
    codes = pbmc68k_code.obsm["X_sae"].toarray()
    codes[:, 60] = codes[:, 61] = codes[:, 3]
    pbmc68k_code.obsm["X_sae"] = sparse.csr_matrix(codes)
    ssc.tl.feature_similarity(pbmc68k_code, n_neighbors=3)
    return pbmc68k_code


def test_cells_are_similarities_and_groups_are_outlined(adata):
    ax = ssc.pl.similarity(adata, n_shown=12, show=False)
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert len(names) == len(ax.get_xticklabels()) == 12
    positions = [int(name.split("_")[1]) for name in names]
    expected = np.corrcoef(adata.obsm["X_sae"].toarray().astype(float), rowvar=False)[np.ix_(positions, positions)]
    drawn = np.ma.filled(ax.collections[0].get_array(), np.nan)
    off = ~np.eye(12, dtype=bool)
    np.testing.assert_allclose(drawn[off], expected[off])
    assert np.isnan(drawn[~off]).all()
    boxes = [(p.get_x(), p.get_width()) for p in ax.patches]
    start = min(names.index(name) for name in ["sae_3", "sae_60", "sae_61"])
    assert (start, 3) in boxes
    assert set(names[start : start + 3]) == {"sae_3", "sae_60", "sae_61"}


def test_other_metric_and_features_asked_for(adata):
    ssc.tl.feature_similarity(adata, metric="decoder")
    ax = ssc.pl.similarity(adata, ["sae_1", 5, "sae_9"], vmax=0.5, show=False)
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert set(names) == {"sae_1", "sae_5", "sae_9"}
    W = adata.uns["sae"]["weights"]["W_dec"][[int(n[4:]) for n in names]].astype(float)
    assert ax.collections[0].get_array()[0, 1] == pytest.approx(W[0] @ W[1], abs=1e-5)
    assert (ax.collections[0].norm.vmin, ax.collections[0].norm.vmax) == (-0.5, 0.5)


def test_pairs_that_no_table_has_stay_blank(adata, monkeypatch):
    monkeypatch.setattr("sparsesc.tl.labels._feature_similarity.MATRIX_SIZE", 6)
    ssc.tl.feature_similarity(adata, n_neighbors=1)
    matrix, table = adata.uns["sae"]["similarity_matrix"], adata.uns["sae"]["similarity"]
    assert matrix["values"].shape == (6, 6)
    assert {"sae_3", "sae_60", "sae_61"} <= set(matrix["features"])
    pair = table[~table["feature"].isin(matrix["features"])].iloc[0]
    names = [pair["feature"], pair["neighbor"], *matrix["features"][:2]]
    ax = ssc.pl.similarity(adata, names, show=False)
    shown = [t.get_text() for t in ax.get_yticklabels()]
    drawn = np.ma.filled(ax.collections[0].get_array(), np.nan)
    place = {name: shown.index(name) for name in shown}
    assert drawn[place[pair["feature"]], place[pair["neighbor"]]] == pair["score"]
    assert drawn[place[pair["neighbor"]], place[pair["feature"]]] == pair["score"]
    one, two = (place[name] for name in matrix["features"][:2])
    assert drawn[one, two] == matrix["values"][0, 1]
    listed = set(map(tuple, table[["feature", "neighbor"]].astype(str).to_numpy()))
    for other in matrix["features"][:2]:
        if (pair["feature"], other) not in listed and (other, pair["feature"]) not in listed:
            assert np.isnan(drawn[place[pair["feature"]], place[other]])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"features": "sae_1"}, ValueError, "at least two features"),
        ({"n_shown": 0}, ValueError, "n_shown must be a whole number"),
        ({"vmax": 0}, ValueError, "vmax must be positive"),
        ({"features": ["sae_1", "sae_99"]}, KeyError, "Did not find feature 'sae_99'"),
    ],
)
def test_bad_input(adata, options, error, message):
    with pytest.raises(error, match=message):
        ssc.pl.similarity(adata, **options)


def test_not_computed(pbmc68k_code):
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.feature_similarity first"):
        ssc.pl.similarity(pbmc68k_code)
