"""Saliency: finite differences and captum agree, through every encoder, and single cells come back from a file."""

from __future__ import annotations

import logging
import warnings
from copy import deepcopy

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import sparsesc as ssc

GENES, CELLS = 40, 120
_MADE: dict[str, object] = {}
METHODS = ["gradient", "guided", "gradient_x_input", "integrated_gradients"]


def counts() -> AnnData:
    rng = np.random.default_rng(0)
    programs = rng.gamma(0.5, size=(4, GENES))
    X = rng.poisson(rng.gamma(1, size=(CELLS, 4)) @ programs + 0.3).astype(np.float32)
    adata = AnnData(sparse.csr_matrix(X), layers={"counts": sparse.csr_matrix(X)})
    adata.var_names = [f"g{i}" for i in range(GENES)]
    adata.obs_names = [f"c{i}" for i in range(CELLS)]
    adata.obs["batch"] = pd.Categorical(np.tile(["a", "b"], CELLS // 2))
    adata.obs["site"] = pd.Categorical(np.tile(["x", "y", "z"], CELLS // 3))
    return adata


def made(name: str):
    """A model, and the AnnData that it was trained on, with its latent and a sparse autoencoder."""
    if name in _MADE:
        return _MADE[name]
    import scvi.external
    import torch

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    adata = counts()
    quick = {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False}
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        scvi.settings.seed = 0
        if name == "oae":
            ssc.models.OrthogonalAE.setup_anndata(adata, layer="counts")
            model = ssc.models.OrthogonalAE(adata, n_latent=6, n_hidden=12)
        else:
            kind = {"linear": scvi.model.LinearSCVI, "drvi": scvi.external.DRVI}.get(name, scvi.model.SCVI)
            setup = {"layer": "counts", "batch_key": "batch"}
            options = {"n_latent": 6, "n_hidden": 12}
            if name == "covariates":
                setup |= {"categorical_covariate_keys": ["site"]}
                options |= {"n_layers": 2, "encode_covariates": True, "deeply_inject_covariates": True}
            kind.setup_anndata(adata, **setup)
            model = kind(adata, **options)
        model.train(**quick)
        if name == "scanvi":
            model = scvi.model.SCANVI.from_scvi_model(model, labels_key="site", unlabeled_category="?")
            model.train(**quick)
    adata.obsm["X_model"] = model.get_latent_representation()
    ssc.tl.fit_sae(adata, use_rep="X_model", n_features=10, k=3, max_steps=100, progress_bar=False)
    _MADE[name] = adata, model
    return _MADE[name]


def network(name: str, sae: bool):
    """The same function of what the network sees, in double precision and without our code: inputs, module, units."""
    import torch

    adata, model = made(name)
    X = torch.as_tensor(adata.layers["counts"].toarray(), dtype=torch.float64)
    if name == "oae":
        layers = deepcopy(model.module.encoder).double()
        inputs = torch.log1p(X * (float(model.module.depth) / X.sum(1, keepdim=True)))
        rest = ()
    else:
        layers = deepcopy(model.module.z_encoder).double().eval()
        inputs = torch.log1p(X)
        codes = [adata.obs[key].cat.codes.to_numpy()[:, None] for key in ("batch", "site")]
        rest = tuple(torch.as_tensor(c.astype(np.int64)) for c in codes) if name == "covariates" else (
            torch.as_tensor(codes[0].astype(np.int64)),
        )  # fmt: skip

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x, *rest):
            z = self.layers(x) if name == "oae" else self.layers(x, *rest)[0].loc
            if not sae:
                return z
            stored = {key: torch.as_tensor(value).double() for key, value in adata.uns["sae"]["weights"].items()}
            return (z - stored["b_dec"]) @ stored["W_enc"] + stored["b_enc"]

    return inputs, Whole(), rest


def run(name: str, method: str, *, sae: bool = False, **options) -> AnnData:
    adata, model = made(name)
    options = {"sae": "sae" if sae else None, "method": method, "max_cells": 15, "progress_bar": False} | options
    return ssc.tl.saliency(adata, model, copy=True, **options)


def cells_of(adata: AnnData, unit: int) -> tuple[np.ndarray, np.ndarray]:
    found = ssc.get.saliency(adata, unit, cells=True)
    return adata.obs_names.get_indexer(found.index), found.to_numpy()


@pytest.mark.parametrize("sae", [False, True], ids=["units", "features"])
@pytest.mark.parametrize("name", ["oae", "scvi", "covariates", "linear", "drvi", "scanvi"])
def test_gradient_is_that_of_finite_differences(name, sae):
    import torch

    adata = run(name, "gradient", sae=sae)
    inputs, whole, rest = network(name, sae)
    step = 1e-5
    for unit in np.flatnonzero(adata.uns["saliency"]["units"]["n_cells"] > 0)[[0, 3, -1]]:
        rows, found = cells_of(adata, int(unit))
        position = int(str(adata.uns["saliency"]["units"].index[unit]).rsplit("_", 1)[1])
        x, others = inputs[rows], [value[rows] for value in rest]
        slope = np.empty_like(found)
        with torch.no_grad(), torch.random.fork_rng():
            for gene in range(GENES):
                move = torch.zeros(GENES, dtype=torch.float64)
                move[gene] = step
                slope[:, gene] = ((whole(x + move, *others) - whole(x - move, *others)) / (2 * step))[:, position]
        np.testing.assert_allclose(found, slope, rtol=1e-3, atol=1e-3 * np.abs(slope).max())


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "sae"), [("oae", False), ("covariates", False), ("scvi", True)])
def test_every_method_is_captums(name, sae, method):
    from captum import attr

    if (name, method) == ("oae", "guided"):
        pytest.skip("captum guides rectifiers only")
    adata = run(name, method, sae=sae, n_steps=20)
    inputs, whole, rest = network(name, sae)
    engine = {
        "gradient": lambda m: attr.Saliency(m),
        "guided": lambda m: attr.GuidedBackprop(m),
        "gradient_x_input": lambda m: attr.InputXGradient(m),
        "integrated_gradients": lambda m: attr.IntegratedGradients(m),
    }[method](whole)
    more = {"gradient": {"abs": False}, "integrated_gradients": {"n_steps": 20}}.get(method, {})
    units = adata.uns["saliency"]["units"]
    for unit in np.flatnonzero(units["n_cells"] > 0)[[0, -1]]:
        rows, found = cells_of(adata, int(unit))
        position = int(str(units.index[unit]).rsplit("_", 1)[1])
        others = tuple(value[rows] for value in rest)
        theirs = engine.attribute(
            inputs[rows].clone().requires_grad_(), target=position, additional_forward_args=others or None, **more
        )
        theirs = theirs.detach().numpy()
        np.testing.assert_allclose(found, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def test_guided_softplus_cuts_what_would_switch_off():
    """The rule of the paper, by hand: only positive derivatives pass the hidden layer; genes keep their sign."""
    found = run("oae", "guided")
    inputs, whole, _ = network("oae", False)
    first, second = (whole.layers[i].weight.detach().numpy() for i in (0, 2))
    b1, b2 = (whole.layers[i].bias.detach().numpy() for i in (0, 2))
    step = lambda value: 1 / (1 + np.exp(-value))  # noqa: E731
    softplus = lambda value: np.log1p(np.exp(value))  # noqa: E731
    rows, values = cells_of(found, 2)
    hidden = inputs.numpy()[rows] @ first.T + b1
    top = softplus(hidden) @ second.T + b2
    back = np.maximum(step(hidden) * second[2] * step(top[:, [2]]), 0)
    np.testing.assert_allclose(values, back @ first, rtol=1e-4, atol=1e-7)
    assert (values < 0).any()
    plain = run("oae", "gradient")
    assert not np.allclose(plain.varm["saliency"], found.varm["saliency"], rtol=0.05)


def test_integrated_gradients_add_up():
    import torch

    adata = run("oae", "integrated_gradients", n_steps=64)
    inputs, whole, _ = network("oae", False)
    rows, values = cells_of(adata, 1)
    with torch.no_grad():
        change = (whole(inputs[rows]) - whole(torch.zeros_like(inputs[rows])))[:, 1].numpy()
    np.testing.assert_allclose(values.sum(1), change, rtol=1e-3, atol=1e-4)


def test_principal_components_are_exact(pbmc68k):
    import scanpy as sc

    sc.pp.pca(pbmc68k, n_comps=20)
    ssc.tl.fit_sae(pbmc68k, use_rep="X_pca", n_features=24, k=4, max_steps=100, progress_bar=False)
    ssc.tl.saliency(pbmc68k, "pca", sae="sae", method="guided", max_cells=5, progress_bar=False)
    seen = pbmc68k.uns["saliency"]["units"]["n_cells"].to_numpy() > 0
    expected = np.abs(pbmc68k.varm["PCs"] @ pbmc68k.uns["sae"]["weights"]["W_enc"])
    found = np.nan_to_num(pbmc68k.varm["saliency"])  # genes that the components leave out are no input
    np.testing.assert_allclose(found[:, seen], expected[:, seen], rtol=1e-4, atol=1e-6)
    ssc.tl.saliency(pbmc68k, "pca", method="integrated_gradients", units=[3], progress_bar=False, key_added="pc")
    rows, values = cells_of_key(pbmc68k, 0, "pc")
    scores = pbmc68k.X[rows] @ pbmc68k.varm["PCs"][:, 3]
    np.testing.assert_allclose(values.sum(1), scores, rtol=1e-3, atol=1e-3)


def cells_of_key(adata, unit, key):
    found = ssc.get.saliency(adata, unit, cells=True, key=key)
    return adata.obs_names.get_indexer(found.index), found.to_numpy()


def test_slots_say_what_single_cells_say():
    adata = run("scvi", "gradient", units=["z_1", 4], n_top=7)
    slot = adata.uns["saliency"]
    assert list(slot["units"].index) == ["z_1", "z_4"]
    assert (slot["units"]["n_cells"] == 15).all()
    table = ssc.get.saliency(adata)
    assert len(table) == 14
    for position, unit in enumerate(("z_1", "z_4")):
        rows, values = cells_of(adata, position)
        np.testing.assert_allclose(adata.varm["saliency"][:, int(unit[2:])], np.abs(values).mean(0), rtol=1e-5)
        mine = ssc.get.saliency(adata, unit)
        order = np.argsort(-np.abs(values).mean(0))[:7]
        assert list(mine["gene"]) == [f"g{i}" for i in order]
        np.testing.assert_allclose(mine["signed"], values.mean(0)[order], rtol=1e-4)
        latent = adata.obsm["X_model"][rows, int(unit[2:])]
        assert slot["units"]["mean"].iloc[position] == pytest.approx(latent.mean(), abs=1e-5)
        assert slot["units"]["sd"].iloc[position] == pytest.approx(latent.std(), abs=1e-5)
    seen = np.log1p(adata.layers["counts"].toarray())[rows]
    np.testing.assert_allclose(slot["inputs"]["mean"], seen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(slot["inputs"]["detected"], (seen > 0).mean(0))
    assert (adata.varm["saliency"][:, [0, 2, 3, 5]] == 0).all()


def test_features_are_explained_where_they_are_active():
    adata = run("oae", "gradient", sae=True, max_cells=None)
    codes = adata.obsm["X_sae"].toarray()
    units = adata.uns["saliency"]["units"]
    np.testing.assert_array_equal(units["n_cells"], (codes > 0).sum(0))
    for unit in np.flatnonzero(units["n_cells"] > 0)[:3]:
        rows, _ = cells_of(adata, int(unit))
        np.testing.assert_array_equal(rows, np.flatnonzero(codes[:, unit] > 0))
        assert units["mean"].iloc[unit] == pytest.approx(codes[rows, unit].mean(), rel=1e-3)


def test_everything_survives_files(tmp_path):
    adata = run("oae", "gradient_x_input")
    before = ssc.get.saliency(adata, 1, cells=True)
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for back in (anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_zarr(tmp_path / "a.zarr")):
        pd.testing.assert_frame_equal(ssc.get.saliency(back, 1, cells=True), before, check_index_type=False)
        assert list(ssc.get.saliency(back)["gene"]) == list(ssc.get.saliency(adata)["gene"])
        np.testing.assert_array_equal(back.varm["saliency"], adata.varm["saliency"])


def test_cells_and_genes_need_not_be_those_of_the_model():
    adata, model = made("scvi")
    other = adata[::-1, ::2].copy()  # other order, half of the genes, and one that the model does not know
    other.var_names = [*other.var_names[:-1], "unknown"]
    ssc.tl.saliency(other, model, method="gradient", max_cells=None, progress_bar=False)
    ssc.tl.saliency(adata, model, method="gradient", max_cells=None, progress_bar=False, key_added="own")
    np.testing.assert_allclose(other.varm["saliency"][:-1], adata.varm["own"][:-2:2], rtol=1e-5)
    assert np.isnan(other.varm["saliency"][-1]).all()
    mask = np.arange(CELLS) % 10 == 0
    ssc.tl.saliency(adata, model, cells=mask, max_cells=None, progress_bar=False, key_added="own")
    assert list(ssc.get.saliency(adata, 0, cells=True, key="own").index) == list(adata.obs_names[mask])


def test_drawn_cells_depend_on_rng_and_nothing_else_is_touched():
    import torch

    adata, model = made("oae")
    before = torch.random.get_rng_state()
    names = [list(run("oae", "guided", rng=seed).uns["saliency"]["pairs"]["cells"]) for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    assert torch.equal(before, torch.random.get_rng_state())
    assert "saliency" not in adata.uns
    assert not any(module._backward_hooks for module in model.module.modules())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "lime"}, ValueError, "Unknown method"),
        ({"units": "oae_99"}, KeyError, "Did not find unit 'oae_99'"),
        ({"layer": "counts"}, ValueError, "is for model='pca'"),
        ({"cells": np.zeros(3, bool)}, ValueError, "one value for each of 120 cells"),
        ({"cells": np.zeros(CELLS, bool)}, ValueError, "cells is empty"),
        ({"cells": ["c1", "nobody"]}, KeyError, "Did not find the cells 'nobody'"),
        ({"max_cells": 0}, ValueError, "max_cells must be a whole number"),
        ({"max_memory": 0}, ValueError, "max_memory must be a positive"),
        ({"sae": "other"}, KeyError, "No sparse autoencoder under key='other'"),
        ({"key_added": "sae"}, ValueError, "would overwrite"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
    ],
)
def test_bad_input_is_told(options, error, message):
    adata, model = made("oae")
    keys = set(adata.uns), set(adata.varm)
    with pytest.raises(error, match=message):
        ssc.tl.saliency(adata, model, progress_bar=False, **options)
    assert (set(adata.uns), set(adata.varm)) == keys


def test_wrong_models_are_told(pbmc68k):
    adata, model = made("scvi")
    oae, of_oae = made("oae")
    with pytest.raises(TypeError, match="found int"):
        ssc.tl.saliency(adata, 3)
    with pytest.raises(ValueError, match="Unknown model: 'umap'"):
        ssc.tl.saliency(adata, "umap")
    with pytest.raises(ValueError, match="not the output of this model"):
        ssc.tl.saliency(adata, of_oae, sae="sae", progress_bar=False)
    with pytest.raises(KeyError, match="not in the AnnData that the model holds"):
        ssc.tl.saliency(pbmc68k, model)
    with pytest.raises(ValueError, match="not trained"):
        ssc.tl.saliency(oae, ssc.models.OrthogonalAE(oae, 4))
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.saliency first"):
        ssc.get.saliency(pbmc68k)
