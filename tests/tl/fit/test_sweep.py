"""A sweep is fit_sae for every combination."""

from __future__ import annotations

import numpy as np
import pytest

import sparsesc as ssc

SETTINGS = {"use_rep": "X_pca", "max_steps": 60, "batch_size": 64}


@pytest.fixture(scope="module")
def cells():
    import scanpy as sc

    return sc.datasets.pbmc68k_reduced()


@pytest.fixture(scope="module")
def table(cells):
    return ssc.tl.sweep(
        cells, n_features=[32, 48], k=[3, 5], architecture=["batchtopk", "topk"], rng=[0, 1], models=True, **SETTINGS
    )


def test_one_row_for_every_combination(table):
    assert len(table) == 16
    assert not table.duplicated(["architecture", "n_features", "k", "rng"]).any()
    assert table["fvu"].between(0, 1).all()
    assert (table["fvu"] + table["explained_variance"]).to_numpy() == pytest.approx(1)
    exact = table[table["architecture"] == "topk"]
    assert exact["l0"].to_numpy() == pytest.approx(exact["k"].to_numpy(), rel=0.05)


@pytest.mark.parametrize("row", [0, 9])
def test_a_row_is_what_fit_sae_gives(cells, table, row):
    asked = table.loc[row]
    alone = ssc.tl.fit_sae(
        cells, architecture=asked["architecture"], n_features=int(asked["n_features"]), k=int(asked["k"]),
        rng=int(asked["rng"]), copy=True, **SETTINGS,
    )  # fmt: skip
    for name, value in alone.uns["sae"]["weights"].items():
        np.testing.assert_array_equal(asked["model"].weights[name], value, err_msg=name)
    for name, value in alone.uns["sae"]["metrics"].items():
        assert asked[name] == value, name
    applied = ssc.tl.apply_sae(cells, asked["model"], copy=True)
    assert (applied.obsm["X_sae"] != alone.obsm["X_sae"]).nnz == 0


def test_stability_is_that_of_the_matched_features(cells, table):
    pair = table[(table["architecture"] == "topk") & (table["n_features"] == 32) & (table["k"] == 3)]
    alive = [m.W_dec[np.bincount(m.encode(cells.obsm["X_pca"]).indices, minlength=32) > 0] for m in pair["model"]]
    found = ssc.stats.dictionary_stability(alive, rng=np.random.default_rng(0))
    assert pair["stability"].iloc[0] == pytest.approx(found.features.mean())
    assert (table["stability"] > table["stability_random"]).mean() > 0.9


def test_scalars_defaults_and_untouched_cells(cells):
    before = set(cells.uns), set(cells.obsm)
    one = ssc.tl.sweep(cells, **SETTINGS)
    assert (set(cells.uns), set(cells.obsm)) == before
    assert one[["architecture", "n_features", "k", "rng"]].to_numpy().tolist() == [["matryoshka", 128, 17, 0]]
    assert not {"stability", "model"} & set(one)


def test_a_default_beside_its_own_value_is_fitted_once(cells):
    found = ssc.tl.sweep(cells, n_features=[None, 128], k=[17, None], **SETTINGS)
    assert found[["n_features", "k"]].to_numpy().tolist() == [[128, 17]]


@pytest.mark.parametrize("settings", [{"whiten": True}, {"validation": 0.0}, {"validation_groups": "phase"}], ids=str)
def test_other_settings_reach_the_fits(cells, settings):
    found = ssc.tl.sweep(cells, k=[4, 5], n_features=32, models=True, **settings, **SETTINGS)
    alone = ssc.tl.fit_sae(cells, k=5, n_features=32, copy=True, **settings, **SETTINGS)
    np.testing.assert_array_equal(found["model"][1].W_dec, alone.uns["sae"]["weights"]["W_dec"])
    assert found["fvu"][1] == alone.uns["sae"]["metrics"]["fvu"]


def test_any_option_can_vary(cells):
    swept = ssc.tl.sweep(cells, noise=[0.0, 0.6], n_features=32, k=4, matryoshka_widths=[[8, 32], [16, 32]], **SETTINGS)
    assert swept[["noise", "matryoshka_widths"]].to_numpy().tolist() == [
        [0.0, (8, 32)], [0.0, (16, 32)], [0.6, (8, 32)], [0.6, (16, 32)]
    ]  # fmt: skip
    assert swept["fvu"].nunique() == 4
    one = ssc.tl.sweep(cells, n_features=32, k=4, matryoshka_widths=[8, 32], noise=0.0, **SETTINGS)
    assert one["fvu"].tolist() == swept["fvu"].tolist()[:1]


def test_impossible_combinations_stop_everything(cells, monkeypatch):
    monkeypatch.setattr("sparsesc.nn.train_many", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(ValueError, match="k=64 active features per cell cannot come out of n_features=32"):
        ssc.tl.sweep(cells, n_features=[32, 128], k=[4, 64], **SETTINGS)
    with pytest.raises(TypeError, match="rng must be a seed"):
        ssc.tl.sweep(cells, rng=[0, "a"], **SETTINGS)
    with pytest.raises(ValueError, match="empty list"):
        ssc.tl.sweep(cells, k=[], **SETTINGS)
    with pytest.raises(ValueError, match="cells are left for training"):
        ssc.tl.sweep(cells, n_features=700, k=600, validation=0.5, **SETTINGS)
    with pytest.raises(KeyError, match="X_nothing"):
        ssc.tl.sweep(cells, use_rep="X_nothing")


def test_ctrl_c_keeps_what_was_finished(cells, monkeypatch):
    from sparsesc.nn import train_many

    def stopped_early(*args, **kwargs):
        results = train_many(*args, **kwargs)
        results[1].interrupted = True
        return [*results[:2], None]

    monkeypatch.setattr("sparsesc.nn.train_many", stopped_early)
    found = ssc.tl.sweep(cells, n_features=32, k=[3, 4, 5], **SETTINGS)
    assert found["k"].tolist() == [3]
