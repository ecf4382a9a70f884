"""scvi-tools: the latent as it is decodes to what the model itself gives."""

from __future__ import annotations

import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch
from anndata import AnnData

from sparsesc.decoders import ScviDecoder, as_decoder

pytest.importorskip("scvi", reason="scvi-tools is not installed")
_MODELS: dict[str, object] = {}


def train(name: str):
    """A model after one epoch on synthetic counts, with a batch and a further covariate."""
    import scvi
    import scvi.external

    if name in _MODELS:
        return _MODELS[name]
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # of lightning, about workers and checkpoints
        adata = scvi.data.synthetic_iid(batch_size=60, n_genes=30)
        options = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu", "logger": False}
        if name == "LinearSCVI":
            scvi.model.LinearSCVI.setup_anndata(adata, batch_key="batch")
            model = scvi.model.LinearSCVI(adata, n_latent=5)
        elif name == "DRVI":
            scvi.external.DRVI.setup_anndata(adata, batch_key="batch")
            model = scvi.external.DRVI(adata, n_latent=5, n_hidden=16)
        else:
            adata.obs["site"] = np.tile(["x", "y", "z"], adata.n_obs)[: adata.n_obs]
            adata.obs["score"] = np.linspace(0, 1, adata.n_obs)
            more = {"categorical_covariate_keys": ["site"], "continuous_covariate_keys": ["score"]}
            scvi.model.SCVI.setup_anndata(adata, batch_key="batch", labels_key="labels", **more)
            model = scvi.model.SCVI(adata, n_latent=5, n_hidden=16)
        model.train(**options)
        if name == "SCANVI":
            model = scvi.model.SCANVI.from_scvi_model(model, unlabeled_category="label_0")
            model.train(**options)
        if name == "minified":
            model.adata.obsm["X_latent_qzm"], model.adata.obsm["X_latent_qzv"] = model.get_latent_representation(
                return_dist=True
            )
            model.minify_adata()
    _MODELS[name] = model
    return model


@pytest.mark.parametrize("name", ["SCVI", "SCANVI", "LinearSCVI", "DRVI", "minified"])
def test_latent_decodes_to_the_models_own_output(name):
    model = train(name)
    adata = model.adata
    order = np.random.default_rng(0).permutation(adata.n_obs)  # cells in an order of their own
    with torch.no_grad(), torch.random.fork_rng():
        tensors = next(iter(model._make_data_loader(adata=adata, indices=order, batch_size=len(order))))
        inferred, given = model.module.forward(tensors, compute_loss=False)
    own = given["px"].get_normalized("scale").numpy()
    before = torch.random.get_rng_state()
    decoder = ScviDecoder(model)
    ours = decoder.decode(inferred["z"].numpy(), decoder.covariates(adata.obs_names[order]))
    np.testing.assert_allclose(ours, own, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(ours.sum(1), 1, atol=1e-5)
    assert list(decoder.genes) == list(adata.var_names)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["SCVI", "LinearSCVI"])
def test_posterior_mean_gives_normalized_expression(name, monkeypatch):
    """The public call of the model, with its draw of the latent replaced by the mean of the posterior."""
    model = train(name)
    adata = model.adata
    Z = model.get_latent_representation()
    monkeypatch.setattr(torch.distributions.Normal, "rsample", lambda self, shape=(): self.loc)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = model.get_normalized_expression(return_numpy=True, silent=True)
    decoder = ScviDecoder(model)
    np.testing.assert_allclose(decoder.decode(Z, decoder.covariates(adata.obs_names)), own, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["SCVI", "SCANVI", "LinearSCVI", "DRVI", "minified"])
def test_derivative_agrees_with_finite_differences(name):
    model = train(name)
    cells = model.adata.obs_names[:40]
    decoder = ScviDecoder(model)
    covariates = decoder.covariates(cells)
    rng = np.random.default_rng(0)
    Z, V = rng.normal(size=(2, 40, 5)).astype(np.float32)
    value, slope = decoder.jvp(Z, V, covariates)
    np.testing.assert_allclose(value, decoder.decode(Z, covariates), atol=1e-6)
    if name == "LinearSCVI":  # no kinks, and not made for double precision
        step = np.float32(1e-2)
        rise = (decoder.decode(Z + step * V, covariates) - decoder.decode(Z - step * V, covariates)) / (2 * step)
        np.testing.assert_allclose(slope, rise, atol=1e-3 * np.abs(rise).max())
        return
    # differences by the model itself, in double precision: so small a step crosses no kink of the network
    module = deepcopy(model.module).double().eval()
    exact = {k: v.double() if v is not None and v.is_floating_point() else v for k, v in covariates.items()}

    def shares(step):
        with torch.no_grad():
            px = module.generative(z=torch.from_numpy(Z.astype(np.float64) + step * V), **exact)["px"]
        return px.get_normalized("scale").numpy()

    rise = (shares(1e-6) - shares(-1e-6)) / 2e-6
    np.testing.assert_allclose(slope, rise, atol=1e-3 * np.abs(rise).max(), rtol=1e-3)


