from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from scipy import sparse

import sparsesc as ssc
from sparsesc._train_config import TrainConfig
from sparsesc.tl.fit._fit import held_out_cells

QUICK = {"use_rep": "X_pca", "n_features": 48, "k": 4, "max_steps": 60, "progress_bar": False}


@pytest.fixture(scope="module")
def fitted(_pbmc68k):
    """The width and sparsity at which others were measured on these cells."""
    adata = _pbmc68k.copy()
    ssc.tl.fit_sae(adata, use_rep="X_pca", n_features=128, k=8, progress_bar=False)
    return adata


def test_quality_on_real_cells(fitted):
    metrics = fitted.uns["sae"]["metrics"]
    assert metrics["explained_variance"] >= 0.77
    assert metrics["dead_fraction"] <= 0.05
    assert metrics["l0"] == pytest.approx(8, rel=0.10)
    assert fitted.obsm["X_sae"].nnz / fitted.n_obs == pytest.approx(8, rel=0.10)


def test_slots(fitted):
    codes, slot = fitted.obsm["X_sae"], fitted.uns["sae"]
    assert sparse.isspmatrix_csr(codes)
    assert codes.shape == (700, 128)
    assert codes.dtype == np.float32
    assert codes.data.min() > 0
    assert {name: w.shape for name, w in slot["weights"].items()} == {
        "W_enc": (50, 128),
        "b_enc": (128,),
        "W_dec": (128, 50),
        "b_dec": (50,),
        "threshold": (128,),
    }
    assert list(slot["history"].columns) == [
        "epoch",
        "train_fvu",
        "validation_fvu",
        "l0",
        "dead_fraction",
        "lr",
        "seconds",
    ]
    assert set(slot["metrics"]) == {"fvu", "explained_variance", "l0", "dead_fraction", "cosine", "shrinkage"}
    features = slot["features"]
    assert features.index[:2].tolist() == ["sae_0", "sae_1"]
    dense = codes.toarray()
    np.testing.assert_allclose(features["density"], (dense > 0).mean(0))
    np.testing.assert_allclose(features["max"], dense.max(0), rtol=1e-6)
    np.testing.assert_array_equal(features["n_cells"], (dense > 0).sum(0))
    np.testing.assert_array_equal(features["dead"], ~(dense > 0).any(0))
    alive = ~features["dead"].to_numpy()
    np.testing.assert_allclose(features["mean_active"][alive], [c[c > 0].mean() for c in dense.T[alive]], rtol=1e-5)
    assert slot["params"]["n_obs"] == 700
    assert slot["params"]["architecture"] == "matryoshka"


