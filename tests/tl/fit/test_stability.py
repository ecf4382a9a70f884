from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import sparsesc as ssc

QUICK = {"use_rep": "X_pca", "n_features": 32, "k": 4, "max_steps": 60, "progress_bar": False}


@pytest.fixture(scope="module")
def _fitted(_pbmc68k):
    adata = _pbmc68k.copy()
    ssc.tl.fit_sae(adata, **QUICK)
    ssc.tl.stability(adata, n_fits=2)
    return adata


@pytest.fixture
def fitted(_fitted):
    return _fitted.copy()


def test_scores_are_those_of_fits_with_the_kept_seeds(fitted):
    from sparsesc.nn import TrainConfig, train

    slot = fitted.uns["sae"]
    fits = slot["stability"]["fits"]
    assert fits["seed"].iloc[0] == -1
    held_out = fitted.obs_names.isin(slot["validation_obs"])
    X = np.asarray(fitted.obsm["X_pca"], np.float32)
    config = TrainConfig(n_features=32, k=4, init="kmeans", max_steps=60)
    rng = np.random.default_rng(fits["seed"].iloc[1])
    refit = train(X[~held_out], config, X_validation=X[held_out], rng=rng).sae
    fires = np.asarray((refit.encode(X) > 0).sum(0)).ravel() > 0
    assert fits["n_alive"].iloc[1] == fires.sum()
    alive = ~slot["features"]["dead"].to_numpy()
    cosines = slot["weights"]["W_dec"][alive] @ refit.W_dec[fires].T
    rows, columns = linear_sum_assignment(-cosines)
    assert slot["stability"]["pairs"][0, 1] == pytest.approx(cosines[rows, columns].mean(), abs=1e-4)


def test_columns_and_summary(fitted):
    slot = fitted.uns["sae"]
    table, found = slot["features"], slot["stability"]
    alive = ~table["dead"].to_numpy()
    assert table["stability"][alive].between(0, 1).all()
    assert found["mean"] == pytest.approx(table["stability"].mean())
    assert found["random"] == pytest.approx(table["stability_random"].mean())
    assert found["random"] < found["mean"]
    assert found["pairs"].shape == (3, 3)
    np.testing.assert_array_equal(found["pairs"], found["pairs"].T)
    assert found["fits"]["fvu"].iloc[0] == pytest.approx(slot["metrics"]["fvu"])
    assert np.ptp(found["fits"]["fvu"]) < 0.1
    assert slot["params"]["stability"]["subsample"] == 1.0


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(fitted, tmp_path, suffix):
    path = tmp_path / f"cells.{suffix}"
    getattr(fitted, f"write_{suffix}")(path)
    back = getattr(ad, f"read_{suffix}")(path).uns["sae"]
    np.testing.assert_array_equal(back["stability"]["pairs"], fitted.uns["sae"]["stability"]["pairs"])
    assert back["stability"]["fits"]["seed"].tolist() == fitted.uns["sae"]["stability"]["fits"]["seed"].tolist()
    np.testing.assert_array_equal(back["features"]["stability"], fitted.uns["sae"]["features"]["stability"])


def test_after_a_file_and_with_the_same_seed_it_is_the_same(fitted, tmp_path):
    fitted.write_h5ad(tmp_path / "cells.h5ad")
    back = ad.read_h5ad(tmp_path / "cells.h5ad")
    again = ssc.tl.stability(back, n_fits=2, copy=True).uns["sae"]["features"]["stability"]
    np.testing.assert_array_equal(again, fitted.uns["sae"]["features"]["stability"])
    other = ssc.tl.stability(back, n_fits=1, rng=1, copy=True).uns["sae"]
    assert other["stability"]["fits"]["seed"].iloc[1] != fitted.uns["sae"]["stability"]["fits"]["seed"].iloc[1]
    assert not np.array_equal(other["features"]["stability"], again)
    np.testing.assert_array_equal(back.uns["sae"]["features"]["stability"], again)


def test_archetypal_is_stable_over_seeds_but_less_so_over_cells(pbmc68k):
    ssc.tl.fit_sae(pbmc68k, architecture="archetypal", **(QUICK | {"max_steps": 200}))
    assert pbmc68k.uns["sae"]["params"]["architecture"] == "archetypal"
    assert pbmc68k.uns["sae"]["metrics"]["fvu"] < 0.5
    means = []
    for subsample in (None, 0.5):
        ssc.tl.stability(pbmc68k, n_fits=1, subsample=subsample)
        found = pbmc68k.uns["sae"]["stability"]
        means.append(found["mean"])
        assert found["random"] < found["mean"]
    assert means[0] > 0.8
    assert means[1] < means[0] - 0.1


def test_dead_features_have_no_score(fitted):
    fitted.uns["sae"]["features"].loc["sae_3", "dead"] = True
    ssc.tl.stability(fitted, n_fits=1)
    table = fitted.uns["sae"]["features"]
    assert np.isnan(table.loc["sae_3", "stability"])
    assert np.isnan(table.loc["sae_3", "stability_random"])
    assert table["stability"].notna().sum() == (~table["dead"]).sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_fits": 0}, "n_fits must be a whole number of at least 1, found 0"),
        ({"subsample": 0}, "subsample must be a share of the cells between 0 and 1"),
        ({"subsample": True}, "subsample must be a share"),
        ({"subsample": 0.03}, "leaves 19 cells for 32 features"),
    ],
)
def test_bad_options(fitted, options, message):
    before = fitted.uns["sae"]["features"].copy()
    with pytest.raises(ValueError, match=message):
        ssc.tl.stability(fitted, **options)
    assert fitted.uns["sae"]["features"].equals(before)


def test_other_cells(fitted):
    with pytest.raises(
        ValueError, match="was fitted to 700 cells x 50 dimensions, 70 of the cells held out; found 300"
    ):
        ssc.tl.stability(fitted[:300].copy())
    ssc.tl.apply_sae(fitted, fitted, key_added="applied")
    with pytest.raises(ValueError, match=r"'applied' was not fitted here: its settings are not known \('objective'"):
        ssc.tl.stability(fitted, key="applied")


def test_nothing_alive(fitted):
    fitted.uns["sae"]["features"]["dead"] = True
    with pytest.raises(ValueError, match="All features of 'sae' are dead"):
        ssc.tl.stability(fitted)


def test_no_autoencoder(pbmc68k):
    with pytest.raises(KeyError, match="No sparse autoencoder under key='sae'"):
        ssc.tl.stability(pbmc68k)