def test_decoder_reads_the_cells_of_the_model_and_not_the_matrix_at_hand():
    model = train("SCVI")
    adata = model.adata[::2].copy()
    adata.X = np.zeros_like(adata.X)  # log-normalized since, say
    adata.obsm["X_scVI"] = np.zeros((adata.n_obs, 5), np.float32)
    decoder = as_decoder(adata, model, use_rep="X_scVI")
    whole = ScviDecoder(model).covariates(model.adata.obs_names)
    assert torch.equal(decoder.covariates(adata.obs_names)["library"], whole["library"][::2])


def other_models():
    """Names of all classes of models that are not built on one that is supported."""
    import scvi
    from scvi.model.base import BaseModelClass

    supported = (scvi.model.SCVI, scvi.model.SCANVI, scvi.model.LinearSCVI)
    kinds = {name: getattr(scvi.model, name) for name in scvi.model.__all__}
    models = {n for n, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, BaseModelClass)}
    return sorted(n for n in models if not issubclass(kinds[n], supported))


def test_other_models_are_refused():
    import scvi

    names = other_models()
    assert {"TOTALVI", "PEAKVI", "MULTIVI", "CondSCVI", "AmortizedLDA"} <= set(names)
    cells = AnnData(np.ones((3, 4), np.float32), obsm={"X_scVI": np.ones((3, 2), np.float32)})
    for name in names:
        kind = getattr(scvi.model, name)
        with pytest.raises(TypeError, match=rf"Cannot decode with {name}: .* SCVI, SCANVI, LinearSCVI, DRVI are supp"):
            as_decoder(cells, kind.__new__(kind), use_rep="X_scVI")


def test_model_that_a_user_derived_from_scvi_is_one():
    import scvi

    class Mine(scvi.model.SCVI):
        pass

    cells = scvi.data.synthetic_iid(batch_size=5, n_genes=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Mine.setup_anndata(cells)
        model = Mine(cells, n_latent=5)
    model.is_trained_ = True
    cells.obsm["X_scVI"] = np.zeros((cells.n_obs, 5), np.float32)
    assert isinstance(as_decoder(cells, model, use_rep="X_scVI"), ScviDecoder)


def test_errors_name_what_does_not_fit():
    import scvi

    model = train("SCVI")
    decoder = ScviDecoder(model)
    with pytest.raises(KeyError, match=r"1 of 2 cells are not in the AnnData that the model holds: 'nobody'"):
        decoder.covariates(model.adata.obs_names[:1].append(model.adata.obs_names[:0].insert(0, "nobody")))
    with pytest.raises(ValueError, match=r"takes cells x 5 dimensions, found shape \(2, 4\)"):
        decoder.decode(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"needs the covariates of the cells"):
        decoder.decode(np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"covariates of 1 cells, but 2 cells to decode"):
        decoder.decode(np.zeros((2, 5)), decoder.covariates(model.adata.obs_names[:1]))
    untrained = scvi.model.SCVI(model.adata) if model.minified_data_type is None else model
    with pytest.raises(ValueError, match=r"was not trained"):
        ScviDecoder(untrained)


@pytest.mark.parametrize("name", ["SCVI", "minified"])
def test_features_of_the_latent_reach_the_genes(name):
    """Steering and derivatives over a model: each cell decoded with its own covariates, in an order of its own."""
    import sparsesc as ssc

    model = train(name)
    adata = model.adata[::-1].copy()
    adata.obsm["X_scVI"] = model.get_latent_representation()[::-1].copy()
    rng = np.random.default_rng(0)
    W = rng.normal(size=(12, 5)).astype(np.float32)
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    sae = ssc.nn.SparseAutoencoder(W.T, np.zeros(12), W, np.zeros(5), np.zeros(12))
    ssc.tl.apply_sae(adata, sae, use_rep="X_scVI")
    feature = int(np.bincount(adata.obsm["X_sae"].indices, minlength=12).argmax())  # not one that is off everywhere
    ssc.tl.steer(adata, {f"sae_{feature}": 1.5}, decoder=model, n_controls=1, doses=[])
    decoder = ScviDecoder(model)
    covariates = decoder.covariates(adata.obs_names)
    base, moved = (decoder.decode(adata.obsm[slot], covariates) for slot in ("X_scVI", "X_scVI_steered"))
    rise = (np.log2(1 + 1e4 * moved) - np.log2(1 + 1e4 * base)).mean(0)
    effects = adata.uns["sae"]["steering"]["effects"].set_index("gene").loc[decoder.genes]
    np.testing.assert_allclose(effects["logfc"], rise, atol=1e-4)
    ssc.tl.feature_genes(adata, method="decoder", decoder=model, min_cells=2, progress_bar=False)
    # a derivative, in the cells that have the feature, beside a step, in all: not the same
    assert np.corrcoef(adata.varm["sae_genes"][:, feature], rise)[0, 1] > 0.75