def test_metrics_are_those_of_the_held_out_cells(fitted):
    slot = fitted.uns["sae"]
    held_out = fitted[slot["validation_obs"]]
    assert held_out.n_obs == 70
    X = held_out.obsm["X_pca"]
    X_hat = ssc.get.sae(fitted).reconstruct(X)
    fvu = np.square(X - X_hat).sum() / np.square(X - X.mean(0)).sum()
    assert slot["metrics"]["fvu"] == pytest.approx(fvu, rel=1e-5)
    assert slot["metrics"]["l0"] == pytest.approx(held_out.obsm["X_sae"].nnz / 70)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(fitted, tmp_path, suffix):
    path = tmp_path / f"cells.{suffix}"
    getattr(fitted, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    cells = fitted.obsm["X_pca"]
    assert (ssc.get.sae(again).encode(cells) != ssc.get.sae(fitted).encode(cells)).nnz == 0
    assert (again.obsm["X_sae"] != fitted.obsm["X_sae"]).nnz == 0
    assert (ssc.get.sae(fitted).encode(cells) != fitted.obsm["X_sae"]).nnz == 0
    pd.testing.assert_frame_equal(again.uns["sae"]["features"], fitted.uns["sae"]["features"], check_names=False)


def as_bytes(adata):
    slot = adata.uns["sae"]
    history = slot["history"].drop(columns="seconds")  # wall time: the one thing a seed does not fix
    parts = [adata.obsm["X_sae"].data, adata.obsm["X_sae"].indices, *slot["weights"].values(), history.to_numpy()]
    parts += [slot["features"].to_numpy(float), np.array(list(slot["metrics"].values()))]
    return b"".join(np.ascontiguousarray(p).tobytes() for p in parts) + str(slot["params"]).encode()


def test_same_rng_same_bytes(pbmc68k):
    results = []
    for rng in (3, 3, 4):
        ssc.tl.fit_sae(pbmc68k, rng=rng, **QUICK)
        results.append(as_bytes(pbmc68k))
    assert results[0] == results[1] != results[2]


def test_global_random_state_is_left_alone(pbmc68k):
    import torch

    np.random.seed(1)
    torch.manual_seed(1)
    before = np.random.get_state()[1].copy(), torch.get_rng_state().clone()
    ssc.tl.fit_sae(pbmc68k, architecture="relu", **QUICK)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X.astype(np.float64),
        sparse.csr_matrix,
        lambda X: pd.DataFrame(X, columns=[f"d{i}" for i in range(X.shape[1])]),
        np.asfortranarray,
    ],
    ids=["float64", "sparse", "DataFrame", "Fortran order"],
)
def test_any_kind_of_embedding_gives_the_same(pbmc68k, convert):
    ssc.tl.fit_sae(pbmc68k, **QUICK)
    expected = pbmc68k.obsm["X_sae"]
    values = convert(pbmc68k.obsm["X_pca"])
    pbmc68k.obsm["other"] = values.set_index(pbmc68k.obs_names) if isinstance(values, pd.DataFrame) else values
    ssc.tl.fit_sae(pbmc68k, **(QUICK | {"use_rep": "other"}), key_added="b")
    assert (pbmc68k.obsm["X_b"] != expected).nnz == 0


def test_expression_itself(pbmc68k):
    ssc.tl.fit_sae(pbmc68k, **(QUICK | {"use_rep": "X"}))
    assert pbmc68k.uns["sae"]["weights"]["W_dec"].shape == (48, pbmc68k.n_vars)


def test_several_side_by_side_and_refit(pbmc68k):
    ssc.tl.fit_sae(pbmc68k, **QUICK)
    ssc.tl.fit_sae(pbmc68k, **(QUICK | {"n_features": 32}), key_added="small")
    assert pbmc68k.obsm["X_small"].shape[1] == 32
    assert pbmc68k.obsm["X_sae"].shape[1] == 48
    pbmc68k.varm["sae_genes"] = np.zeros((pbmc68k.n_vars, 48))
    pbmc68k.uns["sae"]["genes"] = pd.DataFrame({"feature": ["sae_0"]})
    ssc.tl.fit_sae(pbmc68k, **(QUICK | {"n_features": 40}))
    assert "sae_genes" not in pbmc68k.varm, "results of the earlier features would be read as those of the new ones"
    assert "genes" not in pbmc68k.uns["sae"]


def test_copy(pbmc68k):
    result = ssc.tl.fit_sae(pbmc68k, copy=True, **QUICK)
    assert "sae" in result.uns
    assert "sae" not in pbmc68k.uns
    assert "X_sae" not in pbmc68k.obsm


def test_view_becomes_a_copy_with_a_warning(pbmc68k):
    view = pbmc68k[:400]
    with pytest.warns(ad.ImplicitModificationWarning, match="view"):
        ssc.tl.fit_sae(view, **QUICK)
    assert not view.is_view
    assert view.obsm["X_sae"].shape[0] == 400
    assert "X_sae" not in pbmc68k.obsm


def test_joint_embedding_of_a_mudata(pbmc68k):
    mdata = MuData({"rna": pbmc68k})
    mdata.obsm["X_joint"] = pbmc68k.obsm["X_pca"]
    ssc.tl.fit_sae(mdata, **(QUICK | {"use_rep": "X_joint"}))
    assert mdata.obsm["X_sae"].shape == (700, 48)
    ssc.tl.fit_sae(pbmc68k, **QUICK)
    assert (mdata.obsm["X_sae"] != pbmc68k.obsm["X_sae"]).nnz == 0


def test_the_start_is_an_option_and_stored(pbmc68k):
    found = {}
    for init in ("kmeans", "random"):
        for seed in (0, 1):
            ssc.tl.fit_sae(pbmc68k, init=init, rng=seed, **(QUICK | {"validation": 0}))
            assert pbmc68k.uns["sae"]["params"]["init"] == init
            found[init, seed] = pbmc68k.uns["sae"]["weights"]["W_dec"]
    alike = {init: (found[init, 0] * found[init, 1]).sum(1).mean() for init in ("kmeans", "random")}
    # features of the same number: the same center, or unrelated directions
    assert alike["kmeans"] > 0.9
    assert abs(alike["random"]) < 0.2
    ssc.tl.fit_sae(pbmc68k, **QUICK)
    assert TrainConfig.restored(pbmc68k.uns["sae"]["params"]).init == pbmc68k.uns["sae"]["params"]["init"]
    before = {name: value for name, value in pbmc68k.uns["sae"]["params"].items() if name != "init"}
    with pytest.raises(KeyError, match="init"):
        TrainConfig.restored(before)


def test_auto_is_the_default(pbmc68k):
    ssc.tl.fit_sae(pbmc68k, use_rep="X_pca", n_features="auto", k="auto", max_steps=2, progress_bar=False)
    params = pbmc68k.uns["sae"]["params"]
    assert (params["n_features"], params["k"], params["full_width_weight"]) == (128, 17, 2 / 3)


def test_the_weight_of_prefixes_is_stored_and_read_back(pbmc68k):
    ssc.tl.fit_sae(pbmc68k, **(QUICK | {"full_width_weight": 0.4}))
    params = pbmc68k.uns["sae"]["params"]
    assert TrainConfig.restored(params).full_width_weight == params["full_width_weight"] == 0.4


def test_validation_by_group(pbmc68k):
    ssc.tl.fit_sae(pbmc68k, validation_groups="phase", **QUICK)
    inside = pbmc68k.obs["phase"][pbmc68k.uns["sae"]["validation_obs"]]
    outside = pbmc68k.obs["phase"].drop(inside.index)
    assert len(inside) >= 70
    assert set(inside).isdisjoint(outside)


def test_validation_by_cell_is_a_tenth(pbmc68k):
    held_out = held_out_cells(pbmc68k, 700, 0.1, None, np.random.default_rng(0))
    assert held_out.sum() == 70
    assert not held_out_cells(pbmc68k, 700, 0, None, np.random.default_rng(0)).any()


def test_no_validation(pbmc68k):
    ssc.tl.fit_sae(pbmc68k, validation=0, **QUICK)
    assert len(pbmc68k.uns["sae"]["validation_obs"]) == 0
    assert np.isnan(pbmc68k.uns["sae"]["history"]["validation_fvu"]).all()
    # exact in the units of the training; rounding in those of the embedding can move an entry at the threshold
    assert pbmc68k.obsm["X_sae"].nnz == pytest.approx(4 * 700, abs=3)


def test_held_out_cells_do_not_reach_the_training(pbmc68k):
    ssc.tl.fit_sae(pbmc68k, **QUICK)
    before = pbmc68k.uns["sae"]["weights"]["W_dec"]
    rows = pbmc68k.obs_names.get_indexer(pbmc68k.uns["sae"]["validation_obs"])
    pbmc68k.obsm["X_pca"][rows] *= 1.5
    ssc.tl.fit_sae(pbmc68k, **(QUICK | {"max_steps": 19}))  # one epoch: no choice among states
    once = pbmc68k.uns["sae"]["weights"]["W_dec"]
    pbmc68k.obsm["X_pca"][rows] /= 1.5
    ssc.tl.fit_sae(pbmc68k, **(QUICK | {"max_steps": 19}))
    np.testing.assert_array_equal(pbmc68k.uns["sae"]["weights"]["W_dec"], once)
    assert not np.array_equal(before, once)


def with_nan(adata):
    adata.obsm["X_pca"][3, 7] = np.nan
    adata.obsm["X_pca"][9, 2] = np.inf


def constant(adata):
    adata.obsm["X_pca"] = np.full((adata.n_obs, 5), 2.5)


def text(adata):
    adata.obsm["X_pca"] = pd.DataFrame({"a": ["x"] * adata.n_obs}, index=adata.obs_names)


def flat(adata):
    adata.obsm["X_pca"] = np.zeros((adata.n_obs, 4, 2))


def taken_uns(adata):
    adata.uns["sae"] = {"params": 1}


def taken_obsm(adata):
    adata.obsm["X_sae"] = adata.obsm["X_pca"]


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        (None, {"use_rep": "X_scVI"}, KeyError, r"Did not find adata.obsm\['X_scVI'\]. Available: 'X_pca', 'X_umap'"),
        (None, {"use_rep": 3}, TypeError, "use_rep must be a string"),
        (with_nan, {}, ValueError, "holds 1 NaN and 1 infinite values .* in 2 of 700 cells; the first is at row 3"),
        (constant, {}, ValueError, "constant"),
        (text, {}, TypeError, "not numeric: 'a'"),
        (flat, {}, ValueError, "two-dimensional"),
        (None, {"n_features": 701}, ValueError, r"n_features=701 is more than the number of cells \(700\)"),
        (None, {"n_features": 4, "k": 5}, ValueError, "k=5 active features"),
        (None, {"k": 0}, ValueError, "k must be a whole number of at least 1"),
        (None, {"n_features": 2.5}, ValueError, "n_features must be a whole number"),
        (None, {"architecture": "transformer"}, ValueError, "Unknown architecture: 'transformer'. Choose one of"),
        (None, {"matryoshka_widths": [8, 4, 48]}, ValueError, "matryoshka_widths must ascend"),
        (None, {"architecture": "topk", "matryoshka_widths": [48]}, ValueError, "belongs to architecture 'matryoshka'"),
        (
            None,
            {"full_width_weight": 1.5},
            ValueError,
            "full_width_weight, a share of the loss, must be above 0 and at most 1",
        ),
        (
            None,
            {"architecture": "topk", "full_width_weight": 0.5},
            ValueError,
            "full_width_weight belongs to architecture",
        ),
        (None, {"k": "few"}, ValueError, "k must be a whole number of at least 1, found 'few'"),
        (None, {"noise": -1}, ValueError, "noise must be a non-negative number"),
        (None, {"validation": 0.9}, ValueError, "between 0 and 0.5"),
        (None, {"validation_groups": "nope"}, KeyError, r"Did not find adata.obs\['nope'\]. Available"),
        (None, {"device": "abacus"}, ValueError, "device='abacus' cannot be used here"),
        (None, {"init": "zeros"}, ValueError, "Unknown init: 'zeros'. Choose one of"),
        (None, {"precision": "int4"}, ValueError, "Unknown precision"),
        (taken_uns, {}, ValueError, r"would overwrite uns\['sae'\], which sparsesc did not write"),
        (taken_obsm, {}, ValueError, r"would overwrite obsm\['X_sae'\]"),
        (None, {"key_added": "pca"}, ValueError, r"would overwrite uns\['pca'\] and obsm\['X_pca'\]"),
        (None, {"key_added": "a/b"}, ValueError, "without '/'"),
        (None, {"rng": True}, TypeError, "rng must be an int"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(pbmc68k, spoil, options, error, message):
    if spoil:
        spoil(pbmc68k)
    before = set(pbmc68k.uns), set(pbmc68k.obsm)
    with pytest.raises(error, match=message):
        ssc.tl.fit_sae(pbmc68k, **(QUICK | options))
    assert (set(pbmc68k.uns), set(pbmc68k.obsm)) == before


def test_one_group_is_refused(pbmc68k):
    pbmc68k.obs["one"] = "a"
    with pytest.raises(ValueError, match="at least two of them"):
        ssc.tl.fit_sae(pbmc68k, validation_groups="one", **QUICK)


def test_too_few_cells(pbmc68k):
    with pytest.raises(ValueError, match="Too small to learn from: 10 cells"):
        ssc.tl.fit_sae(pbmc68k[:10].copy(), use_rep="X_pca")


def test_not_an_anndata():
    with pytest.raises(TypeError, match="Expected an AnnData"):
        ssc.tl.fit_sae(np.zeros((30, 4)))
